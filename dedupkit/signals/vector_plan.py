"""What the tasks of a join of vectors begin with: one gathers the vectors and plans, others find the cells of ranges.

The plan is a sample, trained cells and the choice of how they overlap (:mod:`dedupkit.neighbors.cosine.pieces`).
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dedupkit.engine import Task, cache_key
from dedupkit.errors import DedupkitError
from dedupkit.neighbors.cosine.distinct import Distinct
from dedupkit.neighbors.cosine.join import Join
from dedupkit.neighbors.cosine.neighbors import planned_search
from dedupkit.neighbors.cosine.pairs import no_rows
from dedupkit.neighbors.cosine.pieces import ASSIGNED, PLANNED, Pieces, Planned, assigned, planned, stored_vectors
from dedupkit.neighbors.cosine.settings import Settings
from dedupkit.runfolder.folder import RunFolder
from dedupkit.signals.columns import Scanned
from dedupkit.signals.identity import Exact
from dedupkit.signals.vector_files import gather_joined
from dedupkit.signals.vector_join import MAX_EDGES, MOST_RECALL, facts_before, join_device, known_pairs, lower, stated
from dedupkit.store import atomic_path

if TYPE_CHECKING:
    from dedupkit.signals.signal import JoinSettings

__all__ = ["PlanFiles", "PlannedJoin", "cell_groups", "planned_steps", "save", "search_settings"]

CELLS = 64
"""Cells of a task."""

_FORMAT = 4  # raise it when what these tasks write changes


@dataclass(frozen=True, slots=True)
class PlanFiles:
    """What the first task writes: the vectors, the samples that have them, the arrays of the plan, and labels."""

    vectors: str
    leaders: str
    plan: tuple[str, ...]
    labels: str

    @classmethod
    def of(cls, folder: RunFolder, name: str) -> PlanFiles:
        """Those of an embedder."""
        home = folder.parts(name)
        arrays = tuple(str(home / f"{array}.npy") for array in PLANNED)
        return cls(str(home / "vectors.npy"), str(home / "leaders.npy"), arrays, str(folder.labels(name)))

    @property
    def all(self) -> tuple[str, ...]:
        """All of them."""
        return (self.vectors, self.leaders, *self.plan, self.labels)


@dataclass(frozen=True, slots=True)
class PlannedJoin:
    """A join that is planned, and its vectors assigned to cells.

    Attributes:
        files: What the first task wrote.
        plan: What else is known of the plan.
        how: The settings of the join.
        assigned: Files of the arrays of ``ASSIGNED``, for each range of vectors.
    """

    files: PlanFiles
    plan: Planned
    how: Settings
    assigned: tuple[tuple[str, ...], ...] = ()

    @property
    def needed(self) -> tuple[str, ...]:
        """All files that a task reads which joins cells."""
        return (*self.files.all, *(path for paths in self.assigned for path in paths))

    def pieces(self) -> Pieces:
        """The join, which is done piece by piece."""
        return Pieces(Path(self.files.vectors), list(map(Path, self.files.plan)), self.plan, self.how)

    def distinct(self) -> Distinct:
        """The distinct vectors."""
        return stored_vectors(Path(self.files.vectors), list(map(Path, self.files.plan)))

    def ranges(self) -> list[list[Path]]:
        """``assigned`` as paths."""
        return [list(map(Path, paths)) for paths in self.assigned]


def cell_groups(plan: Planned) -> list[range]:
    """The cells of each task; one task in an exact search."""
    cells = max(1, plan.cells)
    return [range(first, min(first + CELLS, cells)) for first in range(0, cells, CELLS)]


def search_settings(settings: JoinSettings) -> Settings:
    """The settings of a search for all pairs within the bound; where there is a floor, for nearest neighbours."""
    if settings.floor is None:
        return Settings(
            settings.bound, target_recall=settings.target_recall, device=join_device(settings), seed=settings.seed,
            max_pairs=MAX_EDGES,
        )  # fmt: skip
    recall = min(settings.target_recall, MOST_RECALL)
    return Settings(settings.floor, target_recall=recall, device=join_device(settings), seed=settings.seed)


def planned_steps(
    name: str, scanned: Scanned, settings: JoinSettings, key: str
) -> Generator[list[Task], list[dict[str, Any]], tuple[PlannedJoin, dict[str, Any], str]]:
    """The first tasks of a join.

    Args:
        name: The embedder.
        scanned: All samples; their vectors are there.
        settings: How far, and how.
        key: Digest of all that the edges depend on, but for the bound.

    Returns:
        The planned join, ``distinct`` and what is known beforehand of the edges, and a key for tasks that go on.
    """
    folder, stage = scanned.folder, f"match-{name}"
    folder.ranked(name).unlink(missing_ok=True)
    files, how = PlanFiles.of(folder, name), search_settings(settings)
    ranked = settings.floor is not None
    key = cache_key([_FORMAT, key, how.floor, ranked, settings.target_recall, settings.seed])
    read = [str(folder.samples(shard)) for shard in range(scanned.shards)]
    read += [str(folder.embeddings(name, shard)) for shard in range(scanned.shards)]
    read += [] if settings.known is None else [settings.known]
    call = partial(write_plan, files, name, str(folder.path), scanned.shards, settings)
    (done,) = yield [Task(stage, "plan", call, key, f"{name}: cells", files.all, tuple(read))]

    join = PlannedJoin(files, Planned(**done["plan"]), how)
    key = cache_key([key, join.plan._asdict()])
    tasks = []
    for number, rows in enumerate(join.plan.ranges()):
        made = tuple(str(folder.parts(name) / f"{array}-{number:05d}.npy") for array in ASSIGNED)
        call = partial(write_assigned, made, join, rows)
        about = f"{name}: cells of vectors {rows[0]:,} to {rows[1]:,}"
        tasks.append(Task(stage, f"assign-{number:05d}", call, cache_key([key, rows]), about, made, files.all))
    if tasks:
        yield tasks
    return PlannedJoin(files, join.plan, how, tuple(task.outputs for task in tasks)), done["facts"], key


def write_plan(files: PlanFiles, name: str, out: str, shards: int, settings: JoinSettings) -> dict[str, Any]:
    """Gather the vectors of an embedder, plan their join, and write labels; a task of the engine.

    Returns:
        The ``plan``; and as ``facts`` the ``distinct`` vectors of different files, and what ``facts_before`` names,
        with the measured recall.

    Raises:
        DedupkitError: More pairs than there is room for; the message proposes a floor.
    """
    scanned = Scanned(RunFolder(Path(out)), shards)
    labels, distinct = Exact("exact").labels(scanned), settings.floor is None
    with atomic_path(Path(files.vectors)) as temporary:
        _, leaders, first = gather_joined(scanned, name, temporary, labels, distinct=distinct)
    facts = facts_before(len(leaders), settings)
    plan = Planned(0, 0)
    arrays: list[NDArray[Any]] = [no_rows()] * len(PLANNED)
    if len(leaders) > 1:
        vectors, how = np.load(files.vectors, mmap_mode="r"), search_settings(settings)
        try:
            if settings.floor is None:
                join = Join(vectors, None, how)
                found, cells, recall = join.distinct[0], join.plan, join.facts[0]
                facts["recall"].update(stated(recall))
            else:
                how = replace(how, known=known_pairs(settings))
                found, cells, recall = planned_search(vectors, facts["ranks"]["k"], how)
                lower(facts["recall"], recall)
        except ValueError as error:
            raise DedupkitError(f"{name}: {error}") from error
        plan, arrays = planned(found, cells)
    save((files.leaders, *files.plan, files.labels), [leaders, *arrays, first])
    return {"plan": plan._asdict(), "facts": {"distinct": len(leaders), **facts}}


def write_assigned(to: Sequence[str], join: PlannedJoin, rows: tuple[int, int]) -> dict[str, Any]:
    """Find the cells of a range of vectors; a task of the engine."""
    save(to, assigned(join.pieces().assign(*rows), join.plan.cells))
    return {"rows": rows[1] - rows[0]}


def save(paths: Sequence[str], arrays: Sequence[NDArray[Any]]) -> None:
    """Write arrays, each file whole or not at all."""
    for path, array in zip(paths, arrays, strict=True):
        with atomic_path(Path(path)) as temporary, temporary.open("wb") as stream:
            np.save(stream, array)
