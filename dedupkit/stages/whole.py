"""The samples of a run and those of earlier runs that stand beside them, decided about as one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from dedupkit.clustering import Decision, Policy, Rule, decide
from dedupkit.runfolder import RunConfig, RunFolder
from dedupkit.signals import find_signal
from dedupkit.signals.columns import Scanned, read_column
from dedupkit.signals.matches import Matches
from dedupkit.stages.blocked import blocked_samples, rows_of, witnesses
from dedupkit.stages.outside import beside
from dedupkit.stages.tables import OutsideWitnesses
from dedupkit.store import read_columns

__all__ = ["Whole", "duplicates_outside", "keep_order"]


@dataclass(frozen=True, slots=True)
class Whole:
    """The samples and, where there are earlier runs, those of their kept samples that duplicates lead to.

    Attributes:
        folder: Folder of the run.
        config: What the verdicts answer.
        rule: The rule.
        signals: What each signal says about all of them.
        order: All of them, the most worth keeping first.
        earlier: (n + k,) bool, which are of an earlier run.
        number: (k,) int64, the number of each one's run.
        row: (k,) int64, its sample number there.
    """

    folder: RunFolder
    config: RunConfig
    rule: Rule
    signals: Mapping[str, Matches]
    order: NDArray[np.int64]
    earlier: NDArray[np.bool_]
    number: NDArray[np.int64]
    row: NDArray[np.int64]

    @classmethod
    def of(
        cls, folder: RunFolder, config: RunConfig, rule: Rule, policy: Policy, signals: Mapping[str, Matches]
    ) -> Whole:
        """Put the earlier runs beside the samples."""
        count = len(next(iter(signals.values())).first)
        numbers = [number for number, reference in enumerate(config.references) if reference.role == "earlier"]
        columns = _policy_columns(folder, len(config.shards), policy)
        none = np.zeros(0, np.int64)
        if not numbers:
            return cls(folder, config, rule, signals, policy.order(columns, count), np.zeros(count, bool), none, none)
        placed = beside(folder, numbers, rule.signals, signals)
        for number in numbers:
            layout, shards = rows_of(folder, config, number)
            theirs = _policy_columns(RunFolder(layout.path), shards, policy)
            rows = placed.row[placed.number == number]
            columns = {name: np.concatenate([column, theirs[name][rows]]) for name, column in columns.items()}
        order = policy.order(columns, count + len(placed.row))
        earlier = placed.protected(count)
        return cls(folder, config, rule, placed.signals, order, earlier, placed.number, placed.row)

    def decide(self, part: NDArray[np.bool_], *, restrict: bool, held: NDArray[np.bool_] | None = None) -> Decision:
        """Decide about the samples of a mask; witnesses beyond all samples are of earlier runs.

        Args:
            part: (n,) which samples take part.
            restrict: Whether readable ones are missing from it.
            held: (n,) which samples stay, whatever the order says.
        """
        count = len(part)
        protected = self.earlier.copy()
        protected[:count] |= False if held is None else held
        everything = np.concatenate([part, np.ones(len(self.row), bool)])
        signals = self.signals
        if restrict:
            signals = {name: matches.restricted(everything) for name, matches in signals.items()}
        found = decide(self.rule, signals, self.order, everything, protected if protected.any() else None)
        witness, clause, score = found.witness[:count], found.clause[:count], found.score[:count]
        return Decision(witness, clause, score, found.group[:count], found.edges, found.vertices)

    def witnesses(self, decision: Decision) -> OutsideWitnesses:
        """The witnesses of earlier runs by name."""
        count = len(decision.witness)
        mine = np.flatnonzero(decision.witness >= count)
        place = decision.witness[mine] - count
        return witnesses(self.folder, self.config, mine, self.number[place], self.row[place], decision.score[mine])


def duplicates_outside(folder: RunFolder, config: RunConfig, rule: Rule, policy: Policy) -> NDArray[np.bool_]:
    """Which samples duplicate a kept sample of an earlier run or a reference set.

    Args:
        folder: A run whose joins with its references are there.
        config: What was asked of it.
        rule: What makes two samples duplicates.
        policy: Which of them is kept.

    Returns:
        (n,) bool. What verification says of pairs of samples is left out, for it may not be there yet.
    """
    shards = len(config.shards)
    readable = read_column(folder, shards, "error")["error"].is_null().to_numpy()
    part = readable.copy()
    part[list(blocked_samples(folder, config, readable).reasons)] = False
    scanned, signals = Scanned(folder, shards), {}
    for name in rule.signals:
        signal = find_signal(name)
        later = signal.stage == "verify"
        signals[name] = Matches.identity(signal.labels(scanned)) if later else signal.matches(scanned)
    witness = Whole.of(folder, config, rule, policy, signals).decide(part, restrict=True).witness
    settled: NDArray[np.bool_] = readable & (~part | (witness >= len(part)))
    return settled


def keep_order(folder: RunFolder, shards: int, policy: Policy, count: int) -> NDArray[np.int64]:
    """All samples, the most worth keeping first, (count,) int64."""
    return policy.order(_policy_columns(folder, shards, policy), count)


def _policy_columns(folder: RunFolder, shards: int, policy: Policy) -> dict[str, NDArray[Any]]:
    """The policy's columns as float64, NaN where missing."""
    values: dict[str, NDArray[Any]] = {}
    for name in policy.needs:
        if name == "pixels":
            table = read_column(folder, shards, "width", "height")
            width, height = (_floats(table[side]) for side in ("width", "height"))
            values[name] = width * height
        elif name == "caption_length":
            # One shard at a time: captions can be larger than everything else together.
            columns = (read_columns(folder.samples(shard), ["caption"])["caption"] for shard in range(shards))
            lengths = [pc.utf8_length(column) for column in columns]
            values[name] = np.concatenate([_floats(part) for part in lengths])
        else:
            values[name] = _floats(read_column(folder, shards, name)[name])
    return values


def _floats(column: Any) -> NDArray[np.float64]:
    result: NDArray[np.float64] = column.cast("float64").to_numpy()
    return result
