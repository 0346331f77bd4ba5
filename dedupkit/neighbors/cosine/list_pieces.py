"""The lists of nearest neighbours of one set of vectors in pieces: those of ranges of vectors, from what cells hold.

What pieces of :meth:`dedupkit.neighbors.cosine.pieces.Pieces.nearest` found is joined for a range of vectors, and
written out as pairs of rows. A pair may come from the lists of both its rows, which may lie in two ranges; so the pairs
of a range are sorted, and last each range of rows takes the pairs whose smaller row lies in it, and keeps each once.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dedupkit.neighbors.cosine.distinct import Distinct
from dedupkit.neighbors.cosine.expanded import each_once, nearest_rows
from dedupkit.neighbors.cosine.lists import NeighborLists
from dedupkit.neighbors.cosine.pairs import Columns
from dedupkit.neighbors.cosine.pieces import mapped
from dedupkit.neighbors.cosine.rows import Growing

__all__ = ["COLUMNS", "Listed", "pairs_between", "pairs_of_range", "rows_between"]

COLUMNS = ("a", "b", "score")
"""Names of the arrays in which pieces leave vectors and their neighbours, or pairs of rows: sorted by the first."""


class Listed(NamedTuple):
    """What is known of the lists of a range of vectors.

    Attributes:
        full: Number of rows of which the list is full.
        last: The largest cosine at the end of such a list; minus infinity where there is none.
    """

    full: int
    last: float


def pairs_of_range(
    distinct: Distinct, k: int, floor: float, vectors: tuple[int, int], found: Iterable[Sequence[Path]]
) -> tuple[Columns, Listed]:
    """The k nearest rows of each row that has one of a range of vectors.

    Args:
        distinct: The distinct vectors.
        k: Number of neighbours of a row.
        floor: Least cosine.
        vectors: The first of the range, and the first behind it.
        found: Files of the arrays of :data:`COLUMNS`, of vectors and their neighbours.

    Returns:
        Pairs a < b of rows with scores, each once, sorted; and what is known of the lists.
    """
    begin, end = vectors
    lists = NeighborLists(end - begin, k, floor)
    for files in found:
        row, other, score = _between(files, begin, end)
        lists.add(row - begin, other, score)
    count = len(distinct.rows.array)
    keys, scores = Growing(np.int64), Growing(np.float32)
    full, highest = 0, -np.inf
    for row, other, score, kth in nearest_rows(distinct, begin, lists, k):
        full += int(kth.sum())
        highest = max(highest, float(score[kth].max(initial=-np.inf)))
        keys.append(np.minimum(row, other) * count + np.maximum(row, other))
        scores.append(score)
    pair = keys.filled()
    return each_once(pair // count, pair % count, scores.filled(), count), Listed(full, highest)


def rows_between(distinct: Distinct, vectors: tuple[int, int]) -> tuple[int, int]:
    """The range of rows that stands for a range of vectors: all such ranges together hold every row once."""
    begin, end = vectors
    ids, count = distinct.rows.ids, len(distinct.rows.array)
    return int(ids[begin]) if begin else 0, int(ids[end]) if end < len(ids) else count


def pairs_between(count: int, rows: tuple[int, int], found: Iterable[Sequence[Path]]) -> Columns:
    """The pairs whose smaller row lies in a range, each once, sorted.

    Args:
        count: Number of rows.
        rows: The first row of the range, and the first behind it.
        found: Files of the arrays of :data:`COLUMNS`, of pairs a < b.
    """
    parts = [_between(files, *rows) for files in found]
    a, b, score = (np.concatenate(column) for column in zip(*parts, strict=True))
    return each_once(a, b, score, count)


def _between(
    files: Sequence[Path], begin: int, end: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
    """What lies in a range of the first of sorted columns."""
    first, second, score = map(mapped, files)
    low, high = np.searchsorted(first, [begin, end])
    return np.array(first[low:high]), np.array(second[low:high]), np.array(score[low:high])
