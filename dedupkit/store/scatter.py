"""Rows of arrays sorted into files, so that each file can be worked on alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["append_rows"]


def append_rows(files: Sequence[Path], where: NDArray[Any], rows: NDArray[Any]) -> None:
    """Append rows to the files that they go into, as they lie in memory.

    Args:
        files: The files; one that gets no row is not made.
        where: (k,) the number of the file of each row; rows of other numbers go nowhere.
        rows: (k,) of any dtype.
    """
    import numpy as np

    order = np.argsort(where, kind="stable")
    bounds = np.searchsorted(where[order], np.arange(len(files) + 1))
    for number, file in enumerate(files):
        mine = order[bounds[number] : bounds[number + 1]]
        if len(mine):
            with file.open("ab") as stream:
                rows[mine].tofile(stream)
