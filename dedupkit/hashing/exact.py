"""Exact identity: of the stored bytes, and of the decoded pixels."""

from __future__ import annotations

import hashlib

from PIL import Image

__all__ = ["pixel_hash", "stored_hash"]


def stored_hash(data: bytes) -> bytes:
    """SHA-256 of the stored bytes, 32 bytes."""
    return hashlib.sha256(data).digest()


def pixel_hash(image: Image.Image) -> bytes:
    """SHA-256 of mode, size and pixels, 32 bytes: equal for files that differ only in container or metadata.

    Args:
        image: decoded, with its orientation applied (:func:`dedupkit.images.open_image`). A palette is resolved to
            RGB or RGBA first, so that a GIF and a PNG of the same picture agree.
    """
    if image.mode in ("P", "PA"):
        image = image.convert("RGBA" if image.mode == "PA" or "transparency" in image.info else "RGB")
    digest = hashlib.sha256(f"{image.mode} {image.width} {image.height} ".encode())
    digest.update(image.tobytes())
    return digest.digest()
