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

from dedupkit.errors import DedupkitError

__all__ = [
    "LUMA_MIN_SIDE",
    "MAX_PIXELS",
    "ImageError",
    "Luma",
    "decode_luma",
    "luma_of",
    "open_image",
    "turn_of_jpeg",
]

LUMA_MIN_SIDE = 144
"""Values that a reduced plane keeps along its shorter side: 2.25 for each of PDQ's 64 cells."""

MAX_PIXELS = 64_000_000
"""Most pixels held in memory for one image; a baseline JPEG counts at the scale at which it is decoded."""

_PILLOW_FORMATS = ("AVIF", "BMP", "DIB", "GIF", "ICO", "JPEG", "JPEG2000", "MPO", "PNG", "PPM", "TIFF", "WEBP")
_ORIENTATION_TAG = 0x0112
_UNTURNED = (False, False, False)
# Array operations that undo each EXIF orientation: (transpose first, flip rows, flip columns).
_TURNS = {
    2: (False, False, True),
    3: (False, True, True),
    4: (False, True, False),
    5: (True, False, False),
    6: (True, False, True),
    7: (True, True, True),
    8: (True, True, False),
}


class ImageError(DedupkitError, ValueError):
    """The bytes are no image that can be used; the message is the reason that the manifest shows."""


@dataclass(frozen=True, slots=True)
class Luma:
    """An oriented luminance plane, possibly reduced.

    Attributes:
        plane: (ceil(height / block), ceil(width / block)) uint8, each value the mean of a block of pixels.
        block: side of the averaged blocks: 1, 2, 4 or 8.
        trimmed: whether the partial blocks lie at the (start, end) of (rows, columns): ``(top, left)`` flags. An
            orientation that mirrors a reduced plane moves its partial last block to the front.
        width: of the full image, after orientation, in pixels.
        height: of the full image, after orientation, in pixels.
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
        data: the stored bytes.
        min_side: the shorter side of the plane stays at or above this many values, unless the image is smaller.
        max_pixels: bound on the pixels decoded, see :data:`MAX_PIXELS`.

    Raises:
        ImageError: empty, truncated, broken, unknown or too large; the message says which.
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

    Raises:
        ImageError: as :func:`decode_luma`.
    """
    if not data:
        raise ImageError("empty file (0 bytes)")
    try:
        image = Image.open(io.BytesIO(data), formats=_formats())
        _check_size(image.width, image.height, max_pixels)
        image.load()
        oriented = ImageOps.exif_transpose(image) if _orientation(image) != 1 else image
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
    """The luminance plane of a decoded image: alpha over white (as img2dataset does), 16 bits scaled to 8.

    Args:
        image: any mode.
        min_side: as in :func:`decode_luma`.

    Raises:
        ImageError: the mode has no conversion to luminance.
    """
    try:
        grey = _to_grey(image)
    except (ValueError, OSError) as error:
        raise ImageError(f"mode {image.mode}: {error}") from error
    block = _block_for(image.height, image.width, min_side)
    if block > 1:
        grey = grey.reduce(block)
    fmt = (image.format or "unknown").lower()
    return Luma(np.asarray(grey), block, (False, False), image.width, image.height, fmt)


@lru_cache(maxsize=1)
def _formats() -> tuple[str, ...]:
    """The formats that this Pillow reads by itself; some others start a program (EPS) and are not for unknown bytes."""
    Image.init()
    return tuple(name for name in _PILLOW_FORMATS if name in Image.OPEN)


def _decode_jpeg(data: bytes, min_side: int, max_pixels: int) -> Luma | None:
    """The fast path; None where Pillow shall decide."""
    try:
        height, width, colorspace, _ = simplejpeg.decode_jpeg_header(data)
        if colorspace not in ("YCbCr", "Gray", "GRAY"):
            return None
        block = _block_for(height, width, min_side)
        rows, cols = -(-height // block), -(-width // block)
        progressive, has_exif = _jpeg_header(data)
        _check_size(width, height, max_pixels, reduced=1 if progressive else block)
        plane = simplejpeg.decode_jpeg(data, "GRAY", min_height=rows, min_width=cols)[:, :, 0]
    except ImageError:
        raise
    except ValueError:
        return None
    if plane.shape != (rows, cols):  # a libjpeg without that scale gives the next larger one
        return None
    trimmed = (False, False)
    if has_exif:
        transpose, flip_rows, flip_columns = turn_of_jpeg(data)
        if transpose:
            plane, height, width = plane.T, width, height
        plane = plane[:: -1 if flip_rows else 1, :: -1 if flip_columns else 1]
        trimmed = (flip_rows, flip_columns)
    return Luma(plane, block, trimmed, width, height, "jpeg")


def _block_for(height: int, width: int, min_side: int) -> int:
    side = min(height, width)
    return next((block for block in (8, 4, 2) if side >= block * min_side), 1)


def _check_size(width: int, height: int, max_pixels: int, reduced: int = 1) -> None:
    if (width * height) // (reduced * reduced) > max_pixels:
        raise ImageError(
            f"too large: {width}x{height} is {width * height / 1e6:.0f} megapixels, the limit is {max_pixels / 1e6:.0f}"
        )


def _jpeg_header(data: bytes) -> tuple[bool, bool]:
    """Whether the frame is not baseline (then libjpeg holds all coefficients at any scale); whether EXIF is there."""
    position, has_exif = 2, False
    while position + 4 <= len(data) and data[position] == 0xFF:
        marker = data[position + 1]
        if marker == 0xFF:  # fill byte
            position += 1
            continue
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            return marker > 0xC1, has_exif
        has_exif |= marker == 0xE1 and data[position + 4 : position + 10] == b"Exif\0\0"
        position += 2 + int.from_bytes(data[position + 2 : position + 4], "big")
    return False, has_exif


def turn_of_jpeg(data: bytes) -> tuple[bool, bool, bool]:
    """How the EXIF block of a JPEG turns the picture: transpose first, then flip rows, flip columns."""
    try:
        orientation = _orientation(Image.open(io.BytesIO(data), formats=("JPEG", "MPO")))
    except Exception:
        return _UNTURNED
    return _TURNS.get(orientation, _UNTURNED)


def _orientation(image: Image.Image) -> int:
    """EXIF orientation 1..8; 1 where there is none or the EXIF block is broken."""
    try:
        value = image.getexif().get(_ORIENTATION_TAG, 1)
    except Exception:
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _to_grey(image: Image.Image) -> Image.Image:
    mode = image.mode
    if mode == "L" and "transparency" not in image.info:
        return image
    if mode.startswith("I;16"):
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if mode in ("I", "F"):
        return Image.fromarray(_stretch(np.asarray(image)))
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
