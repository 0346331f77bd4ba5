"""The second and third plan: how many byte-identical copies an edited copy counts for, by kind of edit (kinds.md)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from memorization.metric import proportion
from memorization.planted import EDITS, Plan

__all__ = ["PLANS", "Curve", "as_markdown", "kinds_plan", "summarise"]

_EXACT = {
    "kinds": ((4, 2), (4, 5), (6, 10), (6, 20), (5, 30), (5, 50), (3, 100)),
    "few": ((10, 2), (10, 3), (10, 4), (10, 5), (10, 7), (10, 10)),
}
"""Photos with byte copies, and how many of each, by plan."""
_EDITED = {"kinds": (5, 40), "few": (10, 5)}
"""The same for each kind of edit."""
_DRAWS = 2000

PLANS = tuple(_EXACT)


def kinds_plan(name: str, seed: int) -> Plan:
    """Photos with byte copies, photos with copies of one kind, and a thousand that occur once; ``kinds`` or ``few``."""
    exact = [(photos, copies, "exact") for photos, copies in _EXACT[name]]
    kinds = [(*_EDITED[name], kind) for kind in (*EDITS, "all")]
    return Plan(((1000, 1),), ((48, 1),), (*exact, *kinds), seed=seed)


class Curve:
    """Extraction of byte-identical copies, monotone in their number and linear in its logarithm between them.

    Args:
        groups: Extracted share of each photo, by number of copies.

    Example:
        >>> curve = Curve({1: np.zeros(2), 10: np.zeros(2), 100: np.ones(2)})
        >>> round(curve.at(31.6), 2), [round(k) for k in curve.copies(0.5)]
        (0.5, [32, 32])
    """

    def __init__(self, groups: Mapping[int, NDArray[np.float64]]) -> None:
        from scipy.optimize import isotonic_regression

        ks = sorted(groups)
        means, photos = [groups[k].mean() for k in ks], [len(groups[k]) for k in ks]
        self._logs = np.log(ks)
        self.shares = isotonic_regression(means, weights=photos).x

    def at(self, copies: float) -> float:
        """Share at a number of copies."""
        return float(np.interp(np.log(copies), self._logs, self.shares))

    def copies(self, share: float) -> tuple[float, float]:
        """Where the curve reaches a share and where it leaves it: 0 if it begins there, infinity if it never does."""
        low, high = (int(np.searchsorted(self.shares, share, side)) for side in ("left", "right"))
        return (self._crossing(low, share) if low else 0.0), (
            self._crossing(high, share) if high < len(self.shares) else np.inf
        )

    def _crossing(self, place: int, share: float) -> float:
        """Number of copies between the points before and at a place, at the ends that of the point."""
        if place in (0, len(self.shares)):
            return float(np.exp(self._logs[max(place - 1, 0)]))
        before, after = self.shares[place - 1 : place + 1]
        part = (share - before) / (after - before)
        return float(np.exp(self._logs[place - 1] + part * (self._logs[place] - self._logs[place - 1])))


def summarise(results: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The curve and ρ of each kind at the reading point and before; photos of all seeds are pooled."""
    reading = results[0]["settings"]["steps"]
    points = {str(step): _at(results, step) for step in sorted({p["step"] for r in results for p in r["points"]})}
    most, floor = points[str(reading)]["curve"][-1], points[str(reading)]["floor"]
    return {
        "reading_step": reading,
        "seeds": [result["seed"] for result in results],
        "void": not (most["share"] >= 0.5 and floor["share"] <= 0.01),
        "loss": [point["loss"] for r in results for point in r["points"] if point["step"] == reading],
        "points": points,
    }


