"""Read a finished run and say what a report says of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dedupkit.calibration.result import read_calibration
from dedupkit.manifest.shown import clip
from dedupkit.memorization.risk import measure_risk
from dedupkit.report.borderline import nearest_bound
from dedupkit.report.captions import caption_facts
from dedupkit.report.facts import (
    FORMAT,
    BorderlinePair,
    CalibrationState,
    Example,
    Groups,
    LargeGroup,
    Looked,
    Missing,
    PassedOver,
    PlantedCopies,
    ReferenceFacts,
    ReportFacts,
    Sample,
    ShardProblem,
    Unreadable,
    Verification,
)
from dedupkit.report.families import families_shown
from dedupkit.report.histograms import group_sizes, score_histograms
from dedupkit.report.relations import relations
from dedupkit.report.tables import Manifest, Removed, Tally
from dedupkit.report.words import Atom, command, read_rule
from dedupkit.runfolder import RunConfig, RunFolder
from dedupkit.runfolder.scanned import passed_over, shard_problems, without_vector
from dedupkit.stages.covered import reference_facts, verification_facts
from dedupkit.store import read_columns
from dedupkit.store.schema import from_json

__all__ = ["collect"]

_GROUPS = 30
_RISKS = 12  # of these groups, as what a model may memorize
_SHOWN_REMOVED = 5
_BORDERLINE = 24
_UNREADABLE_REASONS = 12

_Rule = dict[str, tuple[Atom, ...]]


def collect(run: Path) -> ReportFacts:
    """Read the tables of a finished run, and say what they hold.

    Args:
        run: The run folder.

    Raises:
        DedupkitError: There is no finished run.
    """
    folder = RunFolder(run)
    summary = folder.verdicts().summary
    config = folder.read_config()
    rule = read_rule(config.rule_expanded, config.embedders)
    manifest = Manifest(folder.manifest)
    tally = manifest.tally()
    verdicts = tally.verdicts
    shown = _Shown(folder, manifest)
    left = passed_over(folder)
    calibration = read_calibration(run, config.rule_expanded)
    return ReportFacts(
        format=FORMAT,
        dedupkit=config.dedupkit,
        versions={"python": config.python, **config.versions},
        command=command(config),
        sources=config.sources,
        shards=len(config.shards),
        shard_problems=tuple(ShardProblem(**problem) for problem in shard_problems(folder, config.shards)),
        passed_over=PassedOver(left["count"], clip(left.get("example"))),
        without_vector={
            name: from_json(Missing, missing)
            for name, missing in without_vector(folder, config.shards, config.embedders).items()
        },
        rule=config.rule_expanded,
        keep_policy=config.keep,
        samples=sum(verdicts.values()),
        kept=verdicts["keep"],
        removed=verdicts["remove"],
        unreadable=verdicts["unreadable"],
        blocked=verdicts["blocked"],
        removed_by_reason=dict(sorted(tally.reasons.get("remove", {}).items())),
        blocked_by_reason=dict(sorted(tally.reasons.get("blocked", {}).items())),
        unreadable_by_reason=_unreadable(manifest, tally),
        duplicate_pairs=int(summary["edges"]),
        groups=_groups(folder, verdicts["keep"]),
        scores=score_histograms(rule, tally.removed),
        largest_groups=_largest_groups(shown, folder, tally.removed, rule),
        borderline=_borderline(shown, tally.removed, rule),
        captions=caption_facts(folder, summary.get("captions", {})),
        calibration=None if calibration is None else CalibrationState(calibration.facts, calibration.current),
        risk=measure_risk(run, _RISKS),
        references=tuple(
            from_json(ReferenceFacts, found) for found in reference_facts(folder, summary.get("by_reference", []))
        ),
        families=families_shown(folder, config.templates, shown.get),
        verification=_verification(folder, config),
    )


class _Shown:
    """The samples of a run as they are shown, with what a removed one is of its witness.

    Args:
        folder: Folder of the run.
        manifest: Its manifest.
    """

    def __init__(self, folder: RunFolder, manifest: Manifest) -> None:
        self._verified, self._templates = folder.edges("verified"), folder.edges("template")
        self._manifest = manifest

    def get(self, samples: Iterable[int]) -> dict[int, Sample]:
        """Some samples, by number."""
        rows = self._manifest.rows(samples)
        pairs = {
            (row.sample, row.kept_sample): row
            for row in rows.values()
            if row.verdict == "remove" and row.kept_source is None
        }
        asked = [(a, b) for a, b in pairs if b is not None]
        known = relations(self._templates, asked) | relations(self._verified, asked)
        return rows | {a: replace(rows[a], relation=words) for (a, _), words in known.items()}


def _groups(folder: RunFolder, kept: int) -> Groups:
    table = read_columns(folder.groups, ["size", "kept", "removed"])
    sizes, kept_in_groups, removed = (table[name].to_numpy() for name in ("size", "kept", "removed"))
    return Groups(
        count=len(sizes),
        samples=int(sizes.sum()),
        singles=kept - int(kept_in_groups.sum()),
        largest=int(sizes.max(initial=1)),
        sizes=group_sizes(sizes, removed),
    )


def _unreadable(manifest: Manifest, tally: Tally) -> tuple[Unreadable, ...]:
    ranked = sorted(tally.reasons.get("unreadable", Counter()).items(), key=lambda item: (-item[1], item[0]))
    listed, rest = ranked[:_UNREADABLE_REASONS], ranked[_UNREADABLE_REASONS:]
    rows = manifest.rows(sample for reason, _ in listed for sample in tally.examples[reason])
    found = [
        Unreadable(reason, count, tuple(Example(rows[s].source, rows[s].key) for s in tally.examples[reason]))
        for reason, count in listed
    ]
    if rest:
        found.append(Unreadable(f"other ({len(rest):,} reasons)", sum(count for _, count in rest), ()))
    return tuple(found)


def _verification(folder: RunFolder, config: RunConfig) -> Verification | None:
    found = verification_facts(folder, config)
    if not found:
        return None
    planted = {name: from_json(PlantedCopies, share) for name, share in found.get("planted", {}).items()}
    within = found if "candidates" in found else None
    return Verification(_looked(within), _looked(found.get("references")), planted)


def _looked(counts: Mapping[str, Any] | None) -> Looked | None:
    if counts is None:
        return None
    return Looked(**{field.name: int(counts.get(field.name, 0)) for field in fields(Looked)})


def _largest_groups(shown: _Shown, folder: RunFolder, removed: Removed, rule: _Rule) -> tuple[LargeGroup, ...]:
    columns = ["group", "size", "kept", "removed", "captions", "caption", "caption_count"]
    sizes = read_columns(folder.groups, columns)
    top = sizes.sort_by([("size", "descending"), ("group", "ascending")]).slice(0, _GROUPS).to_pylist()
    members = _members(folder, [item["group"] for item in top])
    chosen = [_to_show(members[item["group"]], removed, rule) for item in top]
    rows = shown.get(sample for samples in chosen for sample in samples)
    return tuple(
        LargeGroup(**item | {"caption": clip(item["caption"])}, shown=tuple(rows[sample] for sample in samples))
        for item, samples in zip(top, chosen, strict=True)
    )


def _members(folder: RunFolder, groups: list[int]) -> dict[int, NDArray[np.int64]]:
    if not groups:
        return {}
    table = read_columns(folder.groups, ["group", "samples"], [("group", "in", groups)])
    lists = (item.values.to_numpy() for item in table["samples"])
    return dict(zip(table["group"].to_pylist(), lists, strict=True))


def _to_show(members: NDArray[np.int64], removed: Removed, rule: _Rule) -> list[int]:
    """The kept sample that most of a group duplicates, then a few of its duplicates, the most alike first."""
    place = np.searchsorted(removed.sample, members)
    gone = place[np.append(removed.sample, -1)[place] == members]
    witnesses, counts = np.unique(removed.witness[gone], return_counts=True)
    if not len(witnesses):
        return [int(sample) for sample in members[: _SHOWN_REMOVED + 1]]
    kept = int(witnesses[np.argmax(counts)])
    own = gone[removed.witness[gone] == kept]
    order = {reason: number for number, reason in enumerate(rule)}
    first = np.array([order.get(name, len(order)) for name in removed.reasons])[removed.reason[own]]
    flips = [bool(rule.get(name) and rule[name][0].similarity) for name in removed.reasons]
    unlike = np.where(np.array(flips)[removed.reason[own]], -removed.score[own], removed.score[own])
    alike = np.lexsort((own, unlike, first))
    changes = np.append(True, (np.diff(first[alike]) != 0) | (np.diff(unlike[alike]) != 0))
    different, same = np.flatnonzero(changes), np.flatnonzero(~changes)
    spread = np.sort(np.concatenate([_spread(different, _SHOWN_REMOVED), same])[:_SHOWN_REMOVED])
    return [*([kept] if kept >= 0 else []), *removed.sample[own[alike[spread]]].tolist()]


def _spread(values: NDArray[np.int64], most: int) -> NDArray[np.int64]:
    """At most so many of the values, evenly spaced, the first and the last among them."""
    return values[np.linspace(0, len(values) - 1, min(len(values), most)).round().astype(np.int64)]


def _borderline(shown: _Shown, removed: Removed, rule: _Rule) -> tuple[BorderlinePair, ...]:
    """The removed samples nearest the bound of their reason, as they are shown."""
    pairs = nearest_bound(removed, rule, _BORDERLINE)
    rows = shown.get(sample for pair in pairs for sample in pair)
    return tuple(BorderlinePair(rows[sample], rows[witness]) for sample, witness in pairs)
