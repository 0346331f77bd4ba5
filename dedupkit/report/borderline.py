"""Removals that a slightly stricter rule would not have made: where to judge a rule."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from dedupkit.report.tables import Removed
from dedupkit.report.words import Atom

__all__ = ["nearest_bound"]


def nearest_bound(removed: Removed, rule: Mapping[str, tuple[Atom, ...]], count: int) -> list[tuple[int, int]]:
    """The removed samples whose score is nearest to the bound of their reason, each with its witness.

    Each alternative with a bound gets its share, and each kept sample appears once. Identical pairs are left out:
    there is nothing to judge. So are samples whose witness lies in an earlier run: its images are not shown.

    Args:
        removed: All removed samples.
        rule: Conditions behind each reason.
        count: Number of pairs wanted over all alternatives; there may be fewer.

    Returns:
        Pairs (removed sample, kept sample), alternative by alternative, the nearest first.
    """
    bounded = {reason: atoms[0] for reason, atoms in rule.items() if atoms[0].bound is not None}
    present = [reason for reason in bounded if reason in removed.reasons]
    chosen: list[int] = []
    for reason in present:
        atom = bounded[reason]
        rows = np.flatnonzero((removed.reason == removed.reasons.index(reason)) & (removed.witness >= 0))
        score = removed.score[rows]
        rows = rows[score < 1 if atom.similarity else score > 0]
        nearness = removed.score[rows] if atom.similarity else -removed.score[rows]
        nearest = rows[np.argsort(nearness, kind="stable")]
        _, first = np.unique(removed.witness[nearest], return_index=True)
        chosen += nearest[np.sort(first)][: math.ceil(count / len(present))].tolist()
    return list(zip(removed.sample[chosen].tolist(), removed.witness[chosen].tolist(), strict=True))[:count]
