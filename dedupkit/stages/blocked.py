"""Samples that duplicate a reference set: they are blocked, and take no part in deciding."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from dedupkit.clustering import decide, parse_rule
from dedupkit.clustering.rules import Rule, reason_of
from dedupkit.engine.marker import read_marker
from dedupkit.errors import DamagedError
from dedupkit.runfolder import Layout, RunConfig, RunFolder
from dedupkit.signals import known_signals
from dedupkit.signals.columns import read_column
from dedupkit.stages.manifest_table import OutsideWitnesses, keys_of
from dedupkit.stages.outside import beside, list_rule

__all__ = ["Blocked", "blocked_samples", "reference_rule", "rows_of", "witnesses"]


@dataclass(frozen=True, slots=True)
class Blocked:
    """The samples that duplicate a reference set.

    Attributes:
        reasons: Reason by sample.
        witnesses: What they duplicate.
    """

    reasons: dict[int, str]
    witnesses: OutsideWitnesses


def reference_rule(folder: RunFolder, config: RunConfig, number: int) -> Rule:
    """The rule by which samples are compared with one reference.

    Raises:
        DamagedError: A list's marker is missing.
    """
    reference = config.references[number]
    known = known_signals(config.embedders)
    if reference.role == "earlier":
        return parse_rule(config.rule_expanded, known)
    rule = parse_rule(config.against_rule, known)
    if reference.kind != "list":
        return rule
    path = folder.marker("reference", f"{number:03d}")
    marker = read_marker(path)
    if marker is None:
        raise DamagedError(path, "is missing or damaged")
    return list_rule(marker.result["kinds"], rule)


def rows_of(folder: RunFolder, config: RunConfig, number: int) -> tuple[Layout, int]:
    """The folder with the rows of a reference in the layout of a run, and the number of its shards.

    A run's own folder is read, also where signals that it lacks were computed beside it.
    """
    reference = config.references[number]
    if reference.kind == "run":
        earlier = RunFolder(reference.path)
        return earlier, len(earlier.read_config().shards)
    inner = folder.reference(number)
    return inner, len(list(inner.samples(0).parent.glob("*.parquet")))


def blocked_samples(folder: RunFolder, config: RunConfig, readable: NDArray[np.bool_]) -> Blocked:
    """Which samples duplicate a reference set, the first that each duplicates, and why.

    Args:
        folder: A run whose joins with its references are there.
        config: What was asked of it.
        readable: (n,) bool, which samples could be read.
    """
    left = readable.copy()
    reasons: dict[int, str] = {}
    found: list[OutsideWitnesses] = []
    for number, reference in enumerate(config.references):
        if reference.role != "against":
            continue
        rule = reference_rule(folder, config, number)
        mine, row, clause, score = _duplicates(folder, number, rule, left)
        why = [f"{reference.name}: {reason_of(each)}" for each in rule.clauses]
        reasons |= {sample: why[place] for sample, place in zip(mine.tolist(), clause.tolist(), strict=True)}
        left[mine] = False
        found.append(witnesses(folder, config, mine, np.full(len(mine), number), row, score))
    return Blocked(reasons, OutsideWitnesses.gather(found))


def _duplicates(
    folder: RunFolder, number: int, rule: Rule, active: NDArray[np.bool_]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int8], NDArray[np.float32]]:
    """Samples that satisfy a rule with rows of a reference: samples, rows, clauses, scores."""
    placed = beside(folder, [number], rule.signals)
    count = len(active)
    active = np.concatenate([active, np.ones(len(placed.row), bool)])
    signals = {name: matches.restricted(active) for name, matches in placed.signals.items()}
    decision = decide(rule, signals, np.arange(len(active)), active, placed.protected(count))
    mine = np.flatnonzero(decision.witness[:count] >= count)
    return mine, placed.row[decision.witness[mine] - count], decision.clause[mine], decision.score[mine]


def witnesses(
    folder: RunFolder,
    config: RunConfig,
    samples: NDArray[np.int64],
    numbers: NDArray[np.int64],
    rows: NDArray[np.int64],
    score: NDArray[np.float32],
) -> OutsideWitnesses:
    """Name the rows of references that stand for some samples.

    Args:
        folder: A run.
        config: What was asked of it.
        samples: (k,) samples, ascending.
        numbers: (k,) the reference in which each has its witness.
        rows: (k,) the row there.
        score: (k,) the score between the two.
    """
    names = pa.array([reference.name for reference in config.references], pa.string())
    shown = rows.copy()
    keys = np.empty(len(rows), object)
    for number in np.unique(numbers).tolist():
        here = np.flatnonzero(numbers == number)
        layout, shards = rows_of(folder, config, number)
        files = [layout.samples(shard) for shard in range(shards)]
        unique, place = np.unique(rows[here], return_inverse=True)
        keys[here] = np.asarray(keys_of(unique, files).to_numpy(zero_copy_only=False), object)[place]
        if config.references[number].kind == "list":
            lines = read_column(RunFolder(layout.path), 1, "offset")["offset"].to_numpy()
            shown[here] = lines[rows[here]]
    return OutsideWitnesses(samples, numbers, names.take(pa.array(numbers)), shown, pa.array(keys, pa.string()), score)
