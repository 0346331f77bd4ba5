"""The samples of a run and those of earlier runs that stand beside them, decided about as one."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from dedupkit.clustering import Decision, Policy, Rule, decide
from dedupkit.clustering.part_files import Rows
from dedupkit.clustering.policy import META
from dedupkit.runfolder import RunConfig, RunFolder
from dedupkit.signals import find_signal
from dedupkit.signals.columns import Scanned
from dedupkit.signals.matches import Matches, Streamed
from dedupkit.stages.blocked import blocked_samples, rows_of, witnesses
from dedupkit.stages.manifest_table import OutsideWitnesses
from dedupkit.stages.outside import beside
from dedupkit.stages.parts import PartTasks, is_large
from dedupkit.store import count_rows, read_columns, rows_by_file

__all__ = ["Whole", "duplicates_outside", "keep_order", "policy_sources"]

_SOURCES = {"pixels": ["width", "height"], "caption_length": ["caption"]}


@dataclass(frozen=True)
class Whole:
    """The samples and, where there are earlier runs, those of their kept samples that duplicates lead to.

    Attributes:
        scanned: The samples.
        config: What the verdicts answer.
        rule: The rule.
        policy: The keep policy.
        signals: What each signal says about all of them.
        own: Number of samples, n; those of earlier runs stand behind them.
        number: (k,) int64, the number of each one's run.
        row: (k,) int64, its sample number there.
        columns: (k,) float64 each, the columns of the keep policy of these.
        tasks: Where large decisions are made; in this process by default.
    """

    scanned: Scanned
    config: RunConfig
    rule: Rule
    policy: Policy
    signals: Mapping[str, Streamed]
    own: int
    number: NDArray[np.int64]
    row: NDArray[np.int64]
    columns: Mapping[str, NDArray[Any]]
    tasks: PartTasks | None = None

    @classmethod
    def of(
        cls,
        scanned: Scanned,
        config: RunConfig,
        rule: Rule,
        policy: Policy,
        signals: Mapping[str, Streamed],
        tasks: PartTasks | None = None,
    ) -> Whole:
        """Put the earlier runs beside the samples."""
        folder, count = scanned.folder, next(iter(signals.values())).samples
        numbers = [number for number, reference in enumerate(config.references) if reference.role == "earlier"]
        none = np.zeros(0, np.int64)
        if not numbers:
            return cls(scanned, config, rule, policy, signals, count, none, none, {}, tasks)
        placed = beside(folder, numbers, rule.signals, {name: signal.loaded() for name, signal in signals.items()})
        columns: dict[str, list[NDArray[Any]]] = {name: [] for name in policy.needs}
        for number in numbers:
            layout, shards = rows_of(folder, config, number)
            there = RunFolder(layout.path)
            lacking = {META + name for name in {*policy.meta}.difference(there.read_config().meta)}
            rows = placed.row[placed.number == number]
            files = map(there.samples, range(shards))
            for file, _, _, mine in rows_by_file(files, rows):
                for name, column in _shard_columns(file, policy, lacking).items():
                    columns[name].append(column[mine])
        together = {name: np.concatenate([np.zeros(0), *parts]) for name, parts in columns.items()}
        streamed = {name: matches.streamed for name, matches in placed.signals.items()}
        return cls(scanned, config, rule, policy, streamed, count, placed.number, placed.row, together, tasks)

    @property
    def folder(self) -> RunFolder:
        """Folder of the run."""
        return self.scanned.folder

    @property
    def count(self) -> int:
        """Number of all of them, n + k."""
        return self.own + len(self.row)

    @cached_property
    def order(self) -> NDArray[np.int64]:
        """All of them, the most worth keeping first."""
        columns = _policy_columns(self.scanned, self.policy)
        if self.columns:
            columns = {name: np.concatenate([column, self.columns[name]]) for name, column in columns.items()}
        return self.policy.order(columns, self.count)

    @cached_property
    def _loaded(self) -> dict[str, Matches]:
        return {name: signal.loaded() for name, signal in self.signals.items()}

    def decide(self, active: NDArray[np.bool_], *, restrict: bool, held: NDArray[np.bool_] | None = None) -> Decision:
        """Decide about the samples of a mask; witnesses beyond all samples are of earlier runs.

        Args:
            active: (n,) which samples take part.
            restrict: Whether readable ones are missing from it.
            held: (n,) which samples stay, whatever the order says.
        """
        protected = np.zeros(self.count, bool)
        protected[: self.own] = False if held is None else held
        protected[self.own :] = True
        if len(self.row):
            active = np.concatenate([active, np.ones(len(self.row), bool)])
        if is_large(self.signals):
            with nullcontext(self.tasks) if self.tasks else PartTasks.temporary(self.folder) as tasks:
                found = tasks.decide(self.rule, self.policy, self.signals, (active, protected), self._rows())
        else:
            signals = self._loaded
            if restrict:
                signals = {name: matches.restricted(active) for name, matches in signals.items()}
            found = decide(self.rule, signals, self.order, active, protected if protected.any() else None)
        own = slice(self.own)
        return replace(
            found, witness=found.witness[own], clause=found.clause[own], score=found.score[own], group=found.group[own]
        )

    def _rows(self) -> Iterator[Rows]:
        """What the keep policy looks at, a shard at a time, those of earlier runs at the end."""
        start = 0
        for shard in range(len(self.config.shards)):
            file = self.folder.samples(shard)
            stop = start + count_rows(file)
            yield Rows(start, stop, _shard_columns(file, self.policy))
            start = stop
        yield Rows(start, self.count, self.columns)

    def witnesses(self, decision: Decision) -> OutsideWitnesses:
        """The witnesses of earlier runs by name."""
        count = len(decision.witness)
        mine = np.flatnonzero(decision.witness >= count) if len(self.row) else np.zeros(0, np.int64)
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
    scanned = Scanned(folder, len(config.shards))
    readable = scanned.readable()
    active = readable.copy()
    active[list(blocked_samples(folder, config, readable).reasons)] = False
    signals = {}
    for name in rule.signals:
        signal = find_signal(name)
        later = signal.stage == "verify"
        unseen = Matches.identity(signal.labels(scanned)).streamed if later else None
        signals[name] = unseen or signal.streamed(scanned)
    witness = Whole.of(scanned, config, rule, policy, signals).decide(active, restrict=True).witness
    settled: NDArray[np.bool_] = readable & (~active | (witness >= len(active)))
    return settled


def keep_order(folder: RunFolder, shards: int, policy: Policy, count: int) -> NDArray[np.int64]:
    """All samples, the most worth keeping first, (count,) int64."""
    return policy.order(_policy_columns(Scanned(folder, shards), policy), count)


def policy_sources(policy: Policy) -> list[str]:
    """The columns of samples that a policy looks at."""
    return list(dict.fromkeys(column for name in policy.needs for column in _SOURCES.get(name, [name])))


def _policy_columns(scanned: Scanned, policy: Policy) -> dict[str, NDArray[Any]]:
    """The policy's columns of all samples."""
    held = scanned.select(*policy_sources(policy))
    if held is not None:
        return _columns_of(held, policy.needs)
    parts = [_shard_columns(scanned.folder.samples(shard), policy) for shard in range(scanned.shards)]
    return {name: np.concatenate([part[name] for part in parts]) for name in policy.needs}


def _shard_columns(file: Path, policy: Policy, lacking: Collection[str] = ()) -> dict[str, NDArray[Any]]:
    """The policy's columns of one shard's samples; of an earlier run, which may lack some, those as missing values."""
    sources = [name for name in policy_sources(policy) if name not in lacking]
    there = [name for name in policy.needs if name not in lacking]
    found = _columns_of(read_columns(file, sources), there) if sources else {}
    return found | {name: np.full(count_rows(file), np.nan) for name in lacking}


def _columns_of(table: Any, names: Sequence[str]) -> dict[str, NDArray[Any]]:
    """Columns of a policy, from a table of samples as float64, NaN where missing."""
    values: dict[str, NDArray[Any]] = {}
    for name in names:
        if name == "pixels":
            values[name] = _floats(table["width"]) * _floats(table["height"])
        elif name == "caption_length":
            values[name] = _floats(pc.utf8_length(table["caption"]))
        else:
            values[name] = _floats(table[name])
    return values


def _floats(column: Any) -> NDArray[np.float64]:
    result: NDArray[np.float64] = column.cast("float64").to_numpy()
    return result
