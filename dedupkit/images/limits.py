"""What an image may cost, known before it is decoded."""

from __future__ import annotations

from dedupkit.errors import DedupkitError
from dedupkit.images.jpeg.segments import count_scans

__all__ = ["MAX_PIXELS", "MAX_SCANS", "MAX_SIDE", "ImageError", "check_headers", "check_scans", "check_size"]

MAX_PIXELS = 64_000_000
"""Most pixels held in memory for one image; a baseline JPEG counts at the scale at which it is decoded."""

MAX_SCANS = 100
"""Most scans of a JPEG. Encoders write about ten; each costs a pass over all coefficients."""

MAX_SIDE = 300_000
"""Longest side in pixels, that of Photoshop's large documents. Pillow copies a row once for each 64 KiB of it, so an
image of three rows of ten million pixels would take minutes."""

_MAX_SCANNED = 1_000_000_000  # pixels times scans: some seconds


class ImageError(DedupkitError, ValueError):
    """The bytes are no image that can be used; the message is the reason that the manifest shows."""


def check_size(width: int, height: int, max_pixels: int, reduced: int = 1) -> None:
    """Refuse an image that would take too much memory.

    Args:
        width: In pixels.
        height: In pixels.
        max_pixels: The most pixels decoded.
        reduced: The side of the blocks that are averaged while decoding.

    Raises:
        ImageError: The image is too large.

    >>> check_size(9000, 9000, MAX_PIXELS, reduced=2)
    >>> check_size(9000, 9000, MAX_PIXELS)
    Traceback (most recent call last):
        ...
    dedupkit.images.limits.ImageError: too large: 9000x9000 is 81 megapixels, the limit is 64
    """
    if max(width, height) > MAX_SIDE:
        raise ImageError(f"too large: {width}x{height} has a side of more than {MAX_SIDE:,} pixels")
    if (width * height) // (reduced * reduced) > max_pixels:
        raise ImageError(
            f"too large: {width}x{height} is {width * height / 1e6:.0f} megapixels, the limit is {max_pixels / 1e6:.0f}"
        )


def check_scans(data: bytes, width: int, height: int) -> None:
    """Refuse a JPEG that would take too long: a file of some kilobytes can hold thousands of scans.

    Raises:
        ImageError: The file has too many scans, for any image or for one of this size.
    """
    most = min(MAX_SCANS, _MAX_SCANNED // max(1, width * height))
    if count_scans(data, most + 1) > most:
        raise ImageError(f"too many scans: over {most} in a JPEG of {width}x{height} pixels")


def check_headers(data: bytes, max_pixels: int) -> None:
    """Refuse a WebP whose canvas is too large before its decoder reserves memory for it.

    Raises:
        ImageError: The image is too large.
    """
    if data[:4] == b"RIFF" and data[8:16] == b"WEBPVP8X" and len(data) >= 30:
        width, height = (1 + int.from_bytes(data[start : start + 3], "little") for start in (24, 27))
        check_size(width, height, max_pixels)
