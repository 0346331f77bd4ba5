"""Sets as the join reads them: equal ones collapsed, from the smallest to the largest, tokens from the rarest on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["SetPairs", "Sets"]

Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class SetPairs:
    """Pairs of sets with their Jaccard similarity.

    Attributes:
        a: (p,) int64, row of the first set.
        b: (p,) int64, row of the second set; a < b where sets were joined with themselves.
        score: (p,) float32, tokens in common over tokens in either.
    """

    a: Ints
    b: Ints
    score: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.a)


class Sets(NamedTuple):
    """Distinct sets, from the smallest to the largest, as the join reads them.

    Attributes:
        starts: (k + 1,) int64, where each set begins in ``tokens``.
        tokens: (t,) int32, ranks from the rarest token on, ascending within a set.
        first: (k,) int64, the first row that holds each set.
        row: (n,) int64, for each row the number of its set, -1 for an empty one.
        frequent: the least rank of a token that two sets hold.
    """

    starts: Ints
    tokens: NDArray[np.int32]
    first: Ints
    row: Ints
    frequent: int

    @classmethod
    def of(cls, offsets: Any, tokens: Any) -> Sets:
        """Order and collapse sets that are to be joined with themselves."""
        return _prepare([_checked(offsets, tokens)])[0]

    @classmethod
    def pair(cls, one: tuple[Any, Any], other: tuple[Any, Any]) -> list[Sets]:
        """Order and collapse two collections that are to be joined with each other."""
        return _prepare([_checked(*one), _checked(*other)])

    def copies(self) -> SetPairs:
        """Rows that hold the same set as an earlier row, each paired with the first such row."""
        later = np.flatnonzero(self.row >= 0)
        first = self.first[self.row[later]]
        later, first = later[first != later], first[first != later]
        return SetPairs(first, later, np.ones(len(later), np.float32))

    def sizes(self) -> Ints:
        """With which set each size begins, (largest + 2,) int64."""
        lengths = np.diff(self.starts)
        largest = int(lengths[-1]) if len(lengths) else 0
        return np.searchsorted(lengths, np.arange(largest + 2)).astype(np.int64)


def _checked(offsets: Any, tokens: Any) -> tuple[Ints, NDArray[Any]]:
    offsets, tokens = np.asarray(offsets), np.asarray(tokens)
    if offsets.ndim != 1 or not len(offsets) or offsets.dtype.kind not in "iu":
        raise ValueError(f"offsets must be integers of shape (n + 1,), not {offsets.dtype} {offsets.shape}")
    if tokens.ndim != 1 or (len(tokens) and tokens.dtype.kind not in "iu"):
        raise ValueError(f"tokens must be integers of shape (t,), not {tokens.dtype} {tokens.shape}")
    offsets = offsets.astype(np.int64)
    if offsets[0] != 0 or offsets[-1] != len(tokens) or bool(np.any(np.diff(offsets) < 0)):
        raise ValueError(f"offsets must ascend from 0 to the number of tokens, {len(tokens)}")
    if len(offsets) - 1 >= 2**31:
        raise ValueError(f"{len(offsets) - 1:,} sets; at most 2**31 - 1 fit")
    return offsets, tokens


def _prepare(sides: list[tuple[Ints, NDArray[Any]]]) -> list[Sets]:
    from dedupkit.neighbors.sets import distinct_kernels as kernels

    dense, count = _dense([tokens for _, tokens in sides])
    rows = []
    frequency = np.zeros(count, np.int64)
    for (offsets, _), numbers in zip(sides, dense, strict=True):
        starts = np.zeros(len(offsets), np.int64)
        kernels.distinct_rows(offsets, numbers, starts, frequency)
        rows.append((starts, numbers[: starts[-1]]))
    order = np.argsort(frequency, kind="stable")
    rank = np.empty(count, np.int32)
    rank[order] = np.arange(count, dtype=np.int32)
    frequent = int(np.searchsorted(frequency[order], 2))
    for starts, numbers in rows:
        kernels.rank_rows(starts, numbers, rank)
    return [_collapse(starts, numbers, frequent) for starts, numbers in rows]


def _dense(sides: list[NDArray[Any]]) -> tuple[list[NDArray[np.int32]], int]:
    """Copies of the tokens as numbers from 0 on, the same over all sides, and how many there are."""
    total = sum(map(len, sides))
    low = min((int(side.min()) for side in sides if len(side)), default=0)
    high = max((int(side.max()) for side in sides if len(side)), default=-1)
    if low >= 0 and high < min(2 * total + 1024, 2**31 - 1):
        return [side.astype(np.int32) for side in sides], high + 1
    known = np.unique(np.concatenate([np.unique(side) for side in sides]))
    return [np.searchsorted(known, side).astype(np.int32) for side in sides], len(known)


def _collapse(starts: Ints, tokens: NDArray[np.int32], frequent: int) -> Sets:
    """Order rows by size and keep the first of equal ones."""
    from dedupkit.neighbors.sets import distinct_kernels as kernels

    lengths = np.diff(starts)
    hashes = np.empty(len(lengths), np.uint64)
    kernels.row_hashes(starts, tokens, hashes)
    order = np.argsort(hashes, kind="stable")
    if len(lengths) and lengths.max() >= 65535:  # the hash does not hold so large a size
        order = order[np.argsort(lengths[order], kind="stable")]
    order = order[lengths[order] > 0]
    same = np.zeros(len(order), bool)
    same[1:] = hashes[order[1:]] == hashes[order[:-1]]
    leader = order[np.maximum.accumulate(np.where(same, 0, np.arange(len(order))))]
    again = np.flatnonzero(same)
    equal = np.zeros(len(again), bool)
    kernels.equal_rows(starts, tokens, leader[again], order[again], equal)
    same[again] = equal  # rows whose hashes collide stay apart; the join compares them
    first = order[~same]
    row = np.full(len(lengths), -1, np.int64)
    row[first] = np.arange(len(first))
    row[order[same]] = row[leader[same]]
    kept = np.concatenate([[0], np.cumsum(lengths[first])]).astype(np.int64)
    gathered = np.empty(int(kept[-1]), np.int32)
    kernels.gather_rows(starts, tokens, first, kept, gathered)
    return Sets(kept, gathered, first, row, frequent)