def _at(results: Sequence[dict[str, Any]], step: int) -> dict[str, Any]:
    shares = _shares(results, step)
    exact = {k: values for (kind, k), values in shares.items() if kind == "exact"}
    kinds = {group: values for group, values in shares.items() if group[0] not in ("exact", "unseen")}
    curve = Curve(exact)
    rng = np.random.default_rng(0)
    drawn = [Curve({k: rng.choice(values, len(values)) for k, values in exact.items()}) for _ in range(_DRAWS)]
    table = {}
    for (kind, copies), values in kinds.items():
        ends = np.array([other.copies(rng.choice(values, len(values)).mean()) for other in drawn]) / copies
        interval = [np.quantile(ends[:, 0], 0.025, method="lower"), np.quantile(ends[:, 1], 0.975, method="higher")]
        rho = [end / copies for end in curve.copies(values.mean())]
        table[kind] = _proportion(values) | {
            "photos": len(values),
            "copies": copies,
            "rho": _ends(rho),
            "interval": _ends(interval),
        }
    return {
        "curve": [
            {"copies": k, "photos": len(exact[k]), **_proportion(exact[k]), "monotone": round(float(share), 4)}
            for k, share in zip(sorted(exact), curve.shares, strict=True)
        ],
        "kinds": table,
        "floor": _proportion(shares["unseen", 1]),
    }


def _shares(results: Sequence[dict[str, Any]], step: int) -> dict[tuple[str, int], NDArray[np.float64]]:
    """Extracted share of each photo, by kind and number of copies."""
    groups: dict[tuple[str, int], list[float]] = {}
    for result in results:
        each = result["settings"]["samples_per_image"]
        point = next(point for point in result["points"] if point["step"] == step)
        for image, hits in zip(result["images"], point["hits"], strict=True):
            groups.setdefault((_kind(image), image["copies"]), []).append(hits / each)
    return {group: np.array(values) for group, values in groups.items()}


def _kind(image: dict[str, Any]) -> str:
    if image["part"] == "unseen":
        return "unseen"
    kinds = set(image["left_edits"]) - {"original"}
    return "exact" if not kinds else kinds.pop() if len(kinds) == 1 else "all"


def _proportion(shares: NDArray[np.float64], each: int = 8) -> dict[str, Any]:
    return proportion(round(float(shares.sum()) * each), len(shares) * each)


def _ends(pair: Sequence[float]) -> list[float | None]:
    """For JSON, which has no infinity."""
    return [None if np.isinf(end) else round(float(end), 3) for end in pair]


def as_markdown(summary: dict[str, Any]) -> str:
    """The curve and the table of kinds, at both steps."""
    lines = []
    for step, point in summary["points"].items():
        lines += [f"Byte copies after {int(step):,} steps: share of samples extracted", ""]
        lines += [f"| copies | {' | '.join(str(k['copies']) for k in point['curve'])} | floor |"]
        lines += ["|---" * (len(point["curve"]) + 2) + "|"]
        lines += [f"| photos | {' | '.join(str(k['photos']) for k in point['curve'])} | |"]
        lines += [f"| share | {' | '.join(_share(k) for k in (*point['curve'], point['floor']))} |", ""]
        lines += ["| kind | photos | share (95 %) | ρ | 95 % interval of ρ |", "|---" * 5 + "|"]
        for kind, row in sorted(point["kinds"].items(), key=lambda item: -item[1]["share"]):
            said = f"{row['share']:.2f} ({row['low']:.2f}–{row['high']:.2f})"
            lines.append(f"| {kind} | {row['photos']} | {said} | {_range(row['rho'])} | {_range(row['interval'])} |")
        lines.append("")
    return "\n".join(lines)


def _share(row: dict[str, Any]) -> str:
    return f"{row['share']:.2f}"


def _range(ends: Sequence[float | None]) -> str:
    low, high = ends
    if high is None:
        return "any" if not low else f"at least {low:.2f}"
    if not low:
        return f"at most {high:.2f}"
    return f"{low:.2f}" if f"{low:.2f}" == f"{high:.2f}" else f"{low:.2f}–{high:.2f}"
