"""The k nearest neighbours of every vector above a floor, exactly or in cells with a measured recall.

A threshold lets through a share of all pairs, which is quadratic; k neighbours of each vector are linear. Equal rows
are collapsed first and written out at the end, as in the join of all pairs. The tiles sieve with what the k-th best
cosine of each vector has reached so far, less the error of the product; what passes is scored in float64, so the lists
are the same on every engine and for every tiling.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dedupkit.neighbors.cosine.cells import assign, members
from dedupkit.neighbors.cosine.distinct import Distinct, check_vectors, collapse
from dedupkit.neighbors.cosine.expanded import pairs_of_rows, pairs_of_sets
from dedupkit.neighbors.cosine.join import EXACT_PAIRS, threads
from dedupkit.neighbors.cosine.lists import NeighborLists
from dedupkit.neighbors.cosine.nearest import nearest_of, nearest_tiles
from dedupkit.neighbors.cosine.overlap import Plan, make_plan
from dedupkit.neighbors.cosine.pairs import KnownPairs, no_rows
from dedupkit.neighbors.cosine.recall import EXACT, Recall, measured
from dedupkit.neighbors.cosine.rows import Ints, Rows
from dedupkit.neighbors.cosine.sample import LEAST_KNOWN, LEAST_SAMPLE, SAMPLE_SHARE, Sample, known_sample
from dedupkit.neighbors.cosine.settings import MEMORY, Settings
from dedupkit.neighbors.cosine.tiles import Engine, Sets

__all__ = ["Neighbors", "cosine_neighbors", "planned_search"]

_MOST_K = 1024
_LIST_BYTES = 48  # of a place in a list: 12 for the lists, the rest for making pairs of them


@dataclass(frozen=True, slots=True)
class Neighbors:
    """Pairs of rows of which one at least is among the k nearest of the other; of two sets, pairs of a row and its own.

    Attributes:
        a: int64 (m,), the smaller row, or that of the first set; sorted by (a, b), each pair once.
        b: int64 (m,), the larger row, or that of the other set.
        score: float32 (m,), cosine, at or above the floor.
        last: float32 (n,), the cosine of each row's k-th neighbour; minus infinity where fewer reach the floor. All
            pairs of a row above it are there.
        recall: Share of the k nearest of distinct vectors that was found; of known pairs, where they were given, the
            share that would be.
        skipped: int64, rows of the first set that are zero or not finite, and have no neighbours.
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
    other: NDArray[Any] | None = None,
    *,
    rows: NDArray[np.int64] | None = None,
    method: str = "auto",
    target_recall: float = 0.99,
    memory: int = MEMORY,
    device: str | None = None,
    seed: int = 0,
    workers: int | None = None,
    known: KnownPairs | None = None,
) -> Neighbors:
    """Find the k nearest of each vector among those whose cosine reaches a floor.

    Work: n² d / 2 multiply-adds where the search is exact, n m d between two sets; memory: 48 k bytes a row beside what
    :func:`~dedupkit.neighbors.cosine_pairs` takes.

    >>> vectors = np.array([[1, 0], [3, 0.1], [3, 0.3], [0, 2]], np.float32)
    >>> found = cosine_neighbors(vectors, k=1, floor=0.5)
    >>> found.a, found.b, found.score.round(3)
    (array([0, 1]), array([1, 2]), array([0.999, 0.998], dtype=float32))
    >>> cosine_neighbors(vectors[:2], k=1, floor=0.5, other=vectors[2:]).b
    array([0, 0])

    Args:
        vectors: (n, d) float16 or float32, of any length; a memory map is read in blocks.
        k: Number of neighbours of each row, 1 to 1024; ties go to the smaller row.
        floor: Least cosine, in (-1, 1].
        other: (m, d) vectors among which the neighbours of ``vectors`` are sought; by default these themselves.
        rows: int64, the rows whose neighbours are wanted, among all; by default every row.
        method: ``exact``, ``cells``, or ``auto``: exact where that takes seconds.
        target_recall: Share of the neighbours that ``cells`` must find, in (0, 1).
        memory: Bytes for blocks, and for the result; not counting the vectors.
        device: ``cpu`` or a CUDA device of torch; by default CUDA where there is one.
        seed: Seed for the sample and for k-means.
        workers: Number of threads of torch; by default its own setting.
        known: Pairs like those that are sought, such as images and copies made of them. Then ``cells`` are chosen so
            that the target share of these meets in one, if 400 of them or more reach the floor: where copies are
            nearer than other neighbours, that takes a fraction of the work.

    Returns:
        The pairs, with the measured recall.

    Raises:
        ValueError: An array of another shape or type, a number out of range, or lists for which ``memory`` has no room.
        MissingExtraError: A device was named, and torch is not installed.
    """
    if not 1 <= k <= _MOST_K:
        raise ValueError(f"k must be 1 to {_MOST_K} neighbours of each row, not {k}")
    settings = Settings(floor, method, target_recall, memory, device, seed, workers, known=known)
    array = check_vectors(vectors, "vectors")
    among = array if other is None else check_vectors(other, "other")
    if array.shape[1] != among.shape[1]:
        raise ValueError(f"vectors have {array.shape[1]} dimensions, other has {among.shape[1]}")
    if known is not None and {known.left.shape[1], known.right.shape[1]} != {array.shape[1]}:
        raise ValueError(f"vectors have {array.shape[1]} dimensions, known pairs others")
    needed = len(array) * min(k, max(1, len(among) - (other is None))) * _LIST_BYTES
    if needed > memory:
        raise ValueError(
            f"{k} neighbours of {len(array):,} rows need {needed / 2**20:,.0f} MiB, and memory allows "
            f"{memory / 2**20:,.0f}; ask for fewer neighbours or give more memory"
        )
    return search(array, k, settings, rows, None if other is None else among)


