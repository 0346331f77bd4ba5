"""The decide stage: edges and a rule in, manifest and groups out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from dedupkit.captions.modes import CaptionMode
from dedupkit.clustering import Decision, Policy, Rule
from dedupkit.clustering.families import TEMPLATE_REASON
from dedupkit.clustering.rules import reason_of
from dedupkit.engine import Engine, ThisProcess
from dedupkit.errors import DedupkitError
from dedupkit.runfolder import RunConfig, RunFolder
from dedupkit.runfolder.decision import decision_digest
from dedupkit.signals import find_signal
from dedupkit.signals.column import compared_columns
from dedupkit.signals.columns import Scanned
from dedupkit.stages.blocked import blocked_samples
from dedupkit.stages.caption_facts import CaptionFacts, caption_facts, template_samples
from dedupkit.stages.covered import refuse_changed
from dedupkit.stages.earlier_captions import earlier_uses, given_captions
from dedupkit.stages.families import Families, signals_of, with_families
from dedupkit.stages.group_table import iter_groups, write_groups
from dedupkit.stages.manifest_table import OutsideWitnesses, iter_manifest, write_manifest
from dedupkit.stages.parts import PartTasks
from dedupkit.stages.whole import Whole, policy_sources
from dedupkit.startup.memory import give_back_memory
from dedupkit.store import write_table

__all__ = ["Verdicts", "decide_and_write", "decide_run"]


def decide_and_write(
    folder: RunFolder, config: RunConfig, rule: Rule, policy: Policy, engine: Engine | None = None
) -> dict[str, Any]:
    """Decide, and put the manifest, the groups and ``decision.json`` into the run folder, all of them at once.

    Args:
        folder: A run whose samples and edges are there.
        config: What the verdicts answer; it becomes the run's configuration together with them.
        rule: What makes two samples duplicates.
        policy: Which of them is kept.
        engine: Where a large decision is made, in parts; in this process by default.

    Returns:
        Counts for the summary: ``samples``, ``keep``, ``remove``, ``unreadable``, ``reasons``, ``groups``,
        ``largest_group``, ``edges``.

    Raises:
        DedupkitError: A run that the samples were compared with was decided again meanwhile.
    """
    decided = decide_run(folder, config, rule, policy, engine=engine or ThisProcess())
    refuse_changed(config.references)
    return decided.write()


@dataclass(frozen=True, slots=True)
class Verdicts:
    """What a rule and a policy decide about a run, in memory until it is written.

    Attributes:
        folder: Folder of the run.
        config: What the verdicts answer.
        inputs: Digest of what was decided about.
        rule: The rule.
        decision: Verdict for every sample.
        readable: (n,) bool, whether a sample could be read.
        captions: What the captions say about the groups.
        blocked: Reason why a sample takes no part, by sample.
        outside: Witnesses in earlier runs and reference sets.
        families: Families of one template; None where the rule looks for none.
    """

    folder: RunFolder
    config: RunConfig
    inputs: str
    rule: Rule
    decision: Decision
    readable: NDArray[np.bool_]
    captions: CaptionFacts
    blocked: Mapping[int, str]
    outside: OutsideWitnesses
    families: Families | None = None

    def tables(self) -> Iterator[pa.Table]:
        """The manifest, one table a shard."""
        return iter_manifest(
            self._samples(),
            self.config.shards,
            self.decision,
            self._reasons(),
            blocked=self.blocked,
            captions=self.captions.carried,
            outside=self.outside,
        )

    def groups(self) -> pa.Table:
        """The groups, as in ``groups.parquet``."""
        return pa.concat_tables(self._groups())

    def summary(self) -> dict[str, Any]:
        """Counts as :func:`decide_and_write` returns them."""
        removed = self.decision.witness >= 0
        names, reasons = self._reasons(), Counter[str]()
        for clause, count in zip(*np.unique(self.decision.clause[removed], return_counts=True), strict=True):
            reasons[names[int(clause)]] += int(count)
        sizes = self.decision.sizes()
        kept = int((self._active() & ~removed).sum())
        verdicts = {"keep": kept, "remove": int(removed.sum()), "unreadable": int((~self.readable).sum())}
        verdicts["blocked"] = len(self.blocked)
        return self._counts(verdicts, reasons, int((sizes > 1).sum()), int(sizes.max(initial=1)))

    def write(self) -> dict[str, Any]:
        """Put the verdicts into the run folder, with the configuration that they answer; returns the summary.

        Raises:
            DedupkitError: The samples or edges are no longer those that were decided about.
        """
        folder = self.folder
        signals = signals_of(self.rule, folder)
        if folder.inputs(signals) != self.inputs:
            raise DedupkitError(f"samples or pairs in {folder.path} changed since these verdicts; decide again")
        folder.clear_staged()
        digest = decision_digest(self.config, self.inputs)
        give_back_memory()
        counts = write_manifest(folder.staged / folder.manifest.name, self.tables(), digest)
        give_back_memory()
        groups, largest = write_groups(folder.staged / folder.groups.name, self._groups(), digest)
        if self.captions.templates is not None:
            write_table(folder.staged / folder.templates.name, self.captions.templates)
        if self.captions.given is not None:
            write_table(folder.staged / folder.earlier_captions.name, self.captions.given)
        if self.families is not None:
            write_table(folder.staged / folder.families.name, self.families.table)
        summary = self._counts(counts.verdicts, counts.reasons, groups, largest)
        folder.publish(self.inputs, signals, summary, self.config)
        return summary

    def _groups(self) -> Iterator[pa.Table]:
        return iter_groups(self.decision, self._active(), self.captions.groups)

    def _samples(self) -> list[Path]:
        return [self.folder.samples(shard) for shard in range(len(self.config.shards))]

    def _reasons(self) -> list[str]:
        return [*(reason_of(clause) for clause in self.rule.clauses), TEMPLATE_REASON]

    def _counts(
        self, verdicts: Mapping[str, int], reasons: Mapping[str, int], groups: int, largest: int
    ) -> dict[str, Any]:
        return {
            "samples": len(self.readable),
            **{verdict: verdicts.get(verdict, 0) for verdict in ("keep", "remove", "unreadable", "blocked")},
            "reasons": dict(sorted(reasons.items())),
            "groups": groups,
            "largest_group": largest,
            "edges": self.decision.edges,
            "captions": self._caption_counts(),
            "by_reference": self._by_reference(),
            **({} if self.families is None else {"families": self.families.counts}),
        }

    def _by_reference(self) -> list[int]:
        """For each earlier run and reference set how many samples have their witness there."""
        counts: list[int] = np.bincount(self.outside.references, minlength=len(self.config.references)).tolist()
        return counts

    def _caption_counts(self) -> dict[str, Any]:
        groups = self.captions.groups
        sizes = self.decision.sizes()
        one = pc.and_(pc.equal(groups["captions"], 1), pc.greater(groups["caption_count"], 1))
        counts: dict[str, Any] = {
            "mode": self.config.captions,
            "groups_with_one_caption": pc.sum(one).as_py() or 0,
            "groups_with_several": pc.sum(pc.greater(groups["captions"], 1)).as_py() or 0,
            "groups_without": int((sizes > 1).sum()) - groups.num_rows,
        }
        if self.captions.templates is not None:
            counts["templates"] = self.captions.templates.num_rows
        if self.captions.given is not None:
            counts["given"] = self.captions.given.num_rows
        if self.captions.changed:
            counts["changed"] = self.captions.changed
        return counts

    def _active(self) -> NDArray[np.bool_]:
        mask = self.readable.copy()
        mask[np.fromiter(self.blocked, np.int64, len(self.blocked))] = False
        return mask


def decide_run(
    folder: RunFolder,
    config: RunConfig,
    rule: Rule,
    policy: Policy,
    *,
    check: bool = False,
    engine: Engine | None = None,
) -> Verdicts:
    """Decide, and write no verdicts; arguments as for :func:`decide_and_write`.

    Args:
        folder: A run whose samples and edges are there.
        config: What the verdicts answer.
        rule: What makes two samples duplicates.
        policy: Which of them is kept.
        check: Compare samples and edges with what their tasks wrote first.
        engine: Where a large decision is made, in parts that lie in the run folder until it is; in this process and a
            temporary folder by default, and nothing is written into the run folder then.

    Raises:
        DamagedError: Samples or edges are missing or damaged.
    """
    inputs = folder.inputs(signals_of(rule, folder), check=check)
    if engine is None:
        return _decide(folder, config, rule, policy, inputs)
    tasks = PartTasks.of_run(folder, engine, inputs)
    verdicts = _decide(folder, config, rule, policy, inputs, tasks)
    tasks.clear()
    return verdicts


def _decide(
    folder: RunFolder, config: RunConfig, rule: Rule, policy: Policy, inputs: str, tasks: PartTasks | None = None
) -> Verdicts:
    mode = CaptionMode.parse(config.captions)
    names = ["error", *compared_columns(map(find_signal, rule.signals)), *policy_sources(policy)]
    scanned = Scanned(folder, len(config.shards)).holding(names)
    readable = scanned.readable()
    from_sets = blocked_samples(folder, config, readable)
    blocked = from_sets.reasons
    active = readable.copy()
    active[list(blocked)] = False
    signals = {name: find_signal(name).streamed(scanned) for name in rule.signals}
    whole = Whole.of(scanned, config, rule, policy, signals, tasks)
    decision = whole.decide(active, restrict=bool(blocked))
    before = earlier_uses(config, len(active)) if mode.kind == "template" else None
    templates = None
    if mode.kind == "template" and mode.action == "drop":
        tables = []
        while True:
            table, samples = template_samples(scanned, active & (decision.witness < 0), mode.uses, before)
            tables.append(table)
            samples = samples[active[samples]]
            if not len(samples):
                break
            blocked = blocked | dict.fromkeys(samples.tolist(), f"caption of more than {mode.uses} kept samples")
            active[samples] = False
            # What a blocked sample would have stood for needs another witness, or is kept with a caption of its own.
            decision = whole.decide(active, restrict=True)
        templates = pa.concat_tables(tables)
        templates = templates.take(np.argsort(-templates["count"].to_numpy(), kind="stable"))
    decision, families = with_families(whole, decision, scanned, active)
    if templates is None:
        remaining = active if families is None else active & ~families.gone
        facts = caption_facts(scanned, decision, remaining, mode, before)
    else:
        facts = replace(caption_facts(scanned, decision, readable, CaptionMode()), templates=templates)
    in_earlier = whole.witnesses(decision)
    if mode.kind == "merge" and len(in_earlier.samples):
        facts = replace(facts, given=given_captions(scanned, in_earlier, len(active)))
    outside = OutsideWitnesses.gather([from_sets.witnesses, in_earlier])
    return Verdicts(folder, config, inputs, rule, decision, readable, facts, blocked, outside, families)
