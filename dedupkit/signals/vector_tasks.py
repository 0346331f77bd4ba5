"""The clustered join of an embedder's vectors as many tasks, which leave files below ``edges/NAME/parts``.

First one task gathers the vectors and plans: it samples, trains the cells and chooses how they overlap. Then ranges of
rows find their cells, then groups of cells their pairs (:mod:`dedupkit.neighbors.cosine.pieces`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dedupkit.engine import Task, cache_key
from dedupkit.errors import DedupkitError
from dedupkit.neighbors.cosine.join import EXACT_PAIRS, Join
from dedupkit.neighbors.cosine.overlap import CELLS_PER_ROOT
from dedupkit.neighbors.cosine.pairs import no_rows
from dedupkit.neighbors.cosine.pieces import ASSIGNED, PLANNED, Pieces, Planned, assigned, planned
from dedupkit.neighbors.cosine.recall import EXACT
from dedupkit.neighbors.cosine.settings import Settings
from dedupkit.runfolder.folder import RunFolder
from dedupkit.signals.columns import Scanned, Written, write_edges
from dedupkit.signals.expected import Expected, Extent
from dedupkit.signals.identity import Exact
from dedupkit.signals.vector_files import gather, leaders_of, with_vector
from dedupkit.signals.vector_join import MAX_EDGES
from dedupkit.store import atomic_path

if TYPE_CHECKING:
    from dedupkit.signals.columns import Edges
    from dedupkit.signals.embedded import Embedded
    from dedupkit.signals.signal import JoinSettings, Steps

__all__ = ["expected_steps", "vector_steps"]

CELLS = 64
"""Cells of a task."""

_FORMAT = 1  # raise it when what these tasks write changes
_SECONDS = 8.5e-12  # processor time of a product, without a GPU
_FASTER = 33  # times, a million vectors in cells (benchmarks/cosine.py)
_OVERLAP = 3  # cells of a vector, about
_HELD = 80  # bytes a vector of the first task


@dataclass(frozen=True, slots=True)
class _Files:
    """What the first task writes: the vectors, the samples that have them, the arrays of the plan, and labels."""

    vectors: str
    leaders: str
    plan: tuple[str, ...]
    labels: str

    @property
    def all(self) -> tuple[str, ...]:
        return (self.vectors, self.leaders, *self.plan, self.labels)


def vector_steps(signal: Embedded, scanned: Scanned, settings: JoinSettings, key: str) -> Steps:
    """The tasks of a join; see :meth:`dedupkit.signals.Signal.steps`."""
    folder, name, stage = scanned.folder, signal.name, f"match-{signal.name}"
    home = folder.parts(name)
    folder.ranked(name).unlink(missing_ok=True)
    files = _Files(
        str(home / "vectors.npy"),
        str(home / "leaders.npy"),
        tuple(str(home / f"{array}.npy") for array in PLANNED),
        str(folder.labels(name)),
    )
    how = Settings(
        settings.bound, target_recall=settings.target_recall, device=settings.device, seed=settings.seed,
        max_pairs=MAX_EDGES,
    )  # fmt: skip
    key = cache_key([_FORMAT, key, settings.bound, settings.target_recall, settings.seed])
    read = [str(folder.samples(shard)) for shard in range(scanned.shards)]
    read += [str(folder.embeddings(name, shard)) for shard in range(scanned.shards)]
    call = partial(write_plan, files, name, str(folder.path), scanned.shards, how)
    (facts,) = yield [Task(stage, "plan", call, key, f"{name}: cells", files.all, tuple(read))]

    plan = Planned(**facts["plan"])
    ranges = []
    for number, rows in enumerate(plan.ranges()):
        made = tuple(str(home / f"{array}-{number:05d}.npy") for array in ASSIGNED)
        call = partial(write_assigned, made, files, plan, how, rows)
        about = f"{name}: cells of vectors {rows[0]:,} to {rows[1]:,}"
        ranges.append(
            Task(stage, f"assign-{number:05d}", call, cache_key([key, plan._asdict(), rows]), about, made, files.all)
        )
    if ranges:
        yield ranges

    joins = []
    made_by = [task.outputs for task in ranges]
    needed = (*files.all, *(path for paths in made_by for path in paths))
    for number, first in enumerate(range(0, max(1, plan.cells), CELLS)):
        cells, to = range(first, min(first + CELLS, max(1, plan.cells))), str(folder.edges(name, number))
        call = partial(join_cells, to, files, plan, how, (cells, made_by))
        task_key = cache_key([key, plan._asdict(), cells.start, cells.stop])
        about = f"{name}: cells {cells.start} to {cells.stop} of {plan.cells}"
        joins.append(Task(stage, f"{number:05d}", call, task_key, about, (to,), needed))
    done = yield joins
    return {
        "distinct": facts["distinct"], **Written.together(done)._asdict(), "bound": settings.bound,
        "recall": facts["recall"],
    }  # fmt: skip


def expected_steps(extent: Extent) -> Expected:
    """What these tasks take where no two vectors are equal; see :meth:`dedupkit.signals.Signal.expected`."""
    count, size = extent.samples, 2 * extent.dims * extent.samples
    pairs = count * count / 2
    if pairs <= EXACT_PAIRS:
        return Expected(_SECONDS * extent.dims * pairs, 2, 3 * size, _HELD * count)
    plan = Planned(count, int(CELLS_PER_ROOT * count**0.5))
    ranges, groups = len(plan.ranges()), -(-plan.cells // CELLS)
    seconds = _SECONDS * extent.dims * pairs / (_FASTER * (count / 1e6) ** 0.5)
    return Expected(seconds, 1 + ranges + groups, (3 + _OVERLAP) * size, _HELD * count)


def write_plan(files: _Files, name: str, out: str, shards: int, how: Settings) -> dict[str, Any]:
    """Gather the vectors of an embedder, plan their join, and write labels; a task of the engine.

    Returns:
        ``distinct`` vectors of different files, the ``plan``, and the measured ``recall``.

    Raises:
        DedupkitError: More pairs than there is room for; the message proposes a floor.
    """
    scanned = Scanned(RunFolder(Path(out)), shards)
    first = Exact("exact").labels(scanned)
    leaders = leaders_of(scanned, name, first)
    plan, recall = Planned(0, 0), EXACT
    arrays: list[NDArray[Any]] = [no_rows()] * len(PLANNED)
    if len(leaders) > 1:
        with atomic_path(Path(files.vectors)) as temporary:
            gather(scanned, name, leaders, temporary)
        try:
            join = Join(np.load(files.vectors, mmap_mode="r"), None, how)
        except ValueError as error:
            raise DedupkitError(f"{name}: {error}") from error
        (plan, arrays), recall = planned(join), join.facts[0]
    else:
        _save([files.vectors], [np.zeros((0, 1), np.float16)])
    _save((files.leaders, *files.plan, files.labels), [leaders, *arrays, with_vector(first, leaders)])
    bounds = {"estimate": recall.estimate, "low": recall.low, "high": recall.high}
    return {"distinct": len(leaders), "plan": plan._asdict(), "recall": bounds}


def write_assigned(
    to: Sequence[str], files: _Files, plan: Planned, how: Settings, rows: tuple[int, int]
) -> dict[str, Any]:
    """Find the cells of a range of rows; a task of the engine."""
    lists = _pieces(files, plan, how).assign(*rows)
    _save(to, assigned(lists, plan.cells))
    return {"rows": rows[1] - rows[0]}


def join_cells(
    to: str, files: _Files, plan: Planned, how: Settings, part: tuple[range, Sequence[Sequence[str]]]
) -> dict[str, Any]:
    """Write the pairs of some cells; a task of the engine.

    Args:
        to: The file of edges.
        files: What :func:`write_plan` wrote.
        plan: What else is known of the plan.
        how: The settings of the join.
        part: The cells, and what :func:`write_assigned` wrote of each range of rows.

    Returns:
        ``edges`` written and their ``content``.
    """

    def blocks() -> Iterator[Edges]:
        if plan.rows > 0:
            cells, ranges = part
            leaders = np.load(files.leaders, mmap_mode="r")
            for a, b, score in _pieces(files, plan, how).join(cells, [list(map(Path, paths)) for paths in ranges]):
                yield leaders[a], leaders[b], score

    return write_edges(Path(to), blocks())._asdict()


def _pieces(files: _Files, plan: Planned, how: Settings) -> Pieces:
    return Pieces(Path(files.vectors), list(map(Path, files.plan)), plan, how)


def _save(paths: Sequence[str], arrays: Sequence[NDArray[Any]]) -> None:
    for path, array in zip(paths, arrays, strict=True):
        with atomic_path(Path(path)) as temporary, temporary.open("wb") as stream:
            np.save(stream, array)