def search(
    array: NDArray[Any], k: int, settings: Settings, rows: Ints | None = None, other: NDArray[Any] | None = None
) -> Neighbors:
    """As :func:`cosine_neighbors`, with checked arguments."""
    dims = array.shape[1]
    products = float(len(array) if rows is None else len(rows)) * (len(array) if other is None else len(other))
    products /= 2 if rows is None and other is None else 1
    engine = Engine.choose(settings.device, products, dims, settings.floor)
    with threads(settings.workers):
        distinct = collapse(array)
        others = distinct if other is None else collapse(other)
        sets = Sets(engine, distinct.rows, None if other is None else others.rows, settings.memory // (16 * dims))
        lists = NeighborLists(len(distinct.rows), k, settings.floor)
        wanted = None if rows is None else _positions(distinct, rows)
        few = wanted is not None and (settings.method == "exact" or products <= EXACT_PAIRS)
        plan, recall = (None, EXACT) if few else _plan(sets, k, settings)
        if plan is not None:
            _search_cells(sets, plan, lists, wanted)
        elif sets.same and wanted is None:
            nearest_tiles(sets, None, lists)
        else:
            queries = np.arange(len(distinct.rows)) if wanted is None else wanted
            nearest_of(sets, queries, lists, queries)
    if other is None:
        a, b, score, last = pairs_of_rows(distinct, lists, k, len(array))
    else:
        a, b, score, last = pairs_of_sets(distinct, others, lists, k, len(array))
    if rows is not None:
        mine = np.zeros(len(array), bool)
        mine[rows] = True
        near = mine[a] & (score >= last[a])
        if other is None:
            near |= mine[b] & (score >= last[b])
        a, b, score = a[near], b[near], score[near]
    return Neighbors(a, b, score, last, recall, distinct.skipped)


def planned_search(array: NDArray[Any], k: int, settings: Settings) -> tuple[Distinct, Plan | None, Recall]:
    """The plan by which :func:`search` finds the neighbours of all rows of one set; arguments are checked.

    Returns:
        The distinct vectors; their cells, None for an exact search; and the measured recall.
    """
    engine = Engine.choose(settings.device, len(array) * len(array) / 2, array.shape[1], settings.floor)
    with threads(settings.workers):
        distinct = collapse(array)
        sets = Sets(engine, distinct.rows, None, settings.memory // (16 * array.shape[1]))
        return distinct, *_plan(sets, k, settings)


def _search_cells(sets: Sets, plan: Plan, lists: NeighborLists, wanted: Ints | None) -> None:
    """Offer the rows of each cell to the lists of those of the first set in it, or of the wanted ones."""
    inside = [_by_cell(sets.engine, side, plan) for side in sets.sides]
    some = None if wanted is None else np.isin(np.arange(len(sets.left)), wanted)
    for cell in range(len(plan.centres)):
        left, right = inside[0](cell), inside[-1](cell)
        if sets.same and some is None:
            if len(left) > 1:
                nearest_tiles(sets, left, lists)
        else:
            mine = left if some is None else left[some[left]]
            nearest_of(sets, mine, lists, mine, right)


def _by_cell(engine: Engine, rows: Rows, plan: Plan) -> Callable[[int], Ints]:
    starts, owner = members(assign(engine, rows, plan), len(plan.centres))
    return lambda cell: owner[starts[cell] : starts[cell + 1]]


def _positions(distinct: Distinct, rows: NDArray[np.int64]) -> Ints:
    """The distinct vectors that some rows have, ascending."""
    vector = np.full(len(distinct.rows.array), -1, np.int64)
    vector[distinct.members] = np.repeat(np.arange(len(distinct.sizes)), distinct.sizes)
    found = np.unique(vector[rows])
    return found[found >= 0]


def _plan(sets: Sets, k: int, settings: Settings) -> tuple[Plan | None, Recall]:
    """Cells that find the wanted share of known pairs, or of the neighbours of a sample, and what these say of them."""
    rows, others = len(sets.left), len(sets.other)
    products = rows * others / (2 if sets.same else 1)
    cells = settings.method == "cells" or (settings.method == "auto" and products > EXACT_PAIRS)
    if not cells or rows < 2 or not others:
        return None, EXACT
    sample = None if settings.known is None else known_sample(settings.known, settings.floor, settings.seed)
    if sample is None or len(sample.i) < LEAST_KNOWN:
        sample = _true_neighbors(sets, k, settings)
    plan = make_plan(sets, sample, settings.target_recall, settings.seed, settings.overlap)
    return plan, EXACT if plan is None else measured(plan.found, plan.i, len(sample.queries))


def _true_neighbors(sets: Sets, k: int, settings: Settings) -> Sample:
    """The neighbours of random vectors, by exact search."""
    rows = len(sets.left)
    count = min(rows, max(LEAST_SAMPLE, int(SAMPLE_SHARE * rows)))
    queries = np.random.default_rng([settings.seed, 0]).permutation(rows)[:count]
    ordered = np.sort(queries)
    lists = NeighborLists(count, k, settings.floor)
    nearest_of(sets, ordered, lists)
    place, other, score = lists.pairs()
    return Sample(queries, ordered[place], other, score)
