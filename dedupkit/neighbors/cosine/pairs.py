"""Pairs of vectors: what a cosine join returns, and what is known before."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dedupkit.neighbors.cosine.recall import EXACT, Recall

__all__ = ["NO_PAIRS", "Columns", "KnownPairs", "ScoredPairs", "no_rows"]

Columns = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]
"""Rows of the first set, rows of the second, and their cosines."""


def no_rows() -> NDArray[np.int64]:
    """Return an empty list of rows."""
    return np.empty(0, np.int64)


@dataclass(frozen=True, slots=True)
class ScoredPairs:
    """Pairs of rows with their cosine.

    Attributes:
        a: int64 (m,), row in the first set.
        b: int64 (m,), row in the second set; a < b where a set was joined with itself.
        score: float32 (m,), cosine, at or above the floor.
        recall: share of all such pairs that was found.
        skipped: int64, rows of the first set that are zero or not finite, and match nothing.
        skipped_other: int64, those of the second set.
    """

    a: NDArray[np.int64]
    b: NDArray[np.int64]
    score: NDArray[np.float32]
    recall: Recall = EXACT
    skipped: NDArray[np.int64] = field(default_factory=no_rows)
    skipped_other: NDArray[np.int64] = field(default_factory=no_rows)

    def __len__(self) -> int:
        return len(self.a)


class KnownPairs(NamedTuple):
    """Pairs of vectors that a search is there to find, such as images and edited copies that were made of them.

    Attributes:
        left: (u, d) float16 or float32; no zeros.
        right: (p, d), the same.
        of: (p,) int64, the row of ``left`` that each of ``right`` makes a pair with.
    """

    left: NDArray[Any]
    right: NDArray[Any]
    of: NDArray[np.int64]


NO_PAIRS: Columns = (no_rows(), no_rows(), np.empty(0, np.float32))
