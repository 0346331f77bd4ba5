"""The decide stage: edges and a rule in, manifest and groups out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from dedupkit.clustering import Decision, Policy, Rule, decide
from dedupkit.clustering.rules import reason_of
from dedupkit.manifest.tables import groups_of, iter_manifest, write_groups, write_manifest
from dedupkit.runfolder.folder import RunFolder
from dedupkit.signals import find_signal
from dedupkit.signals.columns import Scanned, read_column
from dedupkit.store import read_columns

__all__ = ["Verdicts", "decide_and_write", "decide_run"]


def decide_and_write(folder: RunFolder, sources: list[str], rule: Rule, policy: Policy) -> dict[str, Any]:
    """Decide, and write the manifest and the groups.

    Args:
        folder: a run whose samples and edges are there.
        sources: one name per shard.
        rule: what makes two samples duplicates.
        policy: which of them is kept.

    Returns:
        Counts for the summary: ``samples``, ``keep``, ``remove``, ``unreadable``, ``reasons``, ``groups``,
        ``largest_group``, ``edges``.
    """
    return decide_run(folder, sources, rule, policy).write()


@dataclass(frozen=True, slots=True)
class Verdicts:
    """What a rule and a policy decide about a run, in memory until it is written.

    Attributes:
        folder: Folder of the run.
        sources: Name of each shard.
        rule: The rule.
        decision: Verdict for every sample.
        readable: (n,) bool, which samples took part.
    """

    folder: RunFolder
    sources: Sequence[str]
    rule: Rule
    decision: Decision
    readable: NDArray[np.bool_]

    def tables(self) -> Iterator[pa.Table]:
        """The manifest, one table a shard."""
        return iter_manifest(self._samples(), self.sources, self.decision, self._reasons())

    def groups(self) -> pa.Table:
        """The groups, as in ``groups.parquet``."""
        return groups_of(self.decision, self.readable)

    def summary(self) -> dict[str, Any]:
        """Counts as :func:`decide_and_write` returns them."""
        removed = self.decision.witness >= 0
        names, reasons = self._reasons(), Counter[str]()
        for clause, count in zip(*np.unique(self.decision.clause[removed], return_counts=True), strict=True):
            reasons[names[int(clause)]] += int(count)
        sizes = np.bincount(self.decision.group)
        kept = int((self.readable & ~removed).sum())
        verdicts = {"keep": kept, "remove": int(removed.sum()), "unreadable": int((~self.readable).sum())}
        return self._counts(verdicts, reasons, int((sizes > 1).sum()), int(sizes.max(initial=1)))

    def write(self) -> dict[str, Any]:
        """Write the manifest and the groups into the run folder; returns the summary."""
        counts = write_manifest(self.folder.manifest, self._samples(), self.sources, self.decision, self._reasons())
        groups, largest = write_groups(self.folder.groups, self.decision, self.readable)
        return self._counts(counts.verdicts, counts.reasons, groups, largest)

    def _samples(self) -> list[Path]:
        return [self.folder.samples(shard) for shard in range(len(self.sources))]

    def _reasons(self) -> list[str]:
        return [reason_of(clause) for clause in self.rule.clauses]

    def _counts(
        self, verdicts: Mapping[str, int], reasons: Mapping[str, int], groups: int, largest: int
    ) -> dict[str, Any]:
        return {
            "samples": len(self.readable),
            **{verdict: verdicts.get(verdict, 0) for verdict in ("keep", "remove", "unreadable")},
            "reasons": dict(sorted(reasons.items())),
            "groups": groups,
            "largest_group": largest,
            "edges": self.decision.edges,
        }


def decide_run(folder: RunFolder, sources: Sequence[str], rule: Rule, policy: Policy) -> Verdicts:
    """Decide, and write nothing; arguments as for :func:`decide_and_write`."""
    shards = len(sources)
    readable = read_column(folder, shards, "error")["error"].is_null().to_numpy()
    order = policy.order(_policy_columns(folder, shards, policy), len(readable))
    signals = {name: find_signal(name).matches(Scanned(folder, shards)) for name in rule.signals}
    return Verdicts(folder, list(sources), rule, decide(rule, signals, order, readable), readable)


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
