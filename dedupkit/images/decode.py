"""Image bytes to an oriented luminance plane, at the smallest scale that hashing needs.

Entropy decoding is the floor of reading a JPEG; the inverse transform and the colour conversion are not. libjpeg's
half, quarter and eighth scale produce the averages of 2x2, 4x4 and 8x8 blocks of pixels straight from the
coefficients, and the grey output skips the two chroma planes. A perceptual hash averages over larger blocks than
that anyway, so it can be computed from the reduced plane (:mod:`dedupkit.hashing.pdq`). Plain JPEGs need no plane at
all for that (:mod:`dedupkit.images.jpeg.coefficients`).

Whatever simplejpeg refuses (CMYK, warnings, other formats) goes to Pillow, whose verdict is final.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from dedupkit.images.jpeg.segments import is_frame, segments
from dedupkit.images.limits import MAX_PIXELS, ImageError, check_headers, check_scans, check_size
from dedupkit.images.orientation import UPRIGHT, jpeg_turn, turn_array, turn_of

__all__ = [
    "LUMA_MIN_SIDE",
    "MAX_PIXELS",
    "ImageError",
    "Luma",
    "decode_luma",
    "eight_bits",
    "luma_of",
    "open_image",
]

LUMA_MIN_SIDE = 144
"""Values that a reduced plane keeps along its shorter side: 2.25 for each of PDQ's 64 cells."""

_PILLOW_FORMATS = ("AVIF", "BMP", "DIB", "GIF", "ICO", "JPEG", "JPEG2000", "MPO", "PNG", "PPM", "TIFF", "WEBP")


@dataclass(frozen=True, slots=True)
class Luma:
    """An oriented luminance plane, possibly reduced.

    Attributes:
        plane: (ceil(height / block), ceil(width / block)) uint8, each value the mean of a block of pixels.
        block: Side of the averaged blocks: 1, 2, 4 or 8.
        trimmed: Whether the partial blocks lie at the (start, end) of (rows, columns): ``(top, left)`` flags. An
            orientation that mirrors a reduced plane moves its partial last block to the front.
        width: Width of the full image after orientation, in pixels.
        height: Height of the full image after orientation, in pixels.
        format: ``jpeg``, ``png``, ``webp``, … in lower case.
    """

    plane: NDArray[np.uint8]
    block: int
    trimmed: tuple[bool, bool]
    width: int
    height: int
    format: str


def decode_luma(data: bytes, *, min_side: int = LUMA_MIN_SIDE, max_pixels: int = MAX_PIXELS) -> Luma:
    """Decode image bytes to luminance (ITU-R BT.601), at a reduced scale where the image allows it.

    Args:
        data: The stored bytes.
        min_side: The least number of values along the shorter side of the plane, unless the image is smaller.
        max_pixels: The most pixels decoded, see :data:`MAX_PIXELS`.

    Returns:
        The plane, uint8, with the EXIF orientation applied.

    Raises:
        ImageError: The file is empty, truncated, broken, unknown, or too costly; the message says which.

    >>> file = io.BytesIO()
    >>> Image.new("L", (600, 400), 90).save(file, "JPEG")
    >>> luma = decode_luma(file.getvalue())
    >>> luma.plane.shape, luma.block, luma.width, luma.height, luma.format
    ((200, 300), 2, 600, 400, 'jpeg')
    """
    if not data:
        raise ImageError("empty file (0 bytes)")
    if data[:3] == b"\xff\xd8\xff":
        luma = _decode_jpeg(data, min_side, max_pixels)
        if luma is not None:
            return luma
    return luma_of(open_image(data, max_pixels=max_pixels), min_side=min_side)


