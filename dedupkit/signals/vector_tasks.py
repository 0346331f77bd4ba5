"""The clustered join of an embedder's vectors as many tasks, which leave files below ``edges/NAME/parts``.

First the join is planned and ranges of vectors find their cells (:mod:`dedupkit.signals.vector_plan`). Then groups of
cells find their pairs (:mod:`dedupkit.neighbors.cosine.pieces`). Where nearest neighbours are sought, they find the
nearest of each vector within a cell instead; ranges of vectors join these to lists, and ranges of samples take the
pairs of the lists (:mod:`dedupkit.neighbors.cosine.list_pieces`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dedupkit.engine import Task, cache_key
from dedupkit.neighbors.cosine.join import EXACT_PAIRS
from dedupkit.neighbors.cosine.list_pieces import COLUMNS, pairs_between, pairs_of_range, rows_between
from dedupkit.neighbors.cosine.overlap import CELLS_PER_ROOT
from dedupkit.neighbors.cosine.pieces import Planned
from dedupkit.signals.columns import Scanned, Written, write_edges
from dedupkit.signals.expected import Expected, Extent
from dedupkit.signals.vector_join import KNOWN_FROM, bound_of_lists, list_length
from dedupkit.signals.vector_plan import PlannedJoin, cell_groups, planned_steps, save

if TYPE_CHECKING:
    from dedupkit.signals.columns import Edges
    from dedupkit.signals.embedded import Embedded
    from dedupkit.signals.signal import JoinSettings, Steps

__all__ = ["expected_steps", "neighbor_steps", "vector_steps"]

_SECONDS = 8.5e-12  # processor time of a product, without a GPU
_FASTER = 33  # times, a million vectors in cells (benchmarks/cosine.py)
_OVERLAP = 3  # cells of a vector, about
_HELD = 80  # bytes a vector of the first task


def vector_steps(signal: Embedded, scanned: Scanned, settings: JoinSettings, key: str) -> Steps:
    """The tasks of a join of all pairs within a bound; see :meth:`dedupkit.signals.Signal.steps`."""
    folder, name = scanned.folder, signal.name
    join, facts, key = yield from planned_steps(name, scanned, settings, key)
    tasks = []
    for number, cells in enumerate(cell_groups(join.plan)):
        to = str(folder.edges(name, number))
        call = partial(join_cells, to, join, cells)
        about = f"{name}: cells {cells.start} to {cells.stop} of {join.plan.cells}"
        task_key = cache_key([key, cells.start, cells.stop])
        tasks.append(Task(f"match-{name}", f"{number:05d}", call, task_key, about, (to,), join.needed))
    done = yield tasks
    return {**facts, **Written.together(done)._asdict()}


def neighbor_steps(signal: Embedded, scanned: Scanned, settings: JoinSettings, key: str) -> Steps:
    """The tasks of a search for nearest neighbours; see :meth:`dedupkit.signals.Signal.steps`."""
    folder, name, stage = scanned.folder, signal.name, f"match-{signal.name}"
    join, facts, key = yield from planned_steps(name, scanned, settings, key)
    k = facts["ranks"]["k"]

    def files(kind: str, number: int) -> tuple[str, ...]:
        return tuple(str(folder.parts(name) / f"{kind}-{column}-{number:05d}.npy") for column in COLUMNS)

    nearest = []
    for number, cells in enumerate(cell_groups(join.plan)):
        made = files("near", number)
        call = partial(write_nearest, made, join, k, cells)
        about = f"{name}: neighbours in cells {cells.start} to {cells.stop} of {join.plan.cells}"
        task_key = cache_key([key, k, cells.start, cells.stop])
        nearest.append(Task(stage, f"near-{number:05d}", call, task_key, about, made, join.needed))
    yield nearest

    found, spans, lists = [task.outputs for task in nearest], join.plan.spans(), []
    for number, vectors in enumerate(spans):
        made = files("list", number)
        call = partial(write_lists, made, join, k, vectors, found)
        about = f"{name}: lists of vectors {vectors[0]:,} to {vectors[1]:,}"
        needed = (*join.files.all, *(path for paths in found for path in paths))
        lists.append(Task(stage, f"list-{number:05d}", call, cache_key([key, k, vectors]), about, made, needed))
    listed = yield lists

    found, edges = [task.outputs for task in lists], []
    for number, vectors in enumerate(spans):
        to = str(folder.edges(name, number))
        call = partial(write_pairs, to, join, vectors, found)
        about = f"{name}: pairs of vectors {vectors[0]:,} to {vectors[1]:,}"
        needed = (*join.files.all, *(path for paths in found for path in paths))
        edges.append(Task(stage, f"{number:05d}", call, cache_key([key, k, vectors]), about, (to,), needed))
    done = yield edges

    facts["ranks"]["full"] = sum(each["full"] for each in listed)
    if facts["ranks"]["full"]:
        facts["bound"] = bound_of_lists(settings, max(each["last"] for each in listed if each["full"]))
    return {**facts, **Written.together(done)._asdict()}


def expected_steps(extent: Extent, settings: JoinSettings) -> Expected:
    """What these tasks take where no two vectors are equal; see :meth:`dedupkit.signals.Signal.expected`."""
    count, size = extent.samples, 2 * extent.dims * extent.samples
    pairs = count * count / 2
    ranked = settings.floor is not None
    if pairs <= (KNOWN_FROM if ranked else EXACT_PAIRS):
        return Expected(_SECONDS * extent.dims * pairs, 4 if ranked else 2, 3 * size, _HELD * count)
    plan = Planned(count, int(CELLS_PER_ROOT * count**0.5))
    ranges, groups = len(plan.ranges()), len(cell_groups(plan))
    seconds = _SECONDS * extent.dims * pairs
    seconds /= 3 * (count / 1.4e6) ** 0.2 if ranked else _FASTER * (count / 1e6) ** 0.5  # ranked: benchmarks/cells.py
    nbytes = (3 + _OVERLAP) * size
    if ranked:
        nbytes += 2 * 20 * _OVERLAP * count * list_length(count, settings.target_recall)
    return Expected(seconds, 1 + ranges * (3 if ranked else 1) + groups, nbytes, _HELD * count)


def join_cells(to: str, join: PlannedJoin, cells: range) -> dict[str, Any]:
    """Write the pairs of some cells; a task of the engine.

    Returns:
        ``edges`` written and their ``content``.
    """

    def blocks() -> Iterator[Edges]:
        if join.plan.rows > 0:
            leaders = np.load(join.files.leaders, mmap_mode="r")
            for a, b, score in join.pieces().join(cells, join.ranges()):
                yield leaders[a], leaders[b], score

    return write_edges(Path(to), blocks())._asdict()


def write_nearest(to: Sequence[str], join: PlannedJoin, k: int, cells: range) -> dict[str, Any]:
    """Find the k nearest of each vector within some cells; a task of the engine."""
    found = join.pieces().nearest(k, cells, join.ranges())
    save(to, found)
    return {"found": len(found[0])}


def write_lists(
    to: Sequence[str], join: PlannedJoin, k: int, vectors: tuple[int, int], found: Sequence[Sequence[str]]
) -> dict[str, Any]:
    """Join what cells hold to the lists of a range of vectors, and write their pairs; a task of the engine.

    Returns:
        Number of lists that are ``full``, and the largest cosine at the ``last`` place of one.
    """
    paths = [list(map(Path, each)) for each in found]
    pairs, listed = pairs_of_range(join.distinct(), k, join.how.floor, vectors, paths)
    save(to, pairs)
    return {"full": listed.full, "last": listed.last if listed.full else None}


def write_pairs(to: str, join: PlannedJoin, vectors: tuple[int, int], found: Sequence[Sequence[str]]) -> dict[str, Any]:
    """Write the pairs whose first sample stands for a range of vectors; a task of the engine.

    Returns:
        ``edges`` written and their ``content``.
    """

    def blocks() -> Iterator[Edges]:
        leaders, distinct = np.load(join.files.leaders, mmap_mode="r"), join.distinct()
        paths = [list(map(Path, each)) for each in found]
        a, b, score = pairs_between(len(leaders), rows_between(distinct, vectors), paths)
        yield leaders[a], leaders[b], score

    return write_edges(Path(to), blocks())._asdict()
