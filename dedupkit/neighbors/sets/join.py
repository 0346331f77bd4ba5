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

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dedupkit.neighbors.sets.distinct import SetPairs, Sets
from dedupkit.startup.cores import worker_count

__all__ = [
    "ENTRY_BYTES",
    "MEMORY",
    "SetPairs",
    "Sets",
    "iter_jaccard_pairs",
    "iter_part_pairs",
    "jaccard_pairs",
    "parts_of",
]

MEMORY = 2 << 30

ENTRY_BYTES = 20
"""Bytes of a token in the lists of a part."""

_ROWS_A_TASK = 4096
_CAPACITY = 1 << 14  # pairs of a task; a task whose buffer is full goes on with a new one

Ints = NDArray[np.int64]


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
        workers: number of threads, at least 1; by default one for each core that this process may use. The result does
            not depend on it.
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


def iter_jaccard_pairs(
    sides: list[Sets], threshold: float, *, workers: int | None = None, memory: int = MEMORY, largest: int | None = None
) -> Iterator[SetPairs]:
    """Find the similar pairs of distinct sets, in blocks, each pair once; rows that hold equal sets are left out.

    Args:
        sides: one collection to join with itself, or two to join with each other.
        threshold: least similarity, in (0, 1].
        workers: number of threads, at least 1; by default one for each core that this process may use.
        memory: bytes for the inverted lists.
        largest: size of the largest set that is listed: of each pair, the second collection's set, or in a self-join
            the smaller one, has at most so many tokens. All sizes by default.
    """
    if not 0 < threshold <= 1:
        raise ValueError(f"threshold must be a similarity in (0, 1], not {threshold}")
    join = _Join(sides[0], sides[-1], float(threshold), len(sides) == 1, sides[-1].sizes())
    return join.blocks(parts_of(sides[-1], memory, largest), worker_count(workers, least=1))


def iter_part_pairs(sets: Sets, threshold: float, part: tuple[int, int], workers: int = 1) -> Iterator[SetPairs]:
    """Find the similar pairs of distinct sets whose smaller one is in a part, as :func:`iter_jaccard_pairs`.

    Args:
        sets: the collection, joined with itself.
        threshold: least similarity, in (0, 1].
        part: one of :func:`parts_of`; over all of them, each pair is found once.
        workers: number of threads.
    """
    return _Join(sets, sets, float(threshold), True, sets.sizes()).blocks([part], workers)


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


def parts_of(right: Sets, memory: int, largest: int | None = None) -> Iterator[tuple[int, int]]:
    """Ranges of sets, of at most ``largest`` tokens, whose lists fit into memory; no more entries than tokens."""
    sizes = right.sizes()
    stop = len(right.first) if largest is None or largest + 1 >= len(sizes) else int(sizes[largest + 1])
    room = max(1, memory // ENTRY_BYTES)
    first = 0
    while first < stop:
        last = int(np.searchsorted(right.starts, right.starts[first] + room, side="right")) - 1
        last = min(stop, max(last, first + 1))
        yield first, last
        first = last
