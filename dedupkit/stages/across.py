"""The stage that joins a run's samples with earlier runs and reference sets: new with old, never old with old."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from dedupkit.clustering import pairs_of_clauses
from dedupkit.clustering.rules import Rule
from dedupkit.engine import Progress, Task, ThisProcess, cache_key
from dedupkit.engine.marker import write_marker
from dedupkit.errors import require
from dedupkit.runfolder import RunFolder
from dedupkit.signals import JoinSettings, known_signals
from dedupkit.signals.across import leading
from dedupkit.signals.columns import Scanned, write_edges
from dedupkit.stages.addresses import ADDRESSES
from dedupkit.stages.clauses import as_json, candidate_clauses, settled_clauses
from dedupkit.stages.outside import across_files, beside
from dedupkit.stages.plan import Job
from dedupkit.stages.references import Opened
from dedupkit.stages.verify_pairs import verify_pairs
from dedupkit.store import atomic_path, remove_tree, write_table

__all__ = ["join_references"]

_FORMAT = 1  # raise it when what these tasks write changes
_VERIFIED = "verified"


def join_references(job: Job, own_keys: Mapping[str, str], opened: Sequence[Opened], rules: Sequence[Rule]) -> None:
    """Join the samples with each reference under each signal of its rule; what is there already stays.

    Args:
        job: What is computed.
        own_keys: Digests of the samples and vectors, as :func:`dedupkit.stages.run.run_stages` returns them.
        opened: The references.
        rules: For each the rule by which it is compared.
    """
    _remove_others(job.folder, [(number, name) for number, rule in enumerate(rules) for name in rule.signals])
    with Progress("match references", sum(len(rule.signals) for rule in rules)) as progress:
        for number, (reference, rule) in enumerate(zip(opened, rules, strict=True)):
            keys: dict[str, str] = {}
            for name in sorted(rule.signals, key=lambda name: name == _VERIFIED):
                keys[name] = _join(job, number, reference, rule, name, own_keys, keys)
                progress.advance()


def _join(
    job: Job,
    number: int,
    opened: Opened,
    rule: Rule,
    name: str,
    own_keys: Mapping[str, str],
    done: Mapping[str, str],
) -> str:
    """Join under one signal; returns the key of what was made."""
    atom, computing = rule.loosest(name), job.computing
    signal: Any = ADDRESSES.get(name) or known_signals(job.embedders)[name]
    settings = JoinSettings(
        atom.bound or 0.0, computing.threads, computing.target_recall, computing.seed, computing.device
    )
    search = signal.join_key(settings) if name not in ADDRESSES else []
    own_key = own_keys.get(name, "") + own_keys["scan"]
    key = cache_key([_FORMAT, own_key, opened.keys[name], search, str(atom)])
    own = Scanned(job.folder, len(job.shards))
    if name == _VERIFIED:
        return _verify(job, number, opened, rule, cache_key([key, sorted(done.items()), _clauses(rule)]))
    call = partial(_write_join, job.folder, number, signal, own, opened, settings)
    outputs = (str(job.folder.across(number, name)),)
    task = Task("across", f"{number:03d}-{name}", call, key, f"{name} of {opened.reference.name}", outputs)
    ThisProcess().run([task], job.folder.path)
    return key


def _write_join(
    folder: RunFolder, number: int, signal: Any, own: Scanned, opened: Opened, settings: JoinSettings
) -> dict[str, Any]:
    found = signal.across(own, opened.rows, opened.part, settings)
    files = across_files(folder, number, signal.name)
    edges = write_edges(files.pairs, found.blocks, across=True)
    _save(files.own, found.own)
    _save(files.other, found.other)
    return {
        "bound": settings.bound, "edges": edges, "distinct": len(leading(found.other)), "rows": int(opened.part.sum()),
        **found.facts,
    }  # fmt: skip


def _verify(job: Job, number: int, opened: Opened, rule: Rule, key: str) -> str:
    """Look again at the images of the pairs on which the verdict depends; equal bytes need no second look."""
    folder, marker = job.folder, job.folder.across_marker(number, _VERIFIED)
    if _is_done(folder, number, key):
        return key
    require("cv2", "verify")
    own = Scanned(folder, len(job.shards))
    exact = known_signals()["exact"].across(own, opened.rows, opened.part, JoinSettings(0.0))
    blocks = [(a, b) for a, b, _ in exact.blocks]
    none = np.zeros(0, np.int64)
    equal = np.concatenate([none, *(a for a, _ in blocks)]), np.concatenate([none, *(b for _, b in blocks)])
    a, b = _candidates(folder, number, rule, exact.own, exact.other, equal)
    count = len(exact.own)
    both = _SideBySide(folder, len(job.shards), opened.rows)
    parts = folder.across(number, _VERIFIED) / "parts"
    table, unseen = verify_pairs(
        a,
        b + count,
        both,
        [*job.shards, *opened.shards],
        parts=parts,
        out=parts,
        key=key,
        workers=job.computing.threads,
    )
    seen = (table["a"].to_numpy(), table["b"].to_numpy() - count, table["score"].to_numpy())
    files = across_files(folder, number, _VERIFIED)
    together = [(*equal, np.zeros(len(equal[0]), np.float32)), seen]
    a, b, score = (np.concatenate(column) for column in zip(*together, strict=True))
    words = [[None] * len(equal[0]) + table[side].to_pylist() for side in ("a_is", "b_is")]
    columns = {"a": a, "b": b, "score": score.astype(np.float32)}
    write_table(
        files.pairs,
        pa.table(
            {
                **columns,
                **{side: pa.array(text, pa.string()) for side, text in zip(("a_is", "b_is"), words, strict=True)},
            }
        ),
    )
    _save(files.own, exact.own)
    _save(files.other, exact.other)
    facts = {"pairs": len(seen[0]), "unseen": unseen, "rows": int(opened.part.sum()), **_clauses(rule)}
    write_marker(marker, key, facts, folder.path, [files.pairs, files.own, files.other])
    remove_tree(parts)  # last: before the marker, a kill would leave tasks that are done and nothing to show for it
    return key


class _SideBySide(RunFolder):
    """The samples of a run, and after them the rows of a reference, as one run.

    Args:
        folder: Folder of the run.
        shards: Number of its shards.
        rows: The rows of the reference.
    """

    def __init__(self, folder: RunFolder, shards: int, rows: Scanned) -> None:
        super().__init__(folder.path)
        self._own, self._shards, self._rows = folder, shards, rows

    def samples(self, shard: int) -> Path:
        """Samples of a shard of the run or, behind these, of the reference."""
        return self._own.samples(shard) if shard < self._shards else self._rows.folder.samples(shard - self._shards)


def _clauses(rule: Rule) -> dict[str, Any]:
    """What is verified of a rule and what leaves pairs out, as :func:`.clauses.covers_verified` reads it."""
    return {
        "tested": [as_json(clause) for clause in candidate_clauses(rule)],
        "settled": [as_json(clause) for clause in settled_clauses(rule)],
    }


def _is_done(folder: RunFolder, number: int, key: str) -> bool:
    from dedupkit.engine.marker import read_marker

    marker = read_marker(folder.across_marker(number, _VERIFIED))
    return marker is not None and marker.key == key and marker.holds(folder.path)


def _candidates(
    folder: RunFolder,
    number: int,
    rule: Rule,
    own: NDArray[np.int32],
    other: NDArray[np.int32],
    equal: tuple[NDArray[np.int64], NDArray[np.int64]],
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The pairs of samples and rows that a clause makes candidates and that no other settles; each content once."""
    tested, settled = candidate_clauses(rule), settled_clauses(rule)
    names = list(dict.fromkeys(atom.signal for clause in (*tested, *settled) for atom in clause))
    placed = beside(folder, [number], names)
    count = len(own)
    leaders = np.arange(count + len(placed.row), dtype=np.int32)

    def crossing(clauses: Any) -> NDArray[np.int64]:
        a, b = pairs_of_clauses(clauses, placed.signals, leaders)
        mine = (a < count) & (b >= count)
        rows = placed.row[b[mine] - count]
        return own[a[mine]].astype(np.int64) * len(other) + other[rows]

    done = np.concatenate([crossing(settled), equal[0] * len(other) + equal[1]])
    left = np.setdiff1d(crossing(tested), done)
    return left // max(len(other), 1), left % max(len(other), 1)


def _remove_others(folder: RunFolder, wanted: Sequence[tuple[int, str]]) -> None:
    """Remove joins that nothing asks for any more, so that nobody takes them for what is there now."""
    keep = {folder.across_marker(number, name) for number, name in wanted}
    home = folder.across_marker(0, "any").parent
    for marker in sorted(home.glob("*.json")) if home.exists() else []:
        if marker not in keep:
            number, _, name = marker.stem.partition("-")
            remove_tree(marker)
            remove_tree(folder.across(int(number), name))


def _save(path: Path, array: NDArray[Any]) -> None:
    with atomic_path(path) as temporary, temporary.open("wb") as stream:
        np.save(stream, array)
