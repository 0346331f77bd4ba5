"""The tables: results of all arms and seeds as one object, and as Markdown."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from memorization.arms import ARMS
from memorization.metric import mcnemar, proportion

__all__ = ["as_markdown", "read_results", "summarise"]

Result = dict[str, Any]
Image = dict[str, Any]


def read_results(folder: Path) -> list[Result]:
    """Read the files of all arms and seeds, in the order of the arms."""
    found = [json.loads(path.read_text()) for path in folder.glob("*-*.json")]
    return sorted(found, key=lambda result: (ARMS.index(result["arm"]), result["seed"]))


def summarise(results: Sequence[Result]) -> dict[str, Any]:
    """Extraction by arm and number of copies, at the reading point and at the others, pooled over seeds.

    Images are counted once for each seed. The intervals take samples as independent, which those of one image are not;
    the intervals of ``images`` do not lean on that.
    """
    reading = max(result["settings"]["steps"] for result in results)
    arms = {}
    for name in dict.fromkeys(result["arm"] for result in results):
        runs = [result for result in results if result["arm"] == name]
        steps = sorted({point["step"] for run in runs for point in run["points"]})
        arms[name] = {
            "seeds": [run["seed"] for run in runs],
            "left_by": runs[0]["left_by"],
            "rows": [run["rows"] for run in runs],
            "copies_left": _left(runs),
            "reading": _at(runs, reading),
            "equal_epochs": _at(runs, None),
            "by_seed": {run["seed"]: _of_seed(run, reading) for run in runs},
            "steps": {step: _at(runs, step) for step in steps},
            "by_caption": {
                mode: _extracted(
                    runs,
                    reading,
                    lambda im, mode=mode: im["part"] == "train" and im["copies"] >= 10 and im["captions"] == mode,
                )
                for mode in ("one", "several")
            },
            "by_copies_left": _by_left(runs, reading),
            "nearest_edit_of_extracted": _edits(runs, reading),
        }
    raw = arms.get("raw", {}).get("reading")
    most = max(image["copies"] for image in results[0]["images"])
    void = (
        None
        if raw is None
        else not (raw[str(most)]["samples"]["share"] >= 0.5 and raw["floor"]["samples"]["share"] <= 0.01)
    )
    return {"reading_step": reading, "void": void, "arms": arms, "mcnemar_against_raw": _tests(results, reading)}


def _point(run: Result, step: int | None) -> dict[str, Any] | None:
    """What was measured after a step, without one after as many epochs as raw's."""
    step = run["equal_epochs_step"] if step is None else step
    return next((point for point in run["points"] if point["step"] == step), None)


def _extracted(
    runs: Sequence[Result], step: int | None, which: Callable[[Image], bool], of: str = "hits"
) -> dict[str, Any]:
    hits = images = samples = count = 0
    for run in runs:
        point = _point(run, step)
        if point is None:
            continue
        each = run["settings"]["samples_per_image"]
        for image, found in zip(run["images"], point[of], strict=True):
            if which(image):
                hits, samples = hits + found, samples + each
                images, count = images + (found > 0), count + 1
    return {"samples": proportion(hits, samples), "images": proportion(images, count)}


def _at(runs: Sequence[Result], step: int | None) -> dict[str, Any]:
    ks = sorted({image["copies"] for image in runs[0]["images"] if image["part"] == "train"}, reverse=True)
    losses = [point["loss"] for run in runs if (point := _point(run, step))]
    table: dict[str, Any] = {"step": runs[0]["equal_epochs_step"] if step is None else step, "loss": losses}
    groups: dict[str, Callable[[Image], bool]] = {
        str(k): lambda image, k=k: image["part"] == "train" and image["copies"] == k for k in ks
    }
    groups["50 and more"] = lambda image: image["part"] == "train" and image["copies"] >= 50
    groups["floor"] = lambda image: image["part"] == "unseen"
    for label, which in groups.items():
        table[label] = _extracted(runs, step, which)
    for name in ("row_ratio", "carlini_ratio"):
        table[name] = _extracted(runs, step, groups["50 and more"], name)
    table["floor_any_cluster"] = _extracted(runs, step, groups["floor"], "any_cluster")
    return table


def _of_seed(run: Result, reading: int) -> dict[str, Any]:
    """Extraction of what occurs 50 times and more, and the loss, of one seed."""
    tables = {"reading": _at([run], reading), "equal_epochs": _at([run], None)}
    return {name: {key: table[key] for key in ("50 and more", "loss")} for name, table in tables.items()}


