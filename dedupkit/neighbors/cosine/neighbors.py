"""The k nearest neighbours of every vector above a floor, exactly or in cells with a measured recall.

A threshold lets through a share of all pairs, which is quadratic; k neighbours of each vector are linear. Equal rows
are collapsed first and written out at the end, as in the join of all pairs. The tiles sieve with what the k-th best
cosine of each vector has reached so far, less the error of the product; what passes is scored in float64, so the lists
are the same on every engine and for every tiling.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dedupkit.neighbors.cosine.cells import assign, members
from dedupkit.neighbors.cosine.distinct import Distinct, check_vectors, collapse
from dedupkit.neighbors.cosine.join import EXACT_PAIRS, threads
from dedupkit.neighbors.cosine.lists import NeighborLists
from dedupkit.neighbors.cosine.nearest import nearest_of, nearest_tiles
from dedupkit.neighbors.cosine.overlap import Plan, make_plan
from dedupkit.neighbors.cosine.pairs import Columns, no_rows
from dedupkit.neighbors.cosine.recall import EXACT, Recall, measured
from dedupkit.neighbors.cosine.rows import Growing, Ints
from dedupkit.neighbors.cosine.sample import LEAST_SAMPLE, SAMPLE_SHARE, Sample
from dedupkit.neighbors.cosine.settings import MEMORY, Settings
from dedupkit.neighbors.cosine.tiles import Engine, Sets

__all__ = ["Neighbors", "cosine_neighbors"]

_MOST_K = 1024
_LIST_BYTES = 48  # of a place in a list: 12 for the lists, the rest for making pairs of them
_ENTRIES_AT_ONCE = 1 << 22  # of the table from which the k nearest rows are taken


@dataclass(frozen=True, slots=True)
class Neighbors:
    """Pairs of rows of which one at least is among the k nearest of the other.

    Attributes:
        a: int64 (m,), the smaller row; sorted by (a, b), each pair once.
        b: int64 (m,), the larger row.
        score: float32 (m,), cosine, at or above the floor.
        last: float32 (n,), the cosine of each row's k-th neighbour; minus infinity where fewer reach the floor. All
            pairs of a row above it are there.
        recall: Share of the k nearest of distinct vectors that was found.
        skipped: int64, rows that are zero or not finite, and have no neighbours.
    """

    a: NDArray[np.int64]
    b: NDArray[np.int64]
    score: NDArray[np.float32]
    last: NDArray[np.float32]
    recall: Recall = EXACT
    skipped: NDArray[np.int64] = field(default_factory=no_rows)

    def __len__(self) -> int:
        return len(self.a)


def cosine_neighbors(
    vectors: NDArray[Any],
    k: int,
    floor: float,
    *,
    rows: NDArray[np.int64] | None = None,
    method: str = "auto",
    target_recall: float = 0.99,
    memory: int = MEMORY,
    device: str | None = None,
    seed: int = 0,
    workers: int | None = None,
) -> Neighbors:
    """Find the k nearest of each vector among those whose cosine reaches a floor.

    Work: n² d / 2 multiply-adds where the search is exact; memory: 48 k bytes a row beside what
    :func:`~dedupkit.neighbors.cosine_pairs` takes.

    >>> vectors = np.array([[1, 0], [3, 0.1], [3, 0.3], [0, 2]], np.float32)
    >>> found = cosine_neighbors(vectors, k=1, floor=0.5)
    >>> found.a, found.b, found.score.round(3)
    (array([0, 1]), array([1, 2]), array([0.999, 0.998], dtype=float32))

    Args:
        vectors: (n, d) float16 or float32, of any length; a memory map is read in blocks.
        k: Number of neighbours of each row, 1 to 1024; ties go to the smaller row.
        floor: Least cosine, in (-1, 1].
        rows: int64, the rows whose neighbours are wanted, among all; by default every row.
        method: ``exact``, ``cells``, or ``auto``: exact where that takes seconds.
        target_recall: Share of the neighbours that ``cells`` must find, in (0, 1).
        memory: Bytes for blocks, and for the result; not counting the vectors.
        device: ``cpu`` or a CUDA device of torch; by default CUDA where there is one.
        seed: Seed for the sample and for k-means.
        workers: Number of threads of torch; by default its own setting.

    Returns:
        The pairs, with the measured recall.

    Raises:
        ValueError: An array of another shape or type, a number out of range, or lists for which ``memory`` has no room.
        MissingExtraError: A device was named, and torch is not installed.
    """
    if not 1 <= k <= _MOST_K:
        raise ValueError(f"k must be 1 to {_MOST_K} neighbours of each row, not {k}")
    settings = Settings(floor, method, target_recall, memory, device, seed, workers)
    array = check_vectors(vectors, "vectors")
    needed = len(array) * min(k, max(1, len(array) - 1)) * _LIST_BYTES
    if needed > memory:
        raise ValueError(
            f"{k} neighbours of {len(array):,} rows need {needed / 2**20:,.0f} MiB, and memory allows "
            f"{memory / 2**20:,.0f}; ask for fewer neighbours or give more memory"
        )
    return search(array, k, settings, rows)


def search(array: NDArray[Any], k: int, settings: Settings, rows: NDArray[np.int64] | None = None) -> Neighbors:
    """As :func:`cosine_neighbors`, with checked arguments."""
    dims = array.shape[1]
    products = len(array) * (len(array) / 2 if rows is None else len(rows))
    engine = Engine.choose(settings.device, products, dims, settings.floor)
    with threads(settings.workers):
        distinct = collapse(array)
        sets = Sets(engine, distinct.rows, None, settings.memory // (16 * dims))
        lists = NeighborLists(len(distinct.rows), k, settings.floor)
        wanted = None if rows is None else _positions(distinct, rows)
        few = wanted is not None and (settings.method == "exact" or products <= EXACT_PAIRS)
        plan, recall = (None, EXACT) if few else _plan(sets, k, settings)
        if wanted is not None and plan is None:
            some = NeighborLists(len(wanted), k, settings.floor)
            nearest_of(sets, wanted, some)
            lists.ids[wanted], lists.scores[wanted] = some.ids, some.scores
        elif plan is None:
            nearest_tiles(sets, None, lists)
        else:
            starts, owner = members(assign(engine, distinct.rows, plan), len(plan.centres))
            for cell in range(len(plan.centres)):
                inside = owner[starts[cell] : starts[cell + 1]]
                if len(inside) > 1:
                    nearest_tiles(sets, inside, lists)
    a, b, score, last = _pairs_of_rows(distinct, lists, k, len(array))
    if rows is not None:
        mine = np.zeros(len(array), bool)
        mine[rows] = True
        near = mine[a] & (score >= last[a]) | mine[b] & (score >= last[b])
        a, b, score = a[near], b[near], score[near]
    return Neighbors(a, b, score, last, recall, distinct.skipped)


def _positions(distinct: Distinct, rows: NDArray[np.int64]) -> Ints:
    """The distinct vectors that some rows have, ascending."""
    vector = np.full(len(distinct.rows.array), -1, np.int64)
    vector[distinct.members] = np.repeat(np.arange(len(distinct.sizes)), distinct.sizes)
    found = np.unique(vector[rows])
    return found[found >= 0]


def _plan(sets: Sets, k: int, settings: Settings) -> tuple[Plan | None, Recall]:
    """Cells that find the wanted share of the neighbours of a sample, and what the sample says of them."""
    rows = len(sets.left)
    cells = settings.method == "cells" or (settings.method == "auto" and rows * rows / 2 > EXACT_PAIRS)
    if not cells or rows < 2:
        return None, EXACT
    count = min(rows, max(LEAST_SAMPLE, int(SAMPLE_SHARE * rows)))
    queries = np.random.default_rng([settings.seed, 0]).permutation(rows)[:count]
    ordered = np.sort(queries)
    lists = NeighborLists(count, k, settings.floor)
    nearest_of(sets, ordered, lists)
    place, other, score = lists.pairs()
    sample = Sample(queries, ordered[place], other, score)
    plan = make_plan(sets, sample, settings.target_recall, settings.seed, settings.overlap)
    return plan, EXACT if plan is None else measured(plan.found, plan.i, count)


def _pairs_of_rows(
    distinct: Distinct, lists: NeighborLists, k: int, count: int
) -> tuple[Ints, Ints, NDArray[np.float32], NDArray[np.float32]]:
    """Neighbours of distinct vectors as pairs of rows, and the cosine of each row's k-th neighbour."""
    last = np.full(count, -np.inf, np.float32)
    sizes = distinct.sizes
    if (sizes == 1).all():
        last[distinct.rows.ids] = lists.scores[:, -1]
        row, other, score = lists.pairs()
        ids = distinct.rows.ids
        return (*_once(ids[row], ids[other], score, count), last)
    keys, scores = Growing(np.int64), Growing(np.float32)
    part = np.cumsum(sizes * (k + 1) * np.minimum(k + 1, sizes.max(initial=1))) // _ENTRIES_AT_ONCE
    for vectors in np.split(np.arange(len(sizes)), np.flatnonzero(np.diff(part)) + 1):
        row, other, score = _expanded(distinct, lists, vectors, k)
        order = np.lexsort((other, -score, row))
        row, other, score = row[order], other[order], score[order]
        _, first, counts = np.unique(row, return_index=True, return_counts=True)
        rank = np.arange(len(row)) - np.repeat(first, counts)
        last[row[rank == k - 1]] = score[rank == k - 1]
        near = rank < k
        a, b = np.minimum(row, other)[near], np.maximum(row, other)[near]
        keys.append(a * count + b)
        scores.append(score[near])
    pair = keys.filled()
    return (*_once(pair // count, pair % count, scores.filled(), count), last)


def _expanded(distinct: Distinct, lists: NeighborLists, vectors: Ints, k: int) -> Columns:
    """Every row of some vectors with the first rows equal to it and those of its neighbours: enough for the k nearest.

    A vector that is none of the k nearest, ties by its first row, has no row that is.
    """
    near = np.column_stack([vectors, lists.ids[vectors]])
    score = np.column_stack([np.ones(len(vectors), np.float32), lists.scores[vectors]])
    place, at = np.nonzero(near >= 0)
    other, value = near[place, at], score[place, at]
    width = np.minimum(distinct.sizes[other], k + 1)  # a row itself is one of those equal to it
    high = distinct.sizes[vectors[place]]
    pair = np.repeat(np.arange(len(place)), high * width)
    within = np.arange(len(pair)) - np.repeat(np.cumsum(high * width) - high * width, high * width)
    row = distinct.members[distinct.starts[vectors[place[pair]]] + within // width[pair]]
    column = distinct.members[distinct.starts[other[pair]] + within % width[pair]]
    apart = row != column
    return row[apart], column[apart], value[pair[apart]]


def _once(row: Ints, other: Ints, score: NDArray[np.float32], count: int) -> tuple[Ints, Ints, NDArray[np.float32]]:
    """Each pair once, a < b, sorted."""
    keys, first = np.unique(np.minimum(row, other) * count + np.maximum(row, other), return_index=True)
    return keys // max(count, 1), keys % max(count, 1), score[first]
