"""PDQ, the 256-bit perceptual hash of photos, from full or block-averaged luminance.

Source: Facebook, "The TMK+PDQF Video-Hashing Algorithm and the PDQ Image-Hashing Algorithm", 2019, section "PDQ"
(ThreatExchange repository): luminance, two passes of a box filter per axis ("Jarosz"), decimation to 64x64, the
16x16 lowest non-constant coefficients of the type-II DCT, each bit the comparison with their median. Two images match
at 31 bits or fewer, and hashes of quality below 50 are discarded.

The filter and the decimation are two small matrix products (:mod:`dedupkit.hashing.decimator`); the result agrees with
the reference to the bit on full luminance. A plain JPEG is hashed from its coefficients, other files from a plane at
reduced scale.

Bits are stored as the reference prints them: byte 0 holds the highest vertical frequency. Unpacked to 16x16, row i
is vertical frequency 16 - i and column j horizontal frequency 16 - j.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import ThreadpoolController

from dedupkit.hashing.decimator import SIDE, coefficient_buffers, frequencies, luma_buffer
from dedupkit.images import ImageError, ImageLike, Luma, checked_image, decode_luma, luma_of
from dedupkit.images.jpeg.coefficients import Coefficients, read_coefficients

__all__ = [
    "CROP_VIEWS",
    "Decimated",
    "central_views",
    "decimate",
    "one_math_thread",
    "pdq",
    "pdq_dihedral",
    "pdq_from_buffers",
]

CROP_VIEWS = (0.9, 0.8, 0.7, 0.6, 0.5)
"""Sides of the nested central views of an image, as parts of its own sides.

A copy that was cropped evenly looks like a view of the original, and a copy inside a border holds the original as a
view.
"""

_KEPT = 16
_COEFFICIENTS_MIN_SIDE = 17  # below, many bits compare what is equal but for rounding, which differs from pixels'
_VIEWS_MIN_SIDE = 256  # of a decoded plane; the smallest view is half of it

_rows = np.arange(1, _KEPT + 1)[:, None]
_DCT = (np.sqrt(2 / SIDE) * np.cos(np.pi / (2 * SIDE) * _rows * (2 * np.arange(SIDE) + 1))).astype(np.float32)


def pdq(image: ImageLike) -> tuple[NDArray[np.uint8], int]:
    """Compute the PDQ hash and quality of one image.

    Args:
        image: Encoded bytes, a Pillow image, or an array: (h, w), (h, w, 3) or (h, w, 4) uint8.

    Returns:
        The hash, (32,) uint8, and the quality, 0 to 100.

    Raises:
        ImageError: The bytes are no image that can be decoded, or the array has another shape or dtype, or no pixels.
        TypeError: It is no image.

    >>> from PIL import Image
    >>> image = Image.linear_gradient("L").rotate(30)
    >>> code, quality = pdq(image)
    >>> code.shape, code.dtype, quality
    ((32,), dtype('uint8'), 100)
    """
    with one_math_thread():
        hashes, qualities = pdq_from_buffers(_buffer(image)[None])
    return hashes[0], int(qualities[0])


def pdq_dihedral(image: ImageLike) -> tuple[NDArray[np.uint8], int]:
    """Compute the PDQ hashes of an image in its eight orientations, from one DCT.

    Args:
        image: As for :func:`pdq`.

    Returns:
        Hashes, (8, 32) uint8, in the order of the reference: original, rotated by 90, 180 and 270 degrees, flipped
        up-down, flipped left-right, transposed along either diagonal; and the quality.

    Raises:
        ImageError: As :func:`pdq`.
        TypeError: It is no image.

    >>> from PIL import Image
    >>> image = Image.linear_gradient("L").rotate(30)
    >>> hashes, _ = pdq_dihedral(image)
    >>> hashes.shape, bool((hashes[0] == pdq(image)[0]).all())
    ((8, 32), True)
    """
    with one_math_thread():
        buffer = _buffer(image)[None]
        coefficients = _coefficients(buffer)[0]
    sign = np.where(np.arange(_KEPT) % 2 == 0, -1.0, 1.0).astype(np.float32)  # index 0 is frequency 1: odd
    rows, cols = sign[:, None], sign[None, :]
    turned = coefficients.T
    views = [
        coefficients,
        turned * rows,
        coefficients * rows * cols,
        turned * cols,
        coefficients * rows,
        coefficients * cols,
        turned,
        turned * rows * cols,
    ]
    return _threshold(np.stack(views)), int(_quality(buffer)[0])


def one_math_thread() -> AbstractContextManager[object]:
    """Hold numpy's matrix products to one thread: they are so small here that more threads only spin."""
    limited: AbstractContextManager[object] = _math_libraries().limit(limits=1, user_api="blas")
    return limited


@lru_cache(maxsize=1)
def _math_libraries() -> ThreadpoolController:
    return ThreadpoolController()


