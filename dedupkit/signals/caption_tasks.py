"""The join of captions as many tasks, which leave files for one another below ``edges/NAME/parts``.

First one task makes the word sets of all captions, in the order of their sizes; then each task lists the sets of one
part under the tokens of their prefixes and looks up all that are no smaller (:mod:`dedupkit.neighbors.sets.join`), so
that a pair comes from the part of its smaller set. Sets of very many words are one task more.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dedupkit.captions.folding import Folding
from dedupkit.engine import Task, cache_key
from dedupkit.neighbors.sets.join import ENTRY_BYTES, Sets, iter_part_pairs, parts_of
from dedupkit.neighbors.sets.lsh import LONG, long_sets, lsh_pairs
from dedupkit.runfolder.folder import RunFolder
from dedupkit.signals.columns import Scanned, Written, write_edges
from dedupkit.signals.expected import Expected, Extent
from dedupkit.signals.texts import caption_sets, first_rows
from dedupkit.store import atomic_path

if TYPE_CHECKING:
    from dedupkit.neighbors.sets.distinct import SetPairs
    from dedupkit.signals.columns import Edges
    from dedupkit.signals.signal import JoinSettings, Steps

__all__ = ["caption_steps", "expected_steps"]

LISTS = 256 << 20
"""Bytes of the lists of a task at most."""

_FORMAT = 1  # raise it when what these tasks write changes
_CAPTION = 60  # bytes of a caption
_SECONDS, _HELD = 10e-6, 440  # processor time, and bytes of the first task, a caption (benchmarks/captions.py)
_ARRAYS = ("starts", "tokens", "first")


def caption_steps(name: str, scanned: Scanned, settings: JoinSettings, key: str) -> Steps:
    """The tasks of a join; see :meth:`dedupkit.signals.Signal.steps`."""
    folder, stage = scanned.folder, f"match-{name}"
    key = cache_key([_FORMAT, key, settings.bound])
    files = tuple(str(folder.parts(name) / f"{array}.npy") for array in _ARRAYS)
    labels = str(folder.labels(name))
    read = tuple(str(folder.samples(shard)) for shard in range(scanned.shards))
    call = partial(write_sets, files, labels, str(folder.path), scanned.shards, settings.bound)
    outputs = (*files, labels)
    (facts,) = yield [Task(stage, "sets", call, cache_key([key, LISTS]), f"{name}: word sets", outputs, read)]

    joins = []
    parts = [tuple(part) for part in facts["parts"]]
    long = [] if facts["long"] is None else [(facts["long"], facts["distinct"])]
    for number, part in enumerate([*parts, *long] or [(0, 0)]):
        to, lsh = str(folder.edges(name, number)), number >= len(parts) and bool(long)
        call = partial(join_part, to, files, facts["frequent"], settings.bound, (*part, lsh))
        about = f"{name}: word sets {part[0]:,} to {part[1]:,}"
        joins.append(Task(stage, f"{number:05d}", call, cache_key([key, part, lsh]), about, (to,), files))
    done = yield joins
    return {
        "distinct": facts["distinct"], **Written.together(done)._asdict(), "bound": settings.bound,
        "folding": str(Folding()), "method": facts["method"],
    }  # fmt: skip


def expected_steps(extent: Extent) -> Expected:
    """What these tasks take where no two captions are equal; see :meth:`dedupkit.signals.Signal.expected`."""
    tokens = round(extent.samples * extent.words)
    parts = max(1, -(-tokens * ENTRY_BYTES // LISTS))
    nbytes = _CAPTION * extent.samples + parts * (4 * tokens + 16 * extent.samples)
    return Expected(_SECONDS * extent.samples, 1 + parts, nbytes, _HELD * extent.samples)


def write_sets(files: Sequence[str], labels: str, out: str, shards: int, threshold: float) -> dict[str, Any]:
    """Make the word sets of all captions and write labels; a task of the engine.

    Returns:
        ``distinct`` sets, the ``parts`` to join, the first of the ``long`` ones, the rank of the least ``frequent``
        token that two sets hold, and the ``method`` in words.
    """
    sets = caption_sets(Scanned(RunFolder(Path(out)), shards), Folding())
    arrays: list[NDArray[Any]] = [sets.starts, sets.tokens, sets.first, first_rows(sets)]
    for path, array in zip((*files, labels), arrays, strict=True):
        with atomic_path(Path(path)) as temporary, temporary.open("wb") as stream:
            np.save(stream, array)
    long, method = long_sets(sets, threshold)
    parts = list(parts_of(sets, LISTS, LONG))
    return {
        "distinct": len(sets.first), "parts": parts, "long": long, "frequent": int(sets.frequent), "method": method
    }  # fmt: skip


def join_part(
    to: str, files: Sequence[str], frequent: int, threshold: float, part: tuple[int, int, bool]
) -> dict[str, Any]:
    """Write the pairs of one part; a task of the engine.

    Args:
        to: The file of edges.
        files: What :func:`write_sets` wrote.
        frequent: As it returned.
        threshold: Least similarity.
        part: First and last set, and whether they are the long ones.

    Returns:
        ``edges`` written and their ``content``.
    """
    first, last, long = part

    def found() -> Iterator[SetPairs]:
        if last > first:
            starts, tokens, rows = (np.asarray(np.load(path, mmap_mode="c")) for path in files)
            sets = Sets(starts, tokens, rows, np.zeros(0, np.int64), frequent)
            if long:
                yield from lsh_pairs(sets, first, threshold, workers=1)
            else:
                yield from iter_part_pairs(sets, threshold, (first, last))

    blocks: Iterator[Edges] = ((pairs.a, pairs.b, pairs.score) for pairs in found())
    return write_edges(Path(to), blocks)._asdict()