def open_image(data: bytes, *, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Decode image bytes in full: the first frame, in its own mode (LAB as RGB), with the EXIF orientation applied.

    Args:
        data: The stored bytes.
        max_pixels: The most pixels decoded.

    Raises:
        ImageError: As :func:`decode_luma`.

    >>> open_image(b"")
    Traceback (most recent call last):
        ...
    dedupkit.images.limits.ImageError: empty file (0 bytes)
    """
    if not data:
        raise ImageError("empty file (0 bytes)")
    try:
        check_headers(data, max_pixels)
        image = Image.open(io.BytesIO(data), formats=_formats())
        check_size(image.width, image.height, max_pixels)
        if image.format in ("JPEG", "MPO"):
            check_scans(data, image.width, image.height)
        image.load()
        oriented = ImageOps.exif_transpose(image) if turn_of(image) != UPRIGHT else image
        if oriented.mode == "LAB":  # the one mode of files that has no way to grey
            oriented = oriented.convert("RGB")
    except ImageError:
        raise
    except Image.DecompressionBombError:
        # Pillow refuses before it tells the size, at twice its own limit.
        over = 2 * (Image.MAX_IMAGE_PIXELS or 0) / 1e6
        raise ImageError(f"too large: over {over:.0f} megapixels, the limit is {max_pixels / 1e6:.0f}") from None
    except UnidentifiedImageError:
        # Pillow's own message holds a memory address, and a manifest must not change from run to run.
        raise ImageError("not an image that Pillow can identify") from None
    except Exception as error:  # decoders raise almost anything on hostile bytes (SyntaxError, struct.error, ...)
        raise ImageError(f"{type(error).__name__}: {error}") from error
    oriented.format = image.format
    return oriented


def luma_of(image: Image.Image, *, min_side: int = LUMA_MIN_SIDE) -> Luma:
    """Compute the luminance plane of a decoded image: alpha over white (as img2dataset does), 16 bits scaled to 8.

    Args:
        image: An image of any mode.
        min_side: As in :func:`decode_luma`.

    Returns:
        The plane, uint8.

    Raises:
        ImageError: The mode has no conversion to luminance.

    >>> luma_of(Image.new("RGBA", (3, 2), (0, 0, 0, 0))).plane.tolist()
    [[255, 255, 255], [255, 255, 255]]
    """
    try:
        grey = _to_grey(image)
    except Exception as error:
        raise ImageError(f"mode {image.mode}: {error or type(error).__name__}") from error
    block = _block_for(image.height, image.width, min_side)
    if block > 1:
        grey = grey.reduce(block)
    fmt = (image.format or "unknown").lower()
    return Luma(np.asarray(grey), block, (False, False), image.width, image.height, fmt)


def eight_bits(image: Image.Image) -> Image.Image:
    """An image of 16 or 32 bits a pixel's value as a grey one of 8 bits; any other as it is.

    >>> eight_bits(Image.new("F", (1, 1), 0.5)).getpixel((0, 0)), eight_bits(Image.new("I", (1, 1), 65535)).mode
    (127, 'L')
    """
    if image.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.mode in ("I", "F"):
        return Image.fromarray(_stretch(np.asarray(image)))
    return image


@lru_cache(maxsize=1)
def _formats() -> tuple[str, ...]:
    """The formats that this Pillow reads by itself; some others start a program (EPS) and are not for unknown bytes."""
    Image.init()
    return tuple(name for name in _PILLOW_FORMATS if name in Image.OPEN)


def _decode_jpeg(data: bytes, min_side: int, max_pixels: int) -> Luma | None:
    """The fast path; None where Pillow decides."""
    try:
        height, width, colorspace, _ = simplejpeg.decode_jpeg_header(data)
        if colorspace not in ("YCbCr", "Gray", "GRAY"):
            return None
        block = _block_for(height, width, min_side)
        rows, cols = -(-height // block), -(-width // block)
        check_size(width, height, max_pixels, reduced=1 if _holds_coefficients(data) else block)
        check_scans(data, width, height)
        plane = simplejpeg.decode_jpeg(data, "GRAY", min_height=rows, min_width=cols)[:, :, 0]
    except ImageError:
        raise
    except ValueError:
        return None
    if plane.shape != (rows, cols):  # a libjpeg without that scale gives the next larger one
        return None
    turn = jpeg_turn(data)
    if turn[0]:
        height, width = width, height
    return Luma(turn_array(plane, turn), block, turn[1:], width, height, "jpeg")


def _block_for(height: int, width: int, min_side: int) -> int:
    side = min(height, width)
    return next((block for block in (8, 4, 2) if side >= block * min_side), 1)


def _holds_coefficients(data: bytes) -> bool:
    """Whether libjpeg holds all coefficients of a JPEG at any scale: unless its frame is sequential."""
    return next((marker > 0xC1 for marker, _, _ in segments(data) if is_frame(marker)), False)


def _to_grey(image: Image.Image) -> Image.Image:
    image = eight_bits(image)
    mode = image.mode
    if mode == "L" and "transparency" not in image.info:
        return image
    if mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, rgba).convert("L")
    if mode in ("P", "CMYK", "YCbCr", "LAB", "HSV"):
        image = image.convert("RGB")
    return image.convert("L")


def _stretch(values: NDArray[np.generic]) -> NDArray[np.uint8]:
    """32-bit values to 8 bits: by the full scale (1, 255 or 65535) that holds them, else by their range."""
    numbers = values.astype(np.float64)
    finite = np.isfinite(numbers)
    numbers = np.where(finite, numbers, 0.0)
    low, high = float(numbers.min()), float(numbers.max())
    if low < 0 or high > 65535:
        numbers = (numbers - low) / ((high - low) or 1.0) * 255
    elif high > 255:
        numbers /= 257
    elif high <= 1:
        numbers *= 255
    return numbers.astype(np.uint8)
