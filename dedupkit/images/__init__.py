"""Bytes to pixels (scaled, oriented, bounded), JPEGs to coefficients; and the edits that copies undergo."""

from dedupkit.images.decode import LUMA_MIN_SIDE, Luma, decode_luma, luma_of, open_image
from dedupkit.images.limits import MAX_PIXELS, MAX_SCANS, ImageError, check_scans
from dedupkit.images.orientation import jpeg_turn, turn_array

__all__ = [
    "LUMA_MIN_SIDE",
    "MAX_PIXELS",
    "MAX_SCANS",
    "ImageError",
    "Luma",
    "check_scans",
    "decode_luma",
    "jpeg_turn",
    "luma_of",
    "open_image",
    "turn_array",
]