def central_views(luma: Luma, parts: Sequence[float]) -> list[Luma]:
    """Central views of a decoded image; the planes are slices, so a view costs its hash and no decoding.

    Args:
        luma: The image.
        parts: For each view its sides as parts of the image's.

    >>> from PIL import Image
    >>> luma = luma_of(Image.new("L", (100, 80)))
    >>> [(view.width, view.height) for view in central_views(luma, CROP_VIEWS[:2])]
    [(90, 72), (80, 64)]
    """
    rows, cols = luma.plane.shape
    views = []
    for part in parts:
        top, left = round(rows * (1 - part) / 2), round(cols * (1 - part) / 2)
        plane = luma.plane[top : max(rows - top, top + 1), left : max(cols - left, left + 1)]
        height, width = (side * luma.block for side in plane.shape)
        views.append(Luma(plane, luma.block, (False, False), width, height, luma.format))
    return views


def pdq_from_buffers(buffers: NDArray[np.float32]) -> tuple[NDArray[np.uint8], NDArray[np.int16]]:
    """Hash many decimated images at once.

    Args:
        buffers: (n, 64, 64) float32 of :func:`luma_buffer`.

    Returns:
        Hashes, (n, 32) uint8, and qualities, (n,) int16 in 0..100.

    >>> hashes, qualities = pdq_from_buffers(np.zeros((2, 64, 64), np.float32))
    >>> hashes.shape, qualities.tolist()
    ((2, 32), [0, 0])
    """
    return _threshold(_coefficients(buffers)), _quality(buffers)


@dataclass(frozen=True, slots=True)
class Decimated:
    """An encoded image, filtered and decimated.

    Attributes:
        buffers: (n, 64, 64) float32: the image, and views of it where they were asked for.
        width: Width after orientation, in pixels.
        height: Height after orientation, in pixels.
        format: ``jpeg``, ``png``, ``webp``, … in lower case.
    """

    buffers: NDArray[np.float32]
    width: int
    height: int
    format: str


def decimate(images: Sequence[bytes], views: Sequence[float] = ()) -> list[Decimated | ImageError]:
    """Filter and decimate encoded images for PDQ; plain JPEGs without turning them into pixels, several at once.

    Args:
        images: The stored bytes.
        views: Central views to decimate as well, as parts of the sides, e.g. :data:`CROP_VIEWS`.

    Returns:
        For each image its buffers, or why it cannot be decoded.

    >>> decimate([b"no image"])
    [ImageError('not an image that Pillow can identify')]
    """
    found: list[Coefficients | None]
    try:
        found = read_coefficients(images, frequencies, min_side=_COEFFICIENTS_MIN_SIDE)
    except MemoryError:  # one after the other they may fit
        found = [None] * len(images)
    return [_decimated(image, coefficients, views) for image, coefficients in zip(images, found, strict=True)]


def _decimated(image: bytes, coefficients: Coefficients | None, views: Sequence[float]) -> Decimated | ImageError:
    try:
        if coefficients is not None:
            buffers = coefficient_buffers(coefficients, views)
            sides = coefficients.height, coefficients.width
            height, width = reversed(sides) if coefficients.turned[0] else sides
            return Decimated(buffers, width, height, "jpeg")
        luma = decode_luma(image)
        planes = [luma, *central_views(decode_luma(image, min_side=_VIEWS_MIN_SIDE), views)] if views else [luma]
        buffers = np.stack([luma_buffer(plane) for plane in planes])
    except ImageError as error:
        return error
    except Exception as error:  # a MemoryError, for one, costs one image and not the run
        failure = ImageError(f"{type(error).__name__}: {error}")
        failure.__cause__ = error
        return failure
    return Decimated(buffers, luma.width, luma.height, luma.format)


def _buffer(image: ImageLike) -> NDArray[np.float32]:
    image = checked_image(image)
    if isinstance(image, bytes):
        (decimated,) = decimate([image])
        if isinstance(decimated, ImageError):
            raise decimated
        buffer: NDArray[np.float32] = decimated.buffers[0]
        return buffer
    return luma_buffer(luma_of(image))


def _coefficients(buffers: NDArray[np.float32]) -> NDArray[np.float32]:
    result: NDArray[np.float32] = _DCT @ buffers @ _DCT.T
    return result


def _threshold(coefficients: NDArray[np.float32]) -> NDArray[np.uint8]:
    flat = coefficients.reshape(len(coefficients), -1)
    middle = flat.shape[1] // 2 - 1  # the lower of the two middle values, as the reference takes it
    median = np.partition(flat, middle, axis=1)[:, middle : middle + 1]
    return np.packbits((flat > median)[:, ::-1], axis=1)


def _quality(buffers: NDArray[np.float32]) -> NDArray[np.int16]:
    """Sum of absolute gradients in hundredths of the range, each truncated, over 90, at most 100."""
    vertical = np.abs(np.diff(buffers, axis=1) * np.float32(100 / 255)).astype(np.int32).sum(axis=(1, 2))
    horizontal = np.abs(np.diff(buffers, axis=2) * np.float32(100 / 255)).astype(np.int32).sum(axis=(1, 2))
    quality: NDArray[np.int16] = np.minimum((vertical + horizontal) // 90, 100).astype(np.int16)
    return quality
