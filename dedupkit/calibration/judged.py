"""Found pairs for a person to judge, and the answers, which outlive everything else in the folder.

``calibration/answers.jsonl`` has one line per answer: ``a`` and ``b`` (samples), ``keys`` and ``sha256`` (theirs),
``reasons`` (the alternatives for which the pair was drawn), ``scores`` by alternative, and ``same``: true, false, or
null for an answer that was taken back. The last answer about a pair counts, for all the alternatives that it was ever
drawn for.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from dedupkit.calibration.curves import Curve, grid
from dedupkit.calibration.strata import Stratum, draw, stratum_of
from dedupkit.clustering import Rule, scored_pairs
from dedupkit.clustering.rules import reason_of
from dedupkit.manifest.rows import taken_rows
from dedupkit.runfolder.folder import RunFolder
from dedupkit.signals import find_signal
from dedupkit.signals.columns import Scanned, read_column

__all__ = ["Answers", "Drawn", "Found", "append_answer", "draw_pairs", "found_pairs", "read_answers", "strata_of"]

Pair = tuple[int, int]
Image = tuple[str, str | None]
"""Key and SHA-256 of a sample."""
Answers = dict[Pair, tuple[frozenset[str], bool]]
"""By pair: the alternatives for which it was drawn, and whether the two are the same image."""


@dataclass(frozen=True, slots=True)
class Found:
    """The pairs along a curve, as far as the run's edges reach.

    Attributes:
        curve: The alternative.
        a: (m,) int32, the smaller sample.
        b: (m,) int32, the other.
        closeness: (m,) float64, larger for closer.
        in_force: (m,) bool, whether the rule takes the pair for duplicates by this alternative, and by none before it.
    """

    curve: Curve
    a: NDArray[np.int32]
    b: NDArray[np.int32]
    closeness: NDArray[np.float64]
    in_force: NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Drawn:
    """A pair to judge, and its score under each alternative that it was drawn for."""

    a: int
    b: int
    scores: Mapping[str, float]


def found_pairs(folder: RunFolder, shards: int, rule: Rule, curves: Sequence[Curve]) -> list[Found]:
    """The pairs of each curve, samples with equal fingerprints counted as one."""
    readable = read_column(folder, shards, "error")["error"].is_null().to_numpy()
    signals = {name: find_signal(name).matches(Scanned(folder, shards)) for name in rule.signals}
    a, b, clause, _ = scored_pairs(rule, signals, readable)
    reasons = [reason_of(clause) for clause in rule.clauses]
    count = len(readable)
    found = []
    for curve in curves:
        alone = Rule(curve.reason, (curve.at(curve.floor),))
        left, right, _, score = scored_pairs(alone, signals, readable)
        mine = np.isin(clause, [number for number, reason in enumerate(reasons) if reason == curve.reason])
        own = a[mine].astype(np.int64) * count + b[mine]
        in_force = np.isin(left.astype(np.int64) * count + right, own)
        found.append(Found(curve, left, right, curve.closeness(score), in_force))
    return found


def draw_pairs(found: Sequence[Found], per_band: int, seed: int) -> list[Drawn]:
    """The pairs to judge, the same number of each stratum of each curve, in a random order over all of them."""
    drawn: dict[Pair, dict[str, float]] = {}
    for pairs in found:
        curve = pairs.curve
        bounds = curve.closeness(grid(curve))
        stratum = stratum_of(pairs.closeness, bounds)
        stratum[stratum == len(bounds)] = -1
        for row in draw(pairs.a, pairs.b, stratum, per_band, seed).tolist():
            pair = (int(pairs.a[row]), int(pairs.b[row]))
            score = float(pairs.closeness[row]) if curve.atom.similarity else float(abs(pairs.closeness[row]))
            drawn.setdefault(pair, {})[curve.reason] = round(score, 4)
    order = np.random.default_rng(seed).permutation(len(drawn)).tolist()
    every = [Drawn(a, b, scores) for (a, b), scores in sorted(drawn.items())]
    return [every[place] for place in order]


def strata_of(
    found: Found, thresholds: NDArray[np.float64], answers: Answers, *, in_force: bool = False
) -> list[Stratum]:
    """Pairs and answers between successive thresholds.

    Args:
        found: The pairs.
        thresholds: (t,) the strictest first.
        answers: Answers about pairs that were drawn for this alternative.
        in_force: Whether to count only the pairs by which the rule decides.
    """
    curve = found.curve
    place = stratum_of(found.closeness, curve.closeness(thresholds))
    if in_force:
        place = np.where(found.in_force, place, len(thresholds))
    pairs = np.bincount(place, minlength=len(thresholds) + 1)
    counts = np.zeros((2, len(thresholds) + 1), np.int64)
    mine = [(pair, same) for pair, (reasons, same) in answers.items() if curve.reason in reasons]
    asked = np.array([a << 32 | b for (a, b), _ in mine], np.int64)
    key = found.a.astype(np.int64) << 32 | found.b
    for row in np.flatnonzero(np.isin(key, asked)).tolist():
        counts[int(answers[int(found.a[row]), int(found.b[row])][1]), place[row]] += 1
    strict = [curve.atom.perfect, *thresholds.tolist()]
    return [
        Stratum(strict[t], float(bound), int(pairs[t]), int(counts[1, t]), int(counts[0, t]))
        for t, bound in enumerate(thresholds)
    ]


def append_answer(path: Path, drawn: Drawn, images: Mapping[int, Image], same: bool | None) -> None:
    """Record one answer: a line, whole or not at all, that is on the disk when this returns."""
    keys, digests = zip(images[drawn.a], images[drawn.b], strict=True)
    line = {"a": drawn.a, "b": drawn.b, "keys": keys, "sha256": digests, "reasons": sorted(drawn.scores)}
    text = json.dumps({**line, "scores": dict(drawn.scores), "same": same}, ensure_ascii=False) + "\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+b", buffering=0) as file:
        data, end = text.encode(), file.seek(0, os.SEEK_END)
        if end:
            file.seek(end - 1)
            data = data if file.read() == b"\n" else b"\n" + data  # after a line that was cut short
        if file.write(data) < len(data):
            file.truncate(end)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        os.fsync(file.fileno())


def read_answers(path: Path, folder: RunFolder) -> Answers:
    """The answers so far; those about samples that are no longer what they were do not count."""
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError:
        return {}
    entries: list[dict[str, Any]] = []
    for line in lines:
        try:
            entry = json.loads(line.decode())
            entry["pair"], entry["reasons"] = (int(entry["a"]), int(entry["b"])), frozenset(entry["reasons"])
            entries.append(entry)
        except (ValueError, KeyError, TypeError):  # a line that a full disk cut short
            continue
    images = images_of(folder, {sample for entry in entries for sample in entry["pair"]})
    answers: Answers = {}
    for entry in entries:
        pair, reasons = entry["pair"], entry["reasons"]
        before = answers.pop(pair, None)
        if entry.get("same") is not None and _is_about(entry, [images.get(sample) for sample in pair]):
            answers[pair] = (reasons | (before[0] if before else frozenset()), bool(entry["same"]))
    return answers


def _is_about(entry: Mapping[str, Any], images: Sequence[Image | None]) -> bool:
    """Whether an answer is about two images; one of an earlier version names them by their keys alone."""
    keys, digests = ([image and image[part] for image in images] for part in (0, 1))
    return entry.get("keys") == keys and entry.get("sha256", digests) == digests


def images_of(folder: RunFolder, samples: Iterable[int]) -> dict[int, Image]:
    """Key and SHA-256 of some samples; those that the run does not have are left out."""
    with pq.ParquetFile(folder.manifest) as file:
        known = sorted(sample for sample in samples if 0 <= sample < file.metadata.num_rows)
        found = list(taken_rows(file, np.array(known, np.int64), ["key", "sha256"]))
    rows = (row for table in found for row in table.to_pylist())
    return {sample: (row["key"], row["sha256"]) for sample, row in zip(known, rows, strict=True)}
