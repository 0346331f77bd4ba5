"""Rows of an array as unit vectors, read when they are asked for; arrays that grow."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["Floats", "Growing", "Ints", "Rows"]

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]


class Rows(NamedTuple):
    """Unit vectors, read from an array in memory or on disk when they are asked for.

    Attributes:
        array: (n, d) float16 or float32, perhaps a memmap.
        ids: int64 (u,), the rows of the array that are meant, ascending.
        scale: float32 (u,), one over their length.
    """

    array: NDArray[Any]
    ids: Ints
    scale: Floats

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def dims(self) -> int:
        """Components of a vector."""
        return int(self.array.shape[1])

    def take(self, at: slice | Ints) -> Floats:
        """Vectors at these positions, as float32 (m, d) of length 1."""
        ids = self.ids[at]
        if isinstance(at, slice) and len(ids) and ids[-1] - ids[0] + 1 == len(ids):
            block = self.array[ids[0] : ids[-1] + 1]  # no gaps: read in one go
        else:
            block = self.array[ids]
        units: Floats = np.array(block, np.float32)
        units *= self.scale[at][:, None]
        return units


class Growing:
    """An array that is appended to: the memory doubles when it is full, instead of a list of small pieces."""

    def __init__(self, dtype: Any) -> None:
        self.array, self.size = np.empty(1 << 20, dtype), 0

    def append(self, piece: NDArray[Any]) -> None:
        """Add a piece, (p,), at the end."""
        if self.size + len(piece) > len(self.array):
            longer = np.empty(2 * (self.size + len(piece)), self.array.dtype)
            longer[: self.size] = self.array[: self.size]
            self.array = longer
        self.array[self.size : self.size + len(piece)] = piece
        self.size += len(piece)

    def filled(self) -> NDArray[Any]:
        """What was appended, (size,); a view."""
        return self.array[: self.size]
