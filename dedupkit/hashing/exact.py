"""Exact identity: of the stored bytes, and of the decoded pixels."""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dedupkit.images import decoded_image

__all__ = ["pixel_hash", "stored_hash"]


def stored_hash(data: bytes) -> bytes:
    """Compute the SHA-256 of the stored bytes.

    Args:
        data: The file's contents.

    Returns:
        32 bytes.

    >>> stored_hash(b"").hex()[:16]
    'e3b0c44298fc1c14'
    """
    return hashlib.sha256(data).digest()


def pixel_hash(image: Image.Image | NDArray[np.uint8]) -> bytes:
    """Compute the SHA-256 of mode, size and pixels: equal for files that differ only in container or metadata.

    Args:
        image: A decoded image, with its orientation applied (:func:`dedupkit.images.open_image`). A palette is
            resolved to RGB or RGBA first, so that a GIF and a PNG of the same image agree. Or its pixels: (h, w),
            (h, w, 3) or (h, w, 4) uint8.

    Returns:
        32 bytes.

    Raises:
        ImageError: An array of another shape or dtype, or an image without pixels.
        TypeError: It is no decoded image.

    >>> grey = Image.new("L", (4, 3), 7)
    >>> pixel_hash(grey) == pixel_hash(grey.copy()), pixel_hash(grey) == pixel_hash(grey.convert("RGB"))
    (True, False)
    """
    image = decoded_image(image)
    if image.mode in ("P", "PA"):
        image = image.convert("RGBA" if image.mode == "PA" or "transparency" in image.info else "RGB")
    digest = hashlib.sha256(f"{image.mode} {image.width} {image.height} ".encode())
    digest.update(image.tobytes())
    return digest.digest()
