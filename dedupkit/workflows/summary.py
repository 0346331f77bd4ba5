"""What a run comes to in numbers: as JSON, and as lines for people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dedupkit.clustering.families import TEMPLATE_REASON
from dedupkit.runfolder import RunConfig, RunFolder
from dedupkit.runfolder.scanned import passed_over, shard_problems, without_vector
from dedupkit.stages.covered import reference_facts, verification_facts
from dedupkit.workflows.projections import projection_facts, projection_rows

__all__ = ["summarize", "summary_rows"]


def summarize(folder: RunFolder, config: RunConfig, counts: Mapping[str, Any]) -> dict[str, Any]:
    """All that is said of a run and its verdicts in numbers, JSON-ready.

    Args:
        folder: Folder of the run.
        config: What was asked of the run, with the rule and policy in force.
        counts: What the decision counted.
    """
    projections = projection_facts(folder, config.embedders)
    verification = verification_facts(folder, config)
    missing = without_vector(folder, config.shards, config.embedders)
    return {
        "out": folder.shown,
        "rule": config.rule_expanded,
        **counts,
        "shards": len(config.shards),
        "shard_problems": shard_problems(folder, config.shards),
        "passed_over": passed_over(folder),
        "without_vector": missing,
        "recall": _recalls(folder, config, missing),
        **({"projections": projections} if projections else {}),
        **({"verification": verification} if verification else {}),
        "references": reference_facts(folder, counts.get("by_reference", [])),
    }


def _recalls(folder: RunFolder, config: RunConfig, missing: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The measured recall of each embedder's search, over the pairs at or above its floor of images with a vector.

    An image without a vector takes part in no pair, so ``without_vector`` says how many there are.
    """
    joined = {name: folder.joined(name) for name in config.embedders}
    return {
        name: {**facts["recall"], "without_vector": missing.get(name, {}).get("count", 0)}
        for name, facts in joined.items()
        if facts and "recall" in facts
    }


def summary_rows(summary: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What :func:`summarize` gives as label and text, for tables."""
    reasons = dict(summary["reasons"])
    capped = reasons.pop(TEMPLATE_REASON, 0)
    samples = summary["samples"]
    earlier, against = _reference_rows(summary.get("references", []))
    shown = [
        ("samples read", f"{samples:,} in {summary['shards']:,} shard{'s' * (summary['shards'] != 1)}"),
        ("kept", _of(summary["keep"], samples)),
        ("removed as duplicates", _of(summary["remove"] - capped, samples)),
        *((f"  because of {reason}", f"{count:,}") for reason, count in reasons.items()),
        *earlier,
        *([("removed by the family cap", _of(capped, samples))] if capped else []),
        ("unreadable", f"{summary['unreadable']:,}"),
        *([("blocked", f"{summary['blocked']:,}")] if against or summary.get("blocked") else []),
        *against,
        ("duplicate groups", f"{summary['groups']:,}, the largest of {summary['largest_group']:,}"),
        *_family_rows(summary),
        ("rule", summary["rule"]),
    ]
    for name, recall in summary["recall"].items():
        if recall["low"] < 1 or recall["without_vector"]:
            interval = "not known, as no image of the sample has a pair"
            if recall["estimate"] is not None:
                interval = f"{recall['estimate']:.4f} [{recall['low']:.4f}, {recall['high']:.4f}]"
            among = " among images that have a vector" if recall["without_vector"] else ""
            shown.append((f"recall of {name}", interval + among))
    shown += projection_rows(summary.get("projections", {}))
    if "verification" in summary:
        shown += _verification_rows(summary["verification"])
    for name, missing in summary["without_vector"].items():
        named = ", ".join(example["key"] for example in missing["examples"])
        shown.append((f"without a vector of {name}", f"{missing['count']:,} of {missing['of']:,}, such as {named}"))
    if summary["passed_over"]["count"]:
        left = summary["passed_over"]
        shown.append(("passed over: no samples", f"{left['count']:,}, such as {left['example']}"))
    return shown + [("shard not read to its end", p["source"] + ": " + p["problem"]) for p in summary["shard_problems"]]


def _of(part: int, samples: int) -> str:
    return f"{part:,}  ({part / max(samples, 1):.1%})"


def _reference_rows(references: list[dict[str, Any]]) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """What came of each earlier run, and of each reference set with the lines of lists that could not be used."""
    earlier: list[tuple[str, str]] = []
    against: list[tuple[str, str]] = []
    for each in references:
        shown, done = (earlier, "removed") if each["role"] == "earlier" else (against, "blocked")
        shown.append((f"  {done} for {each['name']}", f"{each['samples']:,}, of {each['rows']:,} rows compared"))
        if each["malformed"]:
            example = each["examples"][0]
            shown.append((f"  malformed lines in {each['name']}", f"{each['malformed']:,}, such as {example}"))
        if each["flat"]:
            shown.append((f"  hashes of quality below 50 in {each['name']}", f"{each['flat']:,}, not compared"))
        shown += _left_out_rows(each)
    return earlier, against


def _left_out_rows(reference: dict[str, Any]) -> list[tuple[str, str]]:
    """What of a set of images could not be compared."""
    name, unreadable = reference["name"], reference["unreadable"]
    return [
        *((f"  not read to its end in {name}", f"{p['source']}: {p['problem']}") for p in reference["shard_problems"]),
        *([(f"  unreadable in {name}", f"{unreadable:,}, not compared")] if unreadable else []),
        *(
            (f"  without a vector of {embedder} in {name}", f"{missing['count']:,} of {missing['of']:,}")
            for embedder, missing in reference["without_vector"].items()
        ),
    ]


def _verification_rows(seen: dict[str, Any]) -> list[tuple[str, str]]:
    """How many pairs were looked at again, within the run and with references."""
    shown = [("verification", _looked(seen)), *_unseen_rows(seen)] if "candidates" in seen else []
    if seen.get("capped"):
        full = f"{seen['capped']:,} kept images: a copy behind them would stay"
        shown.append(("  neighbour lists full for", full))
    for name, share in seen.get("planted", {}).items():
        if share["estimate"] is not None:
            held, of = round(share["estimate"] * share["above_floor"]), share["above_floor"]
            interval = f"{held:,} of {of:,} (95 %: {share['low']:.4g} to {share['high']:.4g})"
            shown.append((f"  planted copies that the lists of {name} hold", interval))
    if "references" in seen:
        shown += [("verification with references", _looked(seen["references"])), *_unseen_rows(seen["references"])]
    return shown


def _unseen_rows(seen: Mapping[str, Any]) -> list[tuple[str, str]]:
    count = seen.get("unseen", 0)
    return [("  not looked at", f"{count:,}, as an image could not be read again")] if count else []


def _looked(seen: dict[str, Any]) -> str:
    found = f"{seen['candidates']:,} candidate pairs, {seen['looked_at']:,} looked at in {seen['rounds']} rounds"
    return f"{found}, {seen['verified']:,} hold"


def _family_rows(summary: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Families of one template, where there are any."""
    found = summary.get("families")
    if not found or not found["families"]:
        return []
    text = f"{found['families']:,}, {found['in_families']:,} samples, the largest of {found['largest']:,}"
    return [("template families", text)]
