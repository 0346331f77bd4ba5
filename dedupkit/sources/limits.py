"""How much of one sample is read at most, so that no file exhausts the memory."""

from __future__ import annotations

import os

from dedupkit.errors import DedupkitError

__all__ = ["MAX_IMAGE_BYTES", "MAX_MEMBERS", "USUAL_IMAGE_BYTES", "too_large"]

USUAL_IMAGE_BYTES = 256 << 20
"""The limit where the environment says nothing."""


def _max_image_bytes() -> int:
    given = os.environ.get("DEDUPKIT_MAX_IMAGE_BYTES", "").strip()
    if given and not (given.isdecimal() and int(given)):
        raise DedupkitError(
            f"DEDUPKIT_MAX_IMAGE_BYTES is a number of bytes, such as {1 << 30} for 1 GiB, not {given!r}"
        )
    return int(given or USUAL_IMAGE_BYTES)


MAX_IMAGE_BYTES = _max_image_bytes()
"""Size in bytes of an image file, and of all files of one sample of a tar.

64 megapixels, the most that is decoded, at four bytes each. The environment variable of the same name with the prefix
``DEDUPKIT_`` changes it.
"""

MAX_MEMBERS = 1000
"""Files of one sample of a tar."""


def too_large(name: str, size: int) -> str:
    """Why a file is not read."""
    return f"{name} has {size:,} bytes, more than the limit of {MAX_IMAGE_BYTES:,} (DEDUPKIT_MAX_IMAGE_BYTES)"
