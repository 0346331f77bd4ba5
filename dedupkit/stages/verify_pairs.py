"""Given pairs of samples whose images are looked at again, as tasks of the engine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from dedupkit.engine import Engine, Progress, Task, cache_key, local_engine
from dedupkit.engine.task import done_result
from dedupkit.hashing.pdq import one_math_thread
from dedupkit.runfolder.folder import RunFolder
from dedupkit.sources import Shard
from dedupkit.stages.features import FEATURES_FORMAT, FeatureFiles, Record, features_at
from dedupkit.store import read_columns, write_table
from dedupkit.verification import Verification, verify_pair

__all__ = ["NO_COPIES", "PairVerifier", "verdict_formats", "verify_chunk", "verify_pairs"]

_PAIRS_PER_TASK, _TASKS_AT_ONCE = 512, 256  # a task carries where the features of its images lie
_LEAST_PER_TASK, _TASKS = 64, 16  # tasks of a small batch, so that several processes have work
_BOX = pa.list_(pa.float32(), 4)
_COPIES = pa.schema(
    [("a", pa.int64()), ("b", pa.int64()), ("score", pa.float32()), ("a_is", pa.string()), ("b_is", pa.string())]
)  # a_is: what a is of b, in words; b_is: what b is of a
NO_COPIES = _COPIES.empty_table()
"""What looking at no pair gives."""

_TEMPLATES = pa.schema([*_COPIES, ("a_differs", _BOX), ("b_differs", _BOX)])  # score: the share that is the same
_SCHEMA = pa.schema([*_TEMPLATES, ("relation", pa.string())])
_FORMAT = 8  # raise it when these columns or the verdicts change


class PairVerifier:
    """Verifies pairs of a run's samples, batch by batch; the features of an image are computed once.

    Args:
        folder: Folder of the run that the pairs are in.
        shards: Shards of that run; None for one that is gone.
        parts: Folder for the results of the tasks; the caller removes it.
        out: Where the tasks leave their markers.
        key: Digest of all that the pairs depend on.
        engine: Where the tasks run.
    """

    def __init__(
        self,
        folder: RunFolder,
        shards: Sequence[Shard | None],
        *,
        parts: Path,
        out: Path,
        key: str,
        engine: Engine,
    ) -> None:
        self._folder = folder
        self._parts, self._out, self._key, self._engine = parts, out, key, engine
        out.mkdir(parents=True, exist_ok=True)  # other machines ask for it before a task has written there
        self._features = FeatureFiles(folder, shards, parts / "features", out, key=key, engine=engine)
        self._batches = 0
        self.by_sift = 0  # pairs so far that SIFT had to decide
        self.lost = 0  # pairs so far of which an image should be there and could not be read
        self._templates = [_TEMPLATES.empty_table()]

    @property
    def templates(self) -> pa.Table:
        """The pairs looked at so far that are of one template, sorted.

        ``score`` is the share of the textured area that is the same; ``a_differs`` and ``b_differs`` are bounds (left,
        top, right, bottom) of the rest, as fractions of each image.
        """
        return pa.concat_tables(self._templates).sort_by([("a", "ascending"), ("b", "ascending")])

    def verify(self, a: NDArray[np.integer], b: NDArray[np.integer]) -> tuple[pa.Table, int]:
        """Look at a batch of pairs, (m,) samples each.

        Returns:
            The pairs that hold (``a``, ``b``, ``score``, ``a_is``, ``b_is``), in the order given, and of how many an
            image could not be read again.
        """
        chunks = []
        size = min(_PAIRS_PER_TASK, max(_LEAST_PER_TASK, -(-len(a) // _TASKS)))
        for number, first in enumerate(range(0, len(a), size)):
            left, right = (side[first : first + size].tolist() for side in (a, b))
            chunks.append((f"{self._batches:03d}-{number:05d}", left, right))
        self._batches += 1
        tables, unseen = [NO_COPIES], 0
        while chunks:
            count = min(max(self._features.room // (2 * _PAIRS_PER_TASK), 1), _TASKS_AT_ONCE)
            table, missing = self._verify(chunks[:count])
            chunks = chunks[count:]
            tables.append(table)
            unseen += missing
        return pa.concat_tables(tables), unseen

    def clear(self) -> None:
        """Remove the features."""
        self._features.clear()

    def _verify(self, chunks: list[tuple[str, list[int], list[int]]]) -> tuple[pa.Table, int]:
        open_ones = [chunk for chunk in chunks if done_result(self._task(*chunk, {}), self._out) is None]
        if open_ones:
            self._features.ensure(np.concatenate([[*left, *right] for _, left, right in open_ones]))
        tasks = [self._task(*chunk, self._features.records((*chunk[1], *chunk[2]))) for chunk in chunks]
        with Progress("verify", len(tasks), "pairs", path=self._folder.progress) as progress:
            results = self._engine.run(
                tasks,
                self._out,
                on_done=lambda _, result: progress.advance(result["pairs"]),
                observe=progress.observe,
            )
        tables = [read_columns(Path(task.outputs[0])) for task in tasks]
        found = pa.concat_tables([_SCHEMA.empty_table(), *tables])
        self._templates.append(found.filter(pc.equal(found["relation"], "template")).select(_TEMPLATES.names))
        copies = found.filter(pc.equal(found["relation"], "copy")).select(_COPIES.names)
        self.by_sift += sum(result["by_sift"] for result in results)
        self.lost += sum(result["lost"] for result in results)
        return copies, sum(result["unseen"] for result in results)

    def _task(self, name: str, left: list[int], right: list[int], records: Mapping[int, Record]) -> Task:
        path = str(self._parts / f"{name}.parquet")
        call = partial(verify_chunk, path, (left, right), records)
        key = cache_key([_FORMAT, self._key, left, right])
        read = tuple(sorted({record.path for record in records.values() if record.nbytes}))
        return Task("verify", name, call, key, f"{len(left)} pairs", (path,), read)


def verdict_formats() -> list[int]:
    """What a verdict depends on beside the two images: part of the key of every verification."""
    return [_FORMAT, FEATURES_FORMAT]


def verify_pairs(
    a: NDArray[np.integer],
    b: NDArray[np.integer],
    folder: RunFolder,
    shards: Sequence[Shard | None],
    *,
    parts: Path,
    out: Path,
    key: str,
    workers: int | Engine,
) -> tuple[pa.Table, int]:
    """Verify given pairs of samples, (m,) each; arguments and result as those of :class:`PairVerifier`."""
    engine = local_engine(workers) if isinstance(workers, int) else workers
    verifier = PairVerifier(folder, shards, parts=parts, out=out, key=key, engine=engine)
    with engine.lasting():
        found = verifier.verify(a, b)
        verifier.clear()
    return found


def verify_chunk(
    path: str, pairs: tuple[Sequence[int], Sequence[int]], records: Mapping[int, Record]
) -> dict[str, Any]:
    """Verify some pairs of samples; a task of the engine.

    Args:
        path: The Parquet file to write: the pairs that are copies or of one template, and what connects them.
        pairs: The samples, a and b.
        records: By sample where its features lie; those that are missing should be there and could not be read.

    Returns:
        ``pairs`` asked for, ``verified`` among them, ``unseen``: those with an image that has no features, ``lost``:
        those of them with one that should be there; ``by_sift``: those that corners and pixels left open.
    """
    found: list[dict[str, Any]] = []
    unseen = lost = by_sift = 0
    with one_math_thread():
        for left, right in zip(*pairs, strict=True):
            if left not in records or right not in records:
                lost += 1
                continue
            if not (records[left].nbytes and records[right].nbytes):
                unseen += 1
                continue
            verdict = verify_pair(features_at(records[left]), features_at(records[right]))
            by_sift += verdict.by_sift
            if verdict.relation in ("copy", "template"):
                found.append({"a": left, "b": right, **_row(verdict)})
    write_table(Path(path), pa.Table.from_pylist(found, schema=_SCHEMA))
    verified = sum(row["relation"] == "copy" for row in found)
    return {
        "pairs": len(pairs[0]), "verified": verified, "unseen": unseen + lost, "lost": lost, "by_sift": by_sift,
    }  # fmt: skip


def _row(verdict: Verification) -> dict[str, Any]:
    swapped = verdict.swapped()
    return {
        "score": verdict.agreement if verdict.verified else verdict.same,
        "a_is": verdict.describe(),
        "b_is": swapped.describe(),
        "a_differs": verdict.differs,
        "b_differs": swapped.differs,
        "relation": verdict.relation,
    }
