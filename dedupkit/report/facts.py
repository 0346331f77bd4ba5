"""Everything a report says, as one JSON-ready object: the content of report.json.

========================  ==============================================================================================
key                       meaning
========================  ==============================================================================================
``format``                version of this layout, 1
``dedupkit``, ``versions``  what made the run
``command``               the shell command that makes it again
``without_vector``        by embedder, the readable images that have no vector: ``count``, ``of``,
                          ``examples`` (``source``, ``key``), ``reason``; embedders that have all vectors are left out
``sources``, ``shards``   what was read: as named by the user, and the number of shards
``shard_problems``        shards not read to their end: ``source``, ``problem``
``rule``, ``keep_policy``  the rule spelled out, the policy
``samples``, ``kept``, ``removed``, ``unreadable``, ``blocked``  counts; they add up
``removed_by_reason``, ``blocked_by_reason``  reason to count
``unreadable_by_reason``  ``reason``, ``count``, ``examples`` (``source``, ``key``); the rarest as one entry
``duplicate_pairs``       pairs that satisfy the rule, counting samples with equal fingerprints as one
``groups``                ``count``, ``samples`` in them, ``singles`` (readable, without a duplicate), ``largest``,
                          ``sizes``: how many groups, samples and removed samples lie ``from``–``to`` in size
``scores``                per reason with a bound: ``signal``, ``bound``, ``similarity`` (else a distance), ``count``,
                          ``min``, ``median``, ``max``, ``bins`` (``from``, ``to``, ``count``, both ends belong to
                          a distance's bin)
``largest_groups``        ``group``, ``size``, ``kept``, ``removed``, ``captions_read``, ``captions_distinct``, and the
                          samples ``shown``
``borderline``            removed samples nearest their bound: ``removed``, ``witness``, one for each kept sample
``calibration``           as in ``calibration.json`` (:mod:`dedupkit.calibration.facts`), with ``current``: whether the
                          rule is still the one that was calibrated; null where the run was not calibrated
``repeated_captions``     within the largest groups: ``caption``, ``count``, ``group``, ``group_size``
========================  ==============================================================================================

A sample is ``sample``, ``source``, ``key``, ``caption`` (cut at 200 characters), ``width``, ``height``, ``nbytes``,
``format``, ``verdict``, ``reason``, ``score``, ``kept_sample``, ``kept_key``, as in the manifest, and ``relation``:
what a removed one that was verified against its witness is of it, in words.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from dedupkit.calibration.result import read_calibration
from dedupkit.report.borderline import nearest_bound
from dedupkit.report.histograms import group_sizes, score_histograms
from dedupkit.report.tables import Manifest, Removed, Tally, clip
from dedupkit.report.words import Atom, command, read_rule
from dedupkit.runfolder.folder import RunFolder
from dedupkit.store import read_columns

__all__ = ["add_relations", "collect", "read_config"]

_GROUPS = 30
_SHOWN_REMOVED = 5
_BORDERLINE = 24
_CAPTIONS_PER_GROUP = 1000
_REPEATED_CAPTIONS = 20
_UNREADABLE_REASONS = 12

_Rule = dict[str, tuple[Atom, ...]]


def read_config(run: Path) -> dict[str, Any]:
    """The content of run.json.

    Raises:
        DedupkitError: there is no finished run.
    """
    folder = RunFolder(run)
    decision = folder.verdicts()
    return {**folder.read_config().to_json(), "edges": decision.summary.get("edges")}


def collect(run: Path) -> dict[str, Any]:
    """Read a finished run's tables and say what they hold; see the table above.

    Args:
        run: the run folder.

    Raises:
        DedupkitError: there is no finished run.
    """
    config, folder = read_config(run), RunFolder(run)
    rule = read_rule(config["rule_expanded"])
    manifest = Manifest(folder.manifest)
    tally = manifest.tally()
    verdicts = {name: tally.verdicts[name] for name in ("keep", "remove", "unreadable", "blocked")}
    sizes = read_columns(folder.groups, ["group", "size", "kept", "removed"])
    grouped = int(np.sum(sizes["size"].to_numpy()))
    calibration = read_calibration(run, config["rule_expanded"])
    largest, captions = _largest_groups(run, sizes, manifest, tally.removed, rule)
    borderline = _borderline(manifest, tally.removed, rule)
    shown = [row for group in largest for row in group["shown"]] + [pair["removed"] for pair in borderline]
    add_relations(folder.edges("verified"), shown)
    return {
        "format": 1,
        "dedupkit": config["dedupkit"],
        "versions": {"python": config.get("python", "unknown"), **config.get("versions", {})},
        "command": command(config, run),
        "sources": config["sources"],
        "shards": len(config["shards"]),
        "shard_problems": folder.shard_problems(),
        "without_vector": folder.without_vector(),
        "rule": config["rule_expanded"],
        "keep_policy": config["keep"],
        "samples": sum(tally.verdicts.values()),
        "kept": verdicts["keep"],
        "removed": verdicts["remove"],
        "unreadable": verdicts["unreadable"],
        "blocked": verdicts["blocked"],
        "removed_by_reason": dict(sorted(tally.reasons.get("remove", {}).items())),
        "blocked_by_reason": dict(sorted(tally.reasons.get("blocked", {}).items())),
        "unreadable_by_reason": _unreadable(manifest, tally),
        "duplicate_pairs": config["edges"],
        "groups": {
            "count": sizes.num_rows,
            "samples": grouped,
            "singles": sum(tally.verdicts.values()) - verdicts["unreadable"] - grouped,
            "largest": int(sizes["size"].to_numpy().max(initial=1)),
            "sizes": group_sizes(sizes["size"].to_numpy(), sizes["removed"].to_numpy()),
        },
        "scores": score_histograms(rule, tally.removed),
        "largest_groups": largest,
        "borderline": borderline,
        "repeated_captions": captions,
        "calibration": None if calibration is None else {**calibration.facts.to_json(), "current": calibration.current},
    }


def add_relations(edges: Path, rows: list[dict[str, Any]]) -> None:
    """Say of each removed sample what it is of its witness, where the pair was verified and that is known."""
    removed = [row for row in rows if row["verdict"] == "remove"]
    words: dict[tuple[int, int], str] = {}
    if removed and edges.exists():
        samples = pa.array(sorted({row[side] for row in removed for side in ("sample", "kept_sample")}), pa.int64())
        with pq.ParquetFile(edges) as file:
            for batch in file.iter_batches(columns=["a", "b", "a_is", "b_is"]):
                near = batch.filter(pc.and_(pc.is_in(batch["a"], samples), pc.is_in(batch["b"], samples)))
                for edge in near.to_pylist():
                    words[edge["a"], edge["b"]], words[edge["b"], edge["a"]] = edge["a_is"], edge["b_is"]
    for row in removed:
        row["relation"] = words.get((row["sample"], row["kept_sample"]))


def _unreadable(manifest: Manifest, tally: Tally) -> list[dict[str, Any]]:
    ranked = sorted(tally.reasons.get("unreadable", Counter()).items(), key=lambda item: (-item[1], item[0]))
    listed, rest = ranked[:_UNREADABLE_REASONS], ranked[_UNREADABLE_REASONS:]
    rows = manifest.rows(sample for reason, _ in listed for sample in tally.examples[reason])
    found: list[dict[str, Any]] = [
        {
            "reason": reason,
            "count": count,
            "examples": [{"source": rows[s]["source"], "key": rows[s]["key"]} for s in tally.examples[reason]],
        }
        for reason, count in listed
    ]
    if rest:
        found.append({"reason": f"other ({len(rest):,} reasons)", "count": sum(n for _, n in rest), "examples": []})
    return found


def _largest_groups(
    run: Path, sizes: pa.Table, manifest: Manifest, removed: Removed, rule: _Rule
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The largest groups with the samples to show, and the captions that come again in them."""
    top = sizes.sort_by([("size", "descending"), ("group", "ascending")]).slice(0, _GROUPS).to_pylist()
    members = _members(run, [item["group"] for item in top])
    shown = [_to_show(members[item["group"]], removed, rule) for item in top]
    rows = manifest.rows(sample for samples in shown for sample in samples)
    counters = _captions(manifest, members)
    groups, repeated = [], []
    for item, samples in zip(top, shown, strict=True):
        counts = counters[item["group"]]
        groups.append(
            item
            | {"captions_read": counts.total(), "captions_distinct": len(counts)}
            | {"shown": [rows[sample] for sample in samples]}
        )
        repeated += [
            {"caption": caption, "count": count, "group": item["group"], "group_size": item["size"]}
            for caption, count in counts.items()
            if count > 1
        ]
    repeated.sort(key=lambda entry: (-entry["count"], entry["group"], entry["caption"]))
    return groups, [entry | {"caption": clip(entry["caption"])} for entry in repeated[:_REPEATED_CAPTIONS]]


