"""Histograms: how large the groups are, and how far removed samples lie from what they duplicate."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from dedupkit.report.facts import Bin, GroupSizes, Histogram
from dedupkit.report.tables import Removed
from dedupkit.report.words import Atom

__all__ = ["group_sizes", "score_histograms"]

_BINS = 8
_WIDTHS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5)  # of bins of similarities


def group_sizes(sizes: NDArray[np.integer], removed: NDArray[np.integer]) -> tuple[GroupSizes, ...]:
    """Classes of group size that double: 2, 3–4, 5–8 and so on.

    Args:
        sizes: (g,) Number of samples of each group, two or more.
        removed: (g,) Number of those that were removed.

    Example:
        >>> for row in group_sizes(np.array([2, 3, 4]), np.array([1, 2, 2])):
        ...     print(row)
        GroupSizes(start=2, end=2, groups=1, samples=2, removed=1)
        GroupSizes(start=3, end=4, groups=2, samples=7, removed=4)
    """
    klass = np.ceil(np.log2(np.maximum(sizes, 2))).astype(np.int64)
    top = int(klass.max(initial=0))
    groups = np.bincount(klass, minlength=top + 1)
    samples, gone = (np.bincount(klass, weights=what, minlength=top + 1).astype(np.int64) for what in (sizes, removed))
    return tuple(
        GroupSizes(2 ** (number - 1) + 1, 2**number, int(groups[number]), int(samples[number]), int(gone[number]))
        for number in range(1, top + 1)
    )


def score_histograms(rule: Mapping[str, tuple[Atom, ...]], removed: Removed) -> tuple[Histogram, ...]:
    """The scores of removed samples, for each reason whose first signal has a bound.

    Args:
        rule: Conditions behind each reason.
        removed: All removed samples.
    """
    found = []
    for reason, (atom, *_) in rule.items():
        if atom.bound is None or reason not in removed.reasons:
            continue
        scores = removed.score[removed.reason == removed.reasons.index(reason)].astype(np.float64)
        found.append(
            Histogram(
                reason=reason,
                signal=atom.signal,
                bound=float(atom.bound),
                similarity=atom.similarity,
                count=len(scores),
                min=round(float(scores.min()), 4),
                median=round(float(np.median(scores)), 4),
                max=round(float(scores.max()), 4),
                bins=_similarity_bins(scores, atom.bound) if atom.similarity else _bit_bins(scores, atom.bound),
            )
        )
    return tuple(found)


def _bit_bins(scores: NDArray[np.float64], bound: float) -> tuple[Bin, ...]:
    """0, then classes of equal width up to the bound."""
    last = math.floor(bound)
    width = max(1, math.ceil(last / _BINS))
    starts = [0, *range(1, last + 1, width)]
    ends = [0, *(min(start + width - 1, last) for start in starts[1:])]
    counts = np.bincount(np.searchsorted(ends, np.minimum(scores, last)), minlength=len(ends)).tolist()
    return tuple(Bin(*each) for each in zip(starts, ends, counts, strict=True))


def _similarity_bins(scores: NDArray[np.float64], bound: float) -> tuple[Bin, ...]:
    """From identical down to the bound, at multiples of a round width."""
    top = max(1.0, bound)
    width = next((each for each in _WIDTHS if _BINS * each > top - bound - 1e-9), top - bound)
    inner = np.arange(math.floor(bound / width + 1e-9) + 1, round(top / width))
    edges = [float(bound), *np.round(inner * width, 4).tolist(), top]
    counts, _ = np.histogram(np.clip(scores, edges[0], edges[-1]), edges)
    bins = [Bin(*each) for each in zip(edges[:-1], edges[1:], counts.tolist(), strict=True)]
    return tuple(reversed(bins))
