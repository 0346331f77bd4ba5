"""Bytes to pixels (scaled, oriented, bounded), JPEGs to coefficients; and the edits that copies undergo."""

from dedupkit.images.decode import (
    LUMA_MIN_SIDE,
    MAX_PIXELS,
    ImageError,
    Luma,
    decode_luma,
    luma_of,
    open_image,
)

__all__ = [
    "LUMA_MIN_SIDE",
    "MAX_PIXELS",
    "ImageError",
    "Luma",
    "decode_luma",
    "luma_of",
    "open_image",
]
