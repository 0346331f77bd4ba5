"""How this process's allocators handle what is freed."""

from __future__ import annotations

import ctypes
import sys

__all__ = ["give_back_memory", "keep_freed_memory"]

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3  # glibc's malloc.h


def keep_freed_memory(most: int = 1 << 30) -> None:
    """Let glibc's malloc reuse large blocks instead of handing them back to the system at every ``free``.

    By default it maps a large block for itself and unmaps it when it is freed, so that each batch of a model touches
    fresh pages: half of the time of a convolutional network on a CPU goes into the page faults. A no-op elsewhere.

    Args:
        most: bytes; blocks up to this size are reused, and about as much free memory is kept at most.
    """
    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, most)
        mallopt(_M_TRIM_THRESHOLD, most)
        mallopt(_M_TOP_PAD, min(most, 64 << 20))


def give_back_memory() -> None:
    """Hand what is free back to the system: in Arrow's pool, and in the heap of glibc's malloc.

    Both keep freed blocks for later, a hundred megabytes and more after a stage that sorts and joins columns.
    """
    arrow = sys.modules.get("pyarrow")
    if arrow is not None:
        arrow.default_memory_pool().release_unused()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)
