"""Lists of neighbours of distinct vectors, written out as pairs of the rows that have them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from dedupkit.neighbors.cosine.distinct import Distinct
from dedupkit.neighbors.cosine.lists import NeighborLists
from dedupkit.neighbors.cosine.pairs import Columns
from dedupkit.neighbors.cosine.rows import Floats, Growing, Ints

__all__ = ["each_once", "nearest_entries", "nearest_rows", "pairs_of_rows", "pairs_of_sets"]

_ENTRIES_AT_ONCE = 1 << 22  # of the table from which the k nearest rows are taken


def pairs_of_rows(
    distinct: Distinct, lists: NeighborLists, k: int, count: int
) -> tuple[Ints, Ints, Floats, NDArray[np.float32]]:
    """The k nearest rows of each row of a set, as pairs, and the cosine of each row's k-th neighbour.

    Args:
        distinct: The distinct vectors of the set.
        lists: Their neighbours among themselves.
        k: Number of neighbours of a row.
        count: Number of rows.

    Returns:
        Pairs a < b, each once, sorted, with scores; and (count,) cosines, minus infinity where a row has fewer.
    """
    last = np.full(count, -np.inf, np.float32)
    sizes = distinct.sizes
    if (sizes == 1).all():
        last[distinct.rows.ids] = lists.scores[:, -1]
        row, other, score = lists.pairs()
        ids = distinct.rows.ids
        return (*each_once(ids[row], ids[other], score, count), last)
    keys, scores = Growing(np.int64), Growing(np.float32)
    for row, other, score, kth in nearest_rows(distinct, 0, lists, k):
        last[row[kth]] = score[kth]
        keys.append(np.minimum(row, other) * count + np.maximum(row, other))
        scores.append(score)
    pair = keys.filled()
    return (*each_once(pair // count, pair % count, scores.filled(), count), last)


def nearest_rows(
    distinct: Distinct, begin: int, lists: NeighborLists, k: int
) -> Iterator[tuple[Ints, Ints, Floats, NDArray[np.bool_]]]:
    """The k nearest rows of each row that has one of some vectors, in blocks.

    Args:
        distinct: The distinct vectors of the set.
        begin: The vector that the first list belongs to.
        lists: The neighbours of this one and of those after it.
        k: Number of neighbours of a row.

    Yields:
        Rows, their neighbours and cosines, and which of these are a k-th one.
    """
    sizes = distinct.sizes[begin : begin + len(lists.ids)]
    widest = distinct.sizes.max(initial=1)
    part = np.cumsum(sizes * (k + 1) * np.minimum(k + 1, widest)) // _ENTRIES_AT_ONCE
    for places in np.split(np.arange(len(sizes)), np.flatnonzero(np.diff(part)) + 1):
        near = np.column_stack([places + begin, lists.ids[places]])
        score = np.column_stack([np.ones(len(places), np.float32), lists.scores[places]])
        yield nearest_entries(*_expanded(distinct, near, score, k), k)


def pairs_of_sets(
    distinct: Distinct, others: Distinct, lists: NeighborLists, k: int, count: int
) -> tuple[Ints, Ints, Floats, NDArray[np.float32]]:
    """The k nearest rows in another set of each row of a set; arguments and result as for :func:`pairs_of_rows`.

    Args:
        distinct: The distinct vectors of the set.
        others: Those of the other set.
        lists: The neighbours of the former among the latter.
        k: Number of neighbours of a row.
        count: Number of rows of the set.

    Returns:
        Pairs of a row of the set and one of the other, sorted, with scores; and the cosines.
    """
    vector, near, score = lists.pairs()
    pair, at = _spans(others.starts[near], np.minimum(others.sizes[near], k))  # the k nearest rows are among these
    vector, row, score, kth = nearest_entries(vector[pair], others.members[at], score[pair], k)
    reached = np.full(len(distinct.sizes), -np.inf, np.float32)
    reached[vector[kth]] = score[kth]
    last = np.full(count, -np.inf, np.float32)
    last[distinct.members] = np.repeat(reached, distinct.sizes)
    pair, at = _spans(distinct.starts[vector], distinct.sizes[vector])
    a, b = distinct.members[at], row[pair]
    order = np.lexsort((b, a))
    return a[order], b[order], score[pair][order], last


def nearest_entries(
    row: Ints, other: Ints, score: NDArray[np.float32], k: int
) -> tuple[Ints, Ints, NDArray[np.float32], NDArray[np.bool_]]:
    """The k best entries of each row, ties by the other's number; and which of them are a k-th one."""
    order = np.lexsort((other, -score, row))
    row, other, score = row[order], other[order], score[order]
    _, first, counts = np.unique(row, return_index=True, return_counts=True)
    rank = np.arange(len(row)) - np.repeat(first, counts)
    near = rank < k
    return row[near], other[near], score[near], rank[near] == k - 1


def _expanded(distinct: Distinct, near: Ints, score: Floats, k: int) -> Columns:
    """Every row of some vectors with the first rows equal to it and those of its neighbours: enough for the k nearest.

    A vector that is none of the k nearest, ties by its first row, has no row that is.

    Args:
        distinct: The distinct vectors.
        near: (m, 1 + k), the vectors, each before its neighbours; -1 where there is none.
        score: (m, 1 + k), their cosines.
        k: Number of neighbours of a row.
    """
    place, at = np.nonzero(near >= 0)
    vector, other, value = near[place, 0], near[place, at], score[place, at]
    width = np.minimum(distinct.sizes[other], k + 1)  # a row itself is one of those equal to it
    high = distinct.sizes[vector]
    pair = np.repeat(np.arange(len(place)), high * width)
    within = np.arange(len(pair)) - np.repeat(np.cumsum(high * width) - high * width, high * width)
    row = distinct.members[distinct.starts[vector[pair]] + within // width[pair]]
    column = distinct.members[distinct.starts[other[pair]] + within % width[pair]]
    apart = row != column
    return row[apart], column[apart], value[pair[apart]]


def _spans(starts: Ints, lengths: Ints) -> tuple[Ints, Ints]:
    """For each place of some spans the number of the span, and the place."""
    span = np.repeat(np.arange(len(starts)), lengths)
    return span, starts[span] + np.arange(len(span)) - np.repeat(np.cumsum(lengths) - lengths, lengths)


def each_once(row: Ints, other: Ints, score: NDArray[np.float32], count: int) -> Columns:
    """Each pair once, a < b, sorted."""
    keys, first = np.unique(np.minimum(row, other) * count + np.maximum(row, other), return_index=True)
    return keys // max(count, 1), keys % max(count, 1), score[first]
