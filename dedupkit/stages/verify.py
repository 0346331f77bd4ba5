"""The verify stage: compares the images of candidate pairs again, and keeps the pairs that hold with their relation."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from dedupkit.clustering import pairs_of_clauses
from dedupkit.clustering.rules import Atom, Clause, Rule, implies
from dedupkit.engine import Progress, Task, cache_key, run_tasks
from dedupkit.engine.marker import write_marker
from dedupkit.errors import require
from dedupkit.hashing.pdq import one_math_thread
from dedupkit.images import ImageError, decode_luma
from dedupkit.runfolder.folder import RunFolder
from dedupkit.runfolder.index import RowIndex
from dedupkit.signals import find_signal
from dedupkit.signals.columns import Scanned
from dedupkit.sources import Shard
from dedupkit.sources.reread import places_of, read_images
from dedupkit.sources.sample import Place
from dedupkit.stages.plan import Job
from dedupkit.store import count_rows, read_columns, remove_tree, write_table
from dedupkit.verification.pair import Features, local_features, verify_pair

__all__ = ["covers_verified", "verify_candidates", "verify_chunk", "verify_pairs"]

_PAIRS_PER_TASK = 512
_MIN_SIDE = 320
_PAIRS_AT_ONCE = 256  # features of at most twice as many images are held, about 100 KB each
_SCHEMA = pa.schema(
    [("a", pa.int64()), ("b", pa.int64()), ("score", pa.float32()), ("a_is", pa.string()), ("b_is", pa.string())]
)  # a_is: what a is of b, in words; b_is: what b is of a
_FORMAT = 2  # raise it when these columns or the verdicts change


def verify_candidates(job: Job, key: str) -> None:
    """Verify every pair whose verdict depends on it; pairs that another clause settles are left out.

    Args:
        job: What the run computes.
        key: Cache key of all the edges that candidates come from.

    Raises:
        MissingExtraError: OpenCV is not installed.
    """
    folder = job.folder
    tested = _candidate_clauses(job.rule)
    key = cache_key([key, [list(map(str, clause)) for clause in job.rule.clauses]])
    parts = folder.parts("verified")
    if folder.joined("verified", key) is not None:
        remove_tree(parts)  # of a run that was killed after it had written its marker
        return
    require("cv2", "verify")
    a, b = _candidates(folder, len(job.shards), job.rule, tested)
    workers = job.computing.threads
    table, unseen = verify_pairs(a, b, folder, job.shards, parts=parts, out=parts, key=key, workers=workers)
    write_table(folder.edges("verified"), table)
    result = {
        "pairs": len(a),
        "edges": table.num_rows,
        "unseen": unseen,
        "tested": [_as_json(clause) for clause in tested],
        "settled": [_as_json(clause) for clause in _settled_clauses(job.rule)],
    }
    write_marker(folder.marker("match", "verified"), key, result, folder.path, [folder.edges("verified")])
    remove_tree(parts)  # after the marker: a kill between the two must not lose the results


def verify_pairs(
    a: NDArray[np.integer],
    b: NDArray[np.integer],
    folder: RunFolder,
    shards: Sequence[Shard | None],
    *,
    parts: Path,
    out: Path,
    key: str,
    workers: int,
) -> tuple[pa.Table, int]:
    """Verify given pairs of samples, as tasks of the engine.

    Args:
        a: (m,) One sample of each pair.
        b: (m,) The other.
        folder: Folder of the run that has the samples.
        shards: Shards of that run; those that the pairs need must be there.
        parts: Folder for the results of the tasks; the caller removes it.
        out: Folder for the markers of the tasks.
        key: Cache key of everything that the pairs depend on.
        workers: Number of processes.

    Returns:
        The pairs that hold (``a``, ``b``, ``score``, ``a_is``, ``b_is``), and how many could not be read again.
    """
    starts = RowIndex(folder, len(shards)).starts
    tasks = []
    for number, first in enumerate(range(0, len(a), _PAIRS_PER_TASK)):
        left, right = (side[first : first + _PAIRS_PER_TASK].tolist() for side in (a, b))
        touched = np.unique(np.searchsorted(starts, [*left, *right], side="right") - 1).tolist()
        path = str(parts / f"{number:05d}.parquet")
        needed = {shard: (shards[shard], str(folder.samples(shard)), int(starts[shard])) for shard in touched}
        call = partial(verify_chunk, path, (left, right), needed)
        asked = cache_key([_FORMAT, key, left, right])
        tasks.append(Task("verify", f"{number:05d}", call, asked, f"pairs {first} to {first + len(left)}", (path,)))
    with Progress("verify", len(tasks), "pairs") as progress:
        results = run_tasks(tasks, out, workers=workers, on_done=lambda _, result: progress.advance(result["pairs"]))
    tables = [read_columns(parts / f"{number:05d}.parquet") for number in range(len(tasks))]
    return pa.concat_tables([_SCHEMA.empty_table(), *tables]), sum(result["unseen"] for result in results)


def covers_verified(rule: Rule, facts: Mapping[str, Any]) -> bool:
    """Whether every pair that a rule needs verified was, given what the stage says of its edges.

    A pair was verified if a tested clause made it a candidate and no settled clause left it out.
    """
    tested, settled = ([_from_json(clause) for clause in facts[name]] for name in ("tested", "settled"))
    now_settled = _settled_clauses(rule)
    return all(any(implies(clause, earlier) for earlier in tested) for clause in _candidate_clauses(rule)) and all(
        any(implies(spared, clause) for clause in now_settled) for spared in settled
    )


def verify_chunk(
    path: str,
    pairs: tuple[Sequence[int], Sequence[int]],
    shards: Mapping[int, tuple[Shard, str, int]],
) -> dict[str, Any]:
    """Verify some pairs of samples; a task of the engine.

    Args:
        path: Parquet file to write: the pairs that hold, their agreement and their relation.
        pairs: The samples, a and b.
        shards: Shard, its samples file and its first sample, by the number of the shard.

    Returns:
        ``pairs`` looked at, ``verified`` among them, ``unseen``: those with an image that could not be read again.
    """
    found: list[tuple[int, int, float, str, str]] = []
    unseen = 0
    a, b = pairs
    with one_math_thread():
        for first in range(0, len(a), _PAIRS_AT_ONCE):
            together = slice(first, first + _PAIRS_AT_ONCE)
            features = _features({*a[together], *b[together]}, shards)
            for left, right in zip(a[together], b[together], strict=True):
                if left not in features or right not in features:
                    unseen += 1
                    continue
                verdict = verify_pair(features[left], features[right])
                if verdict.verified:
                    swapped = verdict.swapped().describe()
                    found.append((left, right, verdict.agreement, verdict.describe(), swapped))
    columns = [list(column) for column in zip(*found, strict=True)] or [[] for _ in _SCHEMA]
    write_table(Path(path), pa.table(columns, schema=_SCHEMA))
    return {"pairs": len(pairs[0]), "verified": len(found), "unseen": unseen}


def _candidate_clauses(rule: Rule) -> list[Clause]:
    """The clauses that need verification, without that condition."""
    clauses = [tuple(atom for atom in clause if not _looked_at(atom)) for clause in rule.clauses]
    return [rest for rest, clause in zip(clauses, rule.clauses, strict=True) if len(rest) < len(clause)]


def _settled_clauses(rule: Rule) -> list[Clause]:
    """The clauses that hold or not without verification."""
    return [clause for clause in rule.clauses if not any(_looked_at(atom) for atom in clause)]


def _looked_at(atom: Atom) -> bool:
    """Whether a condition is settled by comparing the images again."""
    return find_signal(atom.signal).stage == "verify"


def _as_json(clause: Clause) -> list[list[Any]]:
    return [[atom.signal, atom.bound, atom.similarity] for atom in clause]


def _from_json(clause: Sequence[Sequence[Any]]) -> Clause:
    return tuple(Atom(*fields) for fields in clause)


def _candidates(
    folder: RunFolder, shards: int, rule: Rule, tested: list[Clause]
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    settled = _settled_clauses(rule)
    names = {atom.signal for clause in (*settled, *tested) for atom in clause}
    scanned = Scanned(folder, shards)
    signals = {name: find_signal(name).matches(scanned) for name in names}
    first = find_signal("exact").labels(scanned)  # equal bytes are looked at once
    leaders = np.flatnonzero(first == np.arange(len(first))).astype(np.int32)
    if any(matches.origin == "sample" for matches in signals.values()):
        leaders = np.flatnonzero(first >= 0).astype(np.int32)
    a, b = pairs_of_clauses(tested, signals, leaders)
    done_a, done_b = pairs_of_clauses(settled, signals, leaders)
    open_pairs = ~np.isin(a.astype(np.int64) * len(first) + b, done_a.astype(np.int64) * len(first) + done_b)
    a, b = first[a[open_pairs]], first[b[open_pairs]]
    if len(leaders) and (first[leaders] == leaders).all():
        return a, b
    keys = np.unique(np.minimum(a, b)[a != b].astype(np.int64) * len(first) + np.maximum(a, b)[a != b])
    return (keys // len(first)).astype(np.int32), (keys % len(first)).astype(np.int32)


def _features(samples: Iterable[int], shards: Mapping[int, tuple[Shard, str, int]]) -> dict[int, Features]:
    """The features of some samples; those whose image cannot be read again or decoded are left out."""
    wanted = np.array(sorted(samples), np.int64)
    places: list[Place] = []
    for number, (_, file, start) in shards.items():
        stop = start + count_rows(Path(file))
        here = wanted[(wanted >= start) & (wanted < stop)].tolist()
        places += places_of(Path(file), number, start, here) if here else []
    found: dict[int, Features] = {}
    readable = {number: shard for number, (shard, _, _) in shards.items()}
    for place, data in read_images(readable, places, failed=lambda _place, _error: None):
        with suppress(ImageError, OSError):
            luma = decode_luma(data, min_side=_MIN_SIDE)
            found[place.sample] = local_features(luma.plane, size=(luma.width, luma.height))
    return found
