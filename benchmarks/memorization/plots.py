"""The plots, from the summary."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("svg")
mpl.rcParams.update({"svg.hashsalt": "dedupkit", "font.size": 9, "svg.fonttype": "none"})
from matplotlib import pyplot as plt  # noqa: E402

__all__ = ["points_of", "write_plots"]

_LABELS = {
    "raw": "raw",
    "exact": "exact hashes",
    "imagededup": "imagededup PHash",
    "copies": "dedupkit copies",
    "crops": "dedupkit crops",
    "thorough": "dedupkit thorough",
    "random": "as many at random",
    "oracle": "oracle",
}
_COLOURS = {
    "raw": "#444444", "exact": "#999999", "imagededup": "#d95f02", "copies": "#a6cee3", "crops": "#1f78b4",
    "thorough": "#1b9e77", "random": "#cab2d6", "oracle": "#e7298a",
}  # fmt: skip


def write_plots(summary: dict[str, Any], folder: Path) -> None:
    """Write ``memorization-extraction.svg``, ``memorization-steps.svg`` and ``memorization-blind.svg``."""
    folder.mkdir(parents=True, exist_ok=True)
    _extraction(summary, folder / "memorization-extraction.svg")
    _steps(summary, folder / "memorization-steps.svg")
    _blind(summary, folder / "memorization-blind.svg")


def _save(figure: Any, path: Path) -> None:
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def _extraction(summary: dict[str, Any], path: Path) -> None:
    figure, axes = plt.subplots(figsize=(6, 3))
    first = next(iter(summary["arms"].values()))["reading"]
    ks = sorted((key for key in first if key.isdigit()), key=int)
    places = [int(k) for k in ks]
    for name in ("raw", "exact", "imagededup", "thorough"):
        if name not in summary["arms"]:
            continue
        table = summary["arms"][name]["reading"]
        shares = [table[k]["samples"] for k in ks]
        wide = {"linewidth": 4, "markersize": 9} if name == "imagededup" else {}  # seen where another line covers it
        axes.plot(places, [share["share"] for share in shares], "o-", color=_COLOURS[name], label=_LABELS[name], **wide)
        low, high = ([share[end] for share in shares] for end in ("low", "high"))
        axes.fill_between(places, low, high, color=_COLOURS[name], alpha=0.12, linewidth=0)
    axes.set_xscale("log")
    axes.set_xticks(places, ks)
    axes.minorticks_off()
    axes.set(xlabel="edited copies of the photo in the raw set", ylabel="samples that copy it", ylim=(-0.03, 1.03))
    axes.legend(frameon=False)
    _save(figure, path)


def _steps(summary: dict[str, Any], path: Path) -> None:
    figure, axes = plt.subplots(1, 2, figsize=(8, 3))
    for name, arm in summary["arms"].items():
        points = points_of(arm)
        steps = [point["step"] for point in points]
        shares = [point["50 and more"]["samples"]["share"] for point in points]
        axes[0].plot(steps, shares, "o-", markersize=3, color=_COLOURS[name], label=_LABELS[name])
        losses = [sum(point["loss"]) / len(point["loss"]) for point in points]
        axes[1].plot(steps, losses, "o-", markersize=3, color=_COLOURS[name])
    axes[0].set(xlabel="steps", ylabel="samples that copy it, k ≥ 50", ylim=(-0.03, 1.03))
    axes[1].set(xlabel="steps", ylabel="loss on held-out photos")
    axes[0].legend(frameon=False, fontsize=7)
    _save(figure, path)


def points_of(arm: dict[str, Any]) -> list[dict[str, Any]]:
    """What all seeds were measured at, by step; that of equal epochs is one point, also where seeds differ in rows."""
    whole = [point for point in arm["steps"].values() if len(point["loss"]) == len(arm["seeds"])]
    found = {point["step"]: point for point in (arm["equal_epochs"], *whole)}
    return [found[step] for step in sorted(found)]


def _blind(summary: dict[str, Any], path: Path) -> None:
    """The same samples by three tests: those that look at training rows see less where copies are in the set."""
    tests = (
        ("50 and more", "clusters, fixed reference"),
        ("row_ratio", "usual ratio"),
        ("carlini_ratio", "50 neighbours"),
    )
    figure, axes = plt.subplots(figsize=(6, 3))
    arms = summary["arms"]
    for shift, (key, label) in enumerate(tests):
        shares = [arm["reading"][key]["samples"]["share"] for arm in arms.values()]
        places = [place + (shift - 1) * 0.27 for place in range(len(arms))]
        bars = axes.bar(places, [share or 0 for share in shares], 0.25, label=label)
        zeros = ["0" if share == 0 else "" for share in shares]  # a bar without height is not seen
        axes.bar_label(bars, zeros, padding=1, fontsize=7, color=bars[0].get_facecolor())
    axes.set_xticks(range(len(arms)), [_LABELS[name].replace(" ", "\n") for name in arms], fontsize=7)
    axes.set(ylabel="samples called copies, k ≥ 50", ylim=(0, 1.03))
    axes.legend(frameon=False, fontsize=7)
    _save(figure, path)
