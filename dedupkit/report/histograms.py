"""Histograms: how large the groups are, and how far removed samples lie from what they duplicate."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dedupkit.report.tables import Removed
from dedupkit.report.words import Atom

__all__ = ["group_sizes", "score_histograms"]

_BINS = 8


def group_sizes(sizes: NDArray[np.integer], removed: NDArray[np.integer]) -> list[dict[str, int]]:
    """Classes of group size that double: 2, 3–4, 5–8 and so on.

    Args:
        sizes: (g,) samples in each group, two or more.
        removed: (g,) how many of them were removed.
    """
    klass = np.ceil(np.log2(np.maximum(sizes, 2))).astype(np.int64)
    top = int(klass.max(initial=0))
    groups = np.bincount(klass, minlength=top + 1)
    samples, gone = (np.bincount(klass, weights=what, minlength=top + 1).astype(np.int64) for what in (sizes, removed))
    return [
        {
            "from": 2 ** (number - 1) + 1,
            "to": 2**number,
            "groups": int(groups[number]),
            "samples": int(samples[number]),
            "removed": int(gone[number]),
        }
        for number in range(1, top + 1)
    ]


def score_histograms(rule: Mapping[str, tuple[Atom, ...]], removed: Removed) -> list[dict[str, Any]]:
    """The scores of removed samples, for each reason whose first signal has a bound.

    Args:
        rule: the conditions behind each reason.
        removed: all removed samples.
    """
    found = []
    for reason, (atom, *_) in rule.items():
        if atom.bound is None or reason not in removed.reasons:
            continue
        scores = removed.score[removed.reason == removed.reasons.index(reason)].astype(np.float64)
        found.append(
            {
                "reason": reason,
                "signal": atom.signal,
                "bound": atom.bound,
                "similarity": atom.similarity,
                "count": len(scores),
                "min": round(float(scores.min()), 4),
                "median": round(float(np.median(scores)), 4),
                "max": round(float(scores.max()), 4),
                "bins": _similarity_bins(scores, atom.bound) if atom.similarity else _bit_bins(scores, atom.bound),
            }
        )
    return found


def _bit_bins(scores: NDArray[np.float64], bound: float) -> list[dict[str, float]]:
    """0, then classes of equal width up to the bound."""
    last = math.floor(bound)
    width = max(1, math.ceil(last / _BINS))
    starts = [0, *range(1, last + 1, width)]
    ends = [0, *(min(start + width - 1, last) for start in starts[1:])]
    counts = np.bincount(np.searchsorted(ends, np.minimum(scores, last)), minlength=len(ends)).tolist()
    return [{"from": a, "to": b, "count": n} for a, b, n in zip(starts, ends, counts, strict=True)]


def _similarity_bins(scores: NDArray[np.float64], bound: float) -> list[dict[str, float]]:
    """From identical down to the bound."""
    edges = np.linspace(bound, max(1.0, bound + 1e-6), _BINS + 1)
    counts, _ = np.histogram(np.clip(scores, edges[0], edges[-1]), edges)
    return [
        {"from": round(float(edges[i]), 4), "to": round(float(edges[i + 1]), 4), "count": int(counts[i])}
        for i in reversed(range(_BINS))
    ]
