"""Bytes to pixels (scaled, oriented, bounded), JPEGs to coefficients, images to thumbnails and transformed copies."""

from dedupkit.images.decode import LUMA_MIN_SIDE, Luma, decode_luma, eight_bits, luma_of, open_image
from dedupkit.images.given import ImageLike, checked_image, decoded_image
from dedupkit.images.limits import MAX_PIXELS, MAX_SCANS, ImageError, check_scans
from dedupkit.images.orientation import jpeg_turn, turn_array
from dedupkit.images.thumbnail import thumbnail

__all__ = [
    "LUMA_MIN_SIDE",
    "MAX_PIXELS",
    "MAX_SCANS",
    "ImageError",
    "ImageLike",
    "Luma",
    "check_scans",
    "checked_image",
    "decode_luma",
    "decoded_image",
    "eight_bits",
    "jpeg_turn",
    "luma_of",
    "open_image",
    "thumbnail",
    "turn_array",
]