def _members(run: Path, groups: list[int]) -> dict[int, NDArray[np.int64]]:
    if not groups:
        return {}
    table = read_columns(RunFolder(run).groups, ["group", "samples"], [("group", "in", groups)])
    lists = (item.values.to_numpy() for item in table["samples"])
    return dict(zip(table["group"].to_pylist(), lists, strict=True))


def _to_show(members: NDArray[np.int64], removed: Removed, rule: _Rule) -> list[int]:
    """The kept sample that most of a group duplicates, then a few of those, from the most to the least alike."""
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


def _captions(manifest: Manifest, members: dict[int, NDArray[np.int64]]) -> dict[int, Counter[str]]:
    """How often each caption comes in each group, over at most a thousand samples spread evenly in it."""
    counters: dict[int, Counter[str]] = {group: Counter() for group in members}
    group_of: dict[int, int] = {}
    for group, samples in members.items():
        group_of |= dict.fromkeys(_spread(samples, _CAPTIONS_PER_GROUP).tolist(), group)
    for sample, caption in manifest.captions(np.fromiter(group_of, np.int64)):
        text = (caption or "").strip()
        if text:
            counters[group_of[sample]][text] += 1
    return counters


def _borderline(manifest: Manifest, removed: Removed, rule: _Rule) -> list[dict[str, Any]]:
    """The removed samples nearest the bound that let them go, as they are shown."""
    pairs = nearest_bound(removed, rule, _BORDERLINE)
    shown = manifest.rows(sample for pair in pairs for sample in pair)
    return [{"removed": shown[sample], "witness": shown[witness]} for sample, witness in pairs]
