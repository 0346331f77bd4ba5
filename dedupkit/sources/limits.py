"""How much of one sample is read at most, so that no file exhausts the memory."""

from __future__ import annotations

import os

__all__ = ["MAX_IMAGE_BYTES", "MAX_MEMBERS", "too_large"]

MAX_IMAGE_BYTES = int(os.environ.get("DEDUPKIT_MAX_IMAGE_BYTES", str(256 << 20)))
"""Size in bytes of an image file, and of all files of one sample of a tar.

64 megapixels, the most that is decoded, at four bytes each. The environment variable of the same name with the prefix
``DEDUPKIT_`` changes it.
"""

MAX_MEMBERS = 1000
"""Files of one sample of a tar."""


def too_large(name: str, size: int) -> str:
    """Why a file is not read."""
    return f"{name} has {size:,} bytes, more than the limit of {MAX_IMAGE_BYTES:,} (DEDUPKIT_MAX_IMAGE_BYTES)"
