"""Lists of nearest neighbours that are filled in any order: the same pairs give the same lists."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from dedupkit.neighbors.cosine.pairs import Columns
from dedupkit.neighbors.cosine.rows import Floats, Ints

__all__ = ["NeighborLists"]


@njit(cache=True, nogil=True)
def insert(ids: Any, scores: Any, rows: Any, others: Any, values: Any) -> None:
    """Put each (row, other, value) into the row's list, (n, k), best first, ties by number; one is listed once."""
    k = ids.shape[1]
    for p in range(len(rows)):
        row, other, value = rows[p], others[p], values[p]
        last = scores[row, k - 1]
        if value < last or (value == last and ids[row, k - 1] >= 0 and other >= ids[row, k - 1]):
            continue
        at = k - 1
        known = False
        for place in range(k):
            if ids[row, place] == other:
                known = True
                break
        if known:
            continue
        while at > 0 and (
            ids[row, at - 1] < 0
            or value > scores[row, at - 1]
            or (value == scores[row, at - 1] and other < ids[row, at - 1])
        ):
            ids[row, at], scores[row, at] = ids[row, at - 1], scores[row, at - 1]
            at -= 1
        ids[row, at], scores[row, at] = other, value


class NeighborLists:
    """For each row the k nearest others found so far; ties go to the smaller number.

    Args:
        rows: Number of rows.
        k: Length of a list.
        floor: Least cosine.

    Attributes:
        ids: int64 (rows, k), the others, nearest first; -1 where there is none.
        floor: Least cosine, float32.
        scores: float32 (rows, k), their cosines; minus infinity where there is none.
    """

    def __init__(self, rows: int, k: int, floor: float) -> None:
        self.ids: NDArray[np.int64] = np.full((rows, k), -1, np.int64)
        self.scores: NDArray[np.float32] = np.full((rows, k), -np.inf, np.float32)
        self.floor = np.float32(floor)

    def add(self, rows: Ints, others: Ints, scores: Floats) -> None:
        """Offer pairs, (p,) each, to the lists of ``rows``."""
        insert(self.ids, self.scores, rows, others, scores)

    def bounds(self, rows: slice | Ints) -> Floats:
        """What a cosine must reach to enter the lists of some rows, float32."""
        found: Floats = np.maximum(self.scores[rows, -1], self.floor)
        return found

    def pairs(self) -> Columns:
        """Every (row, other) with its score, row by row, nearest first."""
        row, place = np.nonzero(self.ids >= 0)
        return row, self.ids[row, place], self.scores[row, place]
