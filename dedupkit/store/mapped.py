"""Arrays that lie in a file, of which a process holds the pages that it is at."""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["give_back_pages", "in_blocks", "on_disk"]

_BLOCK = 1 << 20  # rows


def on_disk(array: NDArray[Any]) -> NDArray[Any]:
    """The same array in a temporary file, which has no name and goes with the last array over it.

    It counts as writable, for what is compiled for arrays that are; what is written into it may be lost.

    Raises:
        OSError: The disk is full.
    """
    import numpy as np

    if not array.size:
        return array  # no file of no bytes can be mapped
    with TemporaryFile(prefix="dedupkit-") as stream:
        stream.write(np.ascontiguousarray(array).data)
        stream.flush()
        return np.asarray(np.memmap(stream, array.dtype, "c", shape=array.shape))


def give_back_pages(*arrays: NDArray[Any]) -> None:
    """Give the pages of arrays that are :func:`on_disk` back to the system, which reads them again where they are used.

    Arrays in memory stay as they are.
    """
    import numpy as np

    for array in arrays:
        base: Any = array
        while isinstance(base, np.ndarray):
            base = base.base
        if isinstance(base, mmap.mmap) and hasattr(base, "madvise"):
            base.madvise(mmap.MADV_DONTNEED)


def in_blocks(array: NDArray[Any], rows: int = _BLOCK) -> Iterator[tuple[int, NDArray[Any]]]:
    """An array block by block: the number of the first row, and the rows. No page of the file is held for long.

    Example:
        >>> import numpy as np
        >>> [(low, block.tolist()) for low, block in in_blocks(on_disk(np.arange(3)), 2)]
        [(0, [0, 1]), (2, [2])]
    """
    for low in range(0, len(array), rows):
        yield low, array[low : low + rows]
        give_back_pages(array)