def _left(runs: Sequence[Result]) -> dict[str, Any]:
    """Mean number of copies that an arm leaves, by the number planted; and by edit, of photos with 10 and more."""
    planted: dict[str, list[int]] = {}
    edits: dict[str, int] = {}
    for image in (image for run in runs for image in run["images"] if image["part"] == "train"):
        planted.setdefault(str(image["copies"]), []).append(image["left"])
        if image["copies"] >= 10:
            for edit, count in image["left_edits"].items():
                edits[edit] = edits.get(edit, 0) + count
    shares = {edit: round(count / len(runs), 2) for edit, count in edits.items()}
    return {"by_copies": {k: round(float(np.mean(v)), 2) for k, v in planted.items()}, "edits": shares}


_LEFT = ((0, 0), (1, 1), (2, 2), (3, 5), (6, 10), (11, 20), (21, 50), (51, 100), (101, 1000))


def _by_left(runs: Sequence[Result], step: int) -> dict[str, Any]:
    return {
        f"{low}" if low == high else f"{low}–{high}": _extracted(
            runs, step, lambda im, low=low, high=high: im["part"] == "train" and low <= im["left"] <= high
        )
        for low, high in _LEFT
    }


def _edits(runs: Sequence[Result], step: int) -> dict[str, int]:
    total: dict[str, int] = {}
    for run in runs:
        for edit, count in (_point(run, step) or {"nearest_edit_of_extracted": {}})[
            "nearest_edit_of_extracted"
        ].items():
            total[edit] = total.get(edit, 0) + count
    return dict(sorted(total.items()))


def _tests(results: Sequence[Result], step: int) -> dict[str, Any]:
    """McNemar over images with 10 copies and more, each once a seed, of the seeds that both arms have."""
    found: dict[str, dict[int, list[bool]]] = {}
    for run in results:
        point = _point(run, step)
        if point is not None:
            found.setdefault(run["arm"], {})[run["seed"]] = [
                hits > 0 for image, hits in zip(run["images"], point["hits"], strict=True)
                if image["part"] == "train" and image["copies"] >= 10
            ]  # fmt: skip
    tests = {}
    for arm, seeds in found.items():
        shared = sorted(set(seeds) & set(found.get("raw", {})))
        if arm != "raw" and shared:
            first, second = (np.concatenate([found[name][seed] for seed in shared]) for name in ("raw", arm))
            tests[arm] = {"seeds": shared, "images": len(first), **mcnemar(first, second)}
    return tests


def as_markdown(summary: dict[str, Any]) -> str:
    """The main tables."""
    arms = summary["arms"]
    ks = [key for key in next(iter(arms.values()))["reading"] if key.isdigit()]
    lines = []
    for title, at in (("Equal steps, the reading point", "reading"), ("Equal epochs", "equal_epochs")):
        lines += [f"{title}: share of samples extracted (of images, at least one of eight)", ""]
        lines += [f"| arm | rows | step | {' | '.join(f'k = {k}' for k in ks)} | floor | held-out loss |"]
        lines += ["|---" * (len(ks) + 5) + "|"]
        for name, arm in arms.items():
            table = arm[at]
            cells = [_cell(table[k]) for k in (*ks, "floor")]
            loss = ", ".join(f"{value:.4f}" for value in table["loss"])
            rows = "–".join(f"{count:,}" for count in sorted(set(arm["rows"])))
            lines.append(f"| {name} | {rows} | {table['step']:,} | {' | '.join(cells)} | {loss} |")
        lines.append("")
    lines += ["Images with k ≥ 50: share of samples extracted with its 95 % interval, by three tests", ""]
    lines += [
        "| arm | seeds | by clusters | usual ratio | 50 neighbours | copies left of 100 | McNemar p |",
        "|---" * 7 + "|",
    ]
    for name, arm in arms.items():
        table, test = arm["reading"], summary["mcnemar_against_raw"].get(name)
        said = [_interval(table[key]["samples"]) for key in ("50 and more", "row_ratio", "carlini_ratio")]
        left, p = arm["copies_left"]["by_copies"].get("100", ""), f"{test['p']:.2g}" if test else ""
        lines.append(f"| {name} | {len(arm['seeds'])} | {' | '.join(said)} | {left} | {p} |")
    lines += ["", "By seed: share of samples extracted of images with k ≥ 50 (of images), and held-out loss", ""]
    lines += ["| arm | seed | equal steps | loss | equal epochs | loss |", "|---" * 6 + "|"]
    for name, arm in arms.items():
        for seed, at in arm["by_seed"].items():
            tables = [at[key] for key in ("reading", "equal_epochs")]
            cells = [f"{_cell(table['50 and more'])} | {table['loss'][0]:.4f}" for table in tables]
            lines.append(f"| {name} | {seed} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _cell(group: dict[str, Any]) -> str:
    samples, images = group["samples"]["share"], group["images"]["share"]
    return "" if samples is None else f"{samples:.2f} ({images:.2f})"


def _interval(share: dict[str, Any]) -> str:
    return "" if share["share"] is None else f"{share['share']:.3f} ({share['low']:.3f}–{share['high']:.3f})"
