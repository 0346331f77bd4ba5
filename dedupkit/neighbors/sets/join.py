"""The exact join of sets by Jaccard similarity: every pair at or above a threshold, without comparing all with all.

1. Equal sets are collapsed; a set with a hundred thousand copies is one row.
2. Tokens are ordered from the rarest to the most frequent, sets from the smallest to the largest. Two sets that share
   enough tokens share one among the first few of each (prefix filter: Bayardo, Ma and Srikant, "Scaling Up All Pairs
   Similarity Search", WWW 2007), and neither can be much larger than the other. So sets are listed under the tokens of
   their prefix, and looked up by the tokens of theirs.
3. Where the first common token stands in both bounds how many can follow (positional filter: Xiao, Wang, Lin and Yu,
   "Efficient Similarity Joins for Near Duplicate Detection", WWW 2008). Lists are ordered by size and place, so this
   bound selects a stretch of each list, and nothing outside it is read.
4. Each entry carries 64 parities of its set. Bits that differ are at most the tokens that differ (bitmap filter:
   Sandes, Teodoro and Melo, arXiv 1711.07295), which discards nearly all that is left, sixteen entries at a time.
5. What remains is compared token by token, once a pair: under the first token that the two share.

Time grows with the entries read, which is what is quadratic in the worst case; memory is 4 bytes a token and 20 bytes
an entry, and lists that exceed ``memory`` are built and looked up part by part.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["MEMORY", "SetPairs", "Sets", "iter_jaccard_pairs", "jaccard_pairs"]

MEMORY = 2 << 30
_ROWS_A_TASK = 4096
_CAPACITY = 1 << 14  # pairs of a task; a task whose buffer is full goes on with a new one
_ENTRY_BYTES = 20

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


def jaccard_pairs(
    offsets: NDArray[np.integer],
    tokens: NDArray[np.integer],
    threshold: float,
    other: tuple[NDArray[np.integer], NDArray[np.integer]] | None = None,
    *,
    workers: int | None = None,
    memory: int = MEMORY,
) -> SetPairs:
    """Find the pairs of sets whose Jaccard similarity is at least ``threshold``, exactly.

    Equal sets are represented by the first of them: a later one is paired with that first row alone (similarity 1), and
    similar sets are paired by their first rows. So a set that occurs 100,000 times gives 99,999 pairs, not 5 billion.
    With ``other``, equal sets within one side are represented in the same way, and not paired with one another.
    An empty set is similar to none.

    Args:
        offsets: (n + 1,) integers; set i holds ``tokens[offsets[i]:offsets[i + 1]]``.
        tokens: (t,) integers, in any order; a token that is repeated within a set counts once.
        threshold: least similarity, in (0, 1].
        other: offsets and tokens of the sets to join with; without them, sets are joined with themselves.
        workers: number of threads; all cores by default. The result does not depend on it.
        memory: bytes for the inverted lists.

    Returns:
        The pairs, sorted by (a, b).

    Raises:
        ValueError: offsets that do not ascend from 0 to the number of tokens, a threshold out of range.

    Example:
        >>> pairs = jaccard_pairs([0, 3, 6, 9], [1, 2, 3, 2, 3, 4, 7, 8, 9], 0.5)
        >>> pairs.a.tolist(), pairs.b.tolist(), pairs.score.tolist()
        ([0], [1], [0.5])
    """
    sides = [Sets.of(offsets, tokens)] if other is None else Sets.pair((offsets, tokens), other)
    blocks = list(iter_jaccard_pairs(sides, threshold, workers=workers, memory=memory))
    if other is None:
        blocks.append(sides[0].copies())
    a = np.concatenate([np.zeros(0, np.int64), *(block.a for block in blocks)])
    b = np.concatenate([np.zeros(0, np.int64), *(block.b for block in blocks)])
    score = np.concatenate([np.zeros(0, np.float32), *(block.score for block in blocks)])
    order = np.lexsort((b, a))
    return SetPairs(a[order], b[order], score[order])


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


def iter_jaccard_pairs(
    sides: list[Sets], threshold: float, *, workers: int | None = None, memory: int = MEMORY, largest: int | None = None
) -> Iterator[SetPairs]:
    """Find the similar pairs of distinct sets, in blocks, each pair once; rows that hold equal sets are left out.

    Args:
        sides: one collection to join with itself, or two to join with each other.
        threshold: least similarity, in (0, 1].
        workers: number of threads; all cores by default.
        memory: bytes for the inverted lists.
        largest: size of the largest set that is listed: of each pair, the second collection's set, or in a self-join
            the smaller one, has at most so many tokens. All sizes by default.
    """
    if not 0 < threshold <= 1:
        raise ValueError(f"threshold must be a similarity in (0, 1], not {threshold}")
    left, right = sides[0], sides[-1]
    sizes = right.sizes()
    stop = len(right.first) if largest is None or largest + 1 >= len(sizes) else int(sizes[largest + 1])
    join = _Join(left, right, float(threshold), len(sides) == 1, sizes)
    return join.blocks(_parts(right, stop, memory), workers or os.cpu_count() or 1)


class _Postings(NamedTuple):
    """Inverted lists: where each token's list begins, and per entry the set, the token's place in it, the parities."""

    lists: Ints
    rows: NDArray[np.int32]
    places: NDArray[np.int32]
    bits: NDArray[np.uint64]


class _Join:
    """What all tasks of a join share."""

    def __init__(self, left: Sets, right: Sets, threshold: float, self_join: bool, sizes: Ints) -> None:
        from dedupkit.neighbors.sets import kernels

        self._kernels = kernels
        self._left, self._right, self._threshold, self.self_join = left, right, threshold, self_join
        self._sizes = sizes
        self._bits = [np.zeros(len(side.first), np.uint64) for side in ((left,) if self_join else (left, right))]
        for side, bits in zip((left, right), self._bits, strict=False):
            kernels.bitmaps(side.starts, side.tokens, bits)

    def blocks(self, parts: Iterable[tuple[int, int]], workers: int) -> Iterator[SetPairs]:
        """List some sets after the others, and look all sets up that can meet them."""
        with ThreadPoolExecutor(workers) as pool:
            for first, last in parts:
                tasks = range(first if self.self_join else 0, len(self._left.first), _ROWS_A_TASK)
                for found in pool.map(partial(self.probe, self.postings(first, last)), tasks):
                    yield from found

    def postings(self, first: int, last: int) -> _Postings:
        """List the sets ``first`` to ``last``."""
        right, kernels = self._right, self._kernels
        lists = np.zeros(int(right.tokens.max(initial=0)) + 3, np.int64)
        frequent = right.frequent if self.self_join else 0
        none: tuple[NDArray[Any], ...] = (np.zeros(0, np.int32), np.zeros(0, np.int32), np.zeros(0, np.uint64))
        source = (right.starts, right.tokens, self._bits[-1], first, last, self._threshold, self.self_join, frequent)
        kernels.fill_postings(*source, lists, *none)
        np.cumsum(lists, out=lists)
        entries = int(lists[-1])
        filled = _Postings(
            lists,
            np.empty(entries, np.int32),
            np.empty(entries, np.int32),
            np.zeros(entries + kernels.LANES, np.uint64),
        )
        if entries:
            kernels.fill_postings(*source, lists, filled.rows, filled.places, filled.bits)
        return filled._replace(lists=lists[:-1])

    def probe(self, postings: _Postings, begin: int) -> list[SetPairs]:
        """Look some sets up; returns the pairs by the first rows that hold them."""
        left, right = self._left, self._right
        end = min(begin + _ROWS_A_TASK, len(left.first))
        found, capacity = [], _CAPACITY
        while begin < end:
            out = np.empty((capacity, 3), np.int64)
            stopped, count = self._kernels.probe(
                begin, end, left.starts, left.tokens, self._bits[0], right.starts, right.tokens, self._sizes,
                self._threshold, self.self_join, *postings, out,
            )  # fmt: skip
            if stopped == begin and count == 0 and begin < end:
                capacity *= 4  # one set alone has more partners than there was room for
                continue
            begin = stopped
            if count:
                found.append(self._named(out[:count]))
        return found

    def _named(self, pairs: Ints) -> SetPairs:
        one, other, common = pairs[:, 0], pairs[:, 1], pairs[:, 2]
        total = np.diff(self._left.starts)[one] + np.diff(self._right.starts)[other]
        score = (common / (total - common)).astype(np.float32)
        a, b = self._left.first[one], self._right.first[other]
        return SetPairs(np.minimum(a, b), np.maximum(a, b), score) if self.self_join else SetPairs(a, b, score)


def _parts(right: Sets, stop: int, memory: int) -> Iterator[tuple[int, int]]:
    """Ranges of sets whose lists fit into memory; a set has at most as many entries as tokens."""
    room = max(1, memory // _ENTRY_BYTES)
    first = 0
    while first < stop:
        last = int(np.searchsorted(right.starts, right.starts[first] + room, side="right")) - 1
        last = min(stop, max(last, first + 1))
        yield first, last
        first = last


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
    from dedupkit.neighbors.sets import kernels

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
    from dedupkit.neighbors.sets import kernels

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
