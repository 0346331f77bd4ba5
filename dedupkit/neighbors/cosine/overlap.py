"""How many cells a vector belongs to: the cheapest overlap that finds the wanted share of the pairs; see `cells`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from dedupkit.neighbors.cosine.kmeans import Cells, nearest, train
from dedupkit.neighbors.cosine.recall import wilson
from dedupkit.neighbors.cosine.rows import Floats, Ints
from dedupkit.neighbors.cosine.sample import Sample, thin
from dedupkit.neighbors.cosine.tiles import Sets

__all__ = ["Overlap", "Plan", "make_plan"]

CAPS = np.array([1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64])
CELLS_PER_ROOT = 4.0  # cells for n vectors: this times the root of n
GATHER = 500.0  # what fetching a row for a cell costs, in pairs
WORTHWHILE = 0.5  # of the exact tiles' work
CAUTION = 1.0  # standard errors by which the choosing half must exceed the target


class Overlap(NamedTuple):
    """How many cells a vector may belong to, and how far below the best cosine their centres may be."""

    cap: int
    margin: float


class Plan(NamedTuple):
    """Centres, float32 (k, d), the overlap, and of the measuring half of the sample the pairs and which are found."""

    centres: Floats
    overlap: Overlap
    i: Ints
    found: NDArray[np.bool_]


@njit(cache=True, nogil=True)
def needed_margins(cells: Cells, gaps: Floats, i: Ints, j: Ints, caps: Ints, out: Floats) -> None:
    """Write the least margin at which each pair shares a cell, for every cap, to out, float32 (p, caps).

    cells int32 and gaps float32 (n, cap) are the nearest cells of the vectors, nearest first, and how far their
    cosine is below the nearest's; i and j are rows of them.
    """
    out[:] = np.inf
    for p in range(len(i)):
        for s in range(cells.shape[1]):
            for t in range(cells.shape[1]):
                if cells[i[p], s] == cells[j[p], t]:
                    margin = max(gaps[i[p], s], gaps[j[p], t])
                    for c in range(len(caps)):
                        if max(s, t) < caps[c] and margin < out[p, c]:
                            out[p, c] = margin


def make_plan(sets: Sets, sample: Sample, target: float, seed: int, fixed: Overlap | None = None) -> Plan | None:
    """Choose cells and overlap with the least work that reach the target, or None if exact search is as cheap.

    Args:
        sets: What is joined.
        sample: True pairs to choose and to measure by.
        target: Share of the pairs to find.
        seed: Seed of k-means.
        fixed: The overlap, if not to be chosen here.
    """
    sample = thin(sample)
    rows = sum(map(len, sets.sides))
    for shrink in (1, 4, 16):
        count = int(CELLS_PER_ROOT / shrink * rows**0.5)
        if count < 2:
            break
        centres, others = train(sets, count, seed)
        plan = choose_overlap(sets, centres, others, sample, target, fixed)
        if plan is not None:
            return plan
    return None


def choose_overlap(
    sets: Sets, centres: Floats, others: Floats, sample: Sample, target: float, fixed: Overlap | None
) -> Plan | None:
    """Find the cheapest overlap that reaches the target, or None if none is worthwhile; see the module."""
    engine, left, other = sets.engine, sets.left, sets.other
    caps = CAPS[len(centres) >= CAPS] if fixed is None else np.array([min(fixed.cap, len(centres))])
    left_at, i = np.unique(sample.i, return_inverse=True)
    right_at, j = np.unique(sample.j, return_inverse=True)
    known = sample.known
    ends = (left.take(left_at), other.take(right_at)) if known is None else (known[0][left_at], known[1][right_at])
    near = [nearest(engine, vectors, centres, caps[-1]) for vectors in ends]
    cells, gaps = (np.concatenate(parts) for parts in zip(*near, strict=True))
    margins = np.empty((len(i), len(caps)), np.float32)
    needed_margins(cells, gaps, i, j + len(left_at), caps, margins)

    choosing = np.isin(sample.i, sample.queries[::2])
    measuring = sample.i[~choosing]
    exact = len(left) * len(other) / (2 if sets.same else 1)
    seen, seen_gaps = nearest(engine, others, centres, caps[-1])
    choices = []
    for c, cap in enumerate(caps):
        for margin in candidates(margins[choosing, c], target):
            overlap = Overlap(int(cap), margin)
            choices.append((work(sets, seen, seen_gaps, overlap, len(centres)), overlap))
    if fixed is not None:
        choices = [(0.0, fixed)]
    for cost, overlap in sorted(choices):
        if cost > WORTHWHILE * exact:
            break
        found = margins[~choosing, min(int(np.searchsorted(caps, overlap.cap)), len(caps) - 1)] <= overlap.margin
        if fixed is not None or found.sum() >= target * len(found):
            return Plan(centres, overlap, measuring, found)
    return None


def candidates(margins: Floats, target: float) -> Iterator[float]:
    """Margins worth a try: what reaches the target by `CAUTION` standard errors, and two wider ones.

    Args:
        margins: float32 (p,), what each pair needs.
        target: share of the pairs.
    """
    if len(margins) == 0:
        yield 0.1  # nothing to learn from: about three cells in practice
        return
    ordered = np.sort(margins)
    counts = np.arange(1, len(ordered) + 1)
    low, _ = wilson(counts / len(ordered), len(ordered), CAUTION)
    at = min(int(np.searchsorted(low, target)), len(ordered) - 1)
    for index in {at, (at + len(ordered) - 1) // 2, len(ordered) - 1}:
        if np.isfinite(ordered[index]):
            yield float(ordered[index]) + 1e-4


def work(sets: Sets, cells: Cells, gaps: Floats, overlap: Overlap, count: int) -> float:
    """Estimate what the cells cost, in pairs, from the nearest cells of random vectors, int32 and float32 (s, cap)."""
    inside = gaps[:, : overlap.cap] <= overlap.margin
    sizes = np.bincount(cells[:, : overlap.cap][inside], minlength=count).astype(np.float64)
    sampled = max(1, len(cells))
    # Without the vectors themselves, which are in all their cells, this is unbiased.
    meeting = ((sizes**2).sum() - sizes.sum()) / max(1, sampled * (sampled - 1))
    left, right = len(sets.left), len(sets.other)
    fetched = sum(map(len, sets.sides)) * sizes.sum() / sampled
    return float(meeting * left * right / (2 if sets.same else 1) + GATHER * fetched)
