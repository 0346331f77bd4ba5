"""Images in the forms in which callers give them, checked before anything is computed from them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dedupkit.images.limits import ImageError

__all__ = ["ImageLike", "checked_image", "decoded_image"]

ImageLike = bytes | Image.Image | NDArray[np.uint8]
"""The bytes of a file, a PIL image, or pixels: (h, w), (h, w, 3) or, with alpha, (h, w, 4) uint8."""


def checked_image(image: ImageLike) -> bytes | Image.Image:
    """An image as it was given, pixels as a PIL image.

    Raises:
        ImageError: An array of another shape or dtype, or an image without pixels.
        TypeError: It is no image.

    >>> checked_image(np.zeros((2, 3), np.uint8)).size
    (3, 2)
    >>> checked_image("photo.jpg")
    Traceback (most recent call last):
        ...
    TypeError: an image is the bytes of a file, a PIL image or an array of uint8, not str
    """
    if isinstance(image, bytes):
        return image
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or not (image.ndim == 2 or (image.ndim == 3 and image.shape[2] in (3, 4))):
            raise ImageError(f"pixels must be uint8 of shape (h, w) or (h, w, 3), not {image.dtype} of {image.shape}")
        if not image.size:
            raise ImageError("the image has no pixels")
        return Image.fromarray(image)
    if not isinstance(image, Image.Image):
        raise TypeError(
            f"an image is the bytes of a file, a PIL image or an array of uint8, not {type(image).__name__}"
        )
    if 0 in image.size:
        raise ImageError("the image has no pixels")
    return image


def decoded_image(image: Image.Image | NDArray[np.uint8]) -> Image.Image:
    """A PIL image, also of pixels.

    Raises:
        ImageError: As :func:`checked_image`.
        TypeError: It is no image, or the bytes of one, which have yet to be decoded.
    """
    checked = checked_image(image)
    if isinstance(checked, bytes):
        raise TypeError("the bytes of a file are no pixels; decode them with dedupkit.images.open_image")
    return checked
