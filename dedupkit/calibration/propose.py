"""The loosest threshold that still has a wanted precision, and what that rests on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dedupkit.calibration.strata import Stratum, weighted
from dedupkit.calibration.tail import Expected

__all__ = ["Proposal", "from_answers", "from_impostors"]


@dataclass(frozen=True, slots=True)
class Proposal:
    """A threshold, or why there is none.

    Attributes:
        threshold: Loosest threshold that reaches the wanted precision; None if none does.
        precision: Estimated precision at that threshold.
        low: Lower end of its 95 % interval.
        basis: ``answers`` (judged pairs), ``impostors`` (the tail of pairs of different images), or nothing.
        note: Caveat, as a sentence; empty where there is none.
    """

    threshold: float | None
    precision: float | None = None
    low: float | None = None
    basis: str = ""
    note: str = ""


def from_answers(strata: Sequence[Stratum], wanted: float, *, floor: float) -> Proposal | None:
    """Judge by answers: the precision of all strata from the strictest on, each weighed by its pairs.

    Args:
        strata: Strata, the strictest first.
        wanted: Wanted precision.
        floor: Loosest threshold that the run's pairs reach.

    Returns:
        None where nothing was answered, or not about the strictest pairs.
    """
    best: Proposal | None = None
    judged = 0
    for last in range(len(strata)):
        estimate = weighted(strata[: last + 1])
        if estimate is None:
            if any(stratum.pairs for stratum in strata[: last + 1]):
                break
            continue
        judged += 1
        if estimate.share >= wanted:
            best = Proposal(strata[last].threshold, estimate.share, estimate.low, "answers")
    if not judged:
        return None
    if best is None:
        return Proposal(None, basis="answers", note="the judged pairs fall short of it at every threshold")
    notes = [] if best.low is not None and best.low >= wanted else ["the interval reaches below it: judge more pairs"]
    notes += [_AT_FLOOR] if best.threshold == floor else []
    return Proposal(best.threshold, best.precision, best.low, best.basis, "; ".join(notes))


def from_impostors(
    thresholds: NDArray[np.float64], found: NDArray[np.int64], expected: Expected, wanted: float, *, floor: float
) -> Proposal:
    """Judge by how many impostor pairs are to be expected among those found.

    The upper end of the interval decides: far beyond what was seen, a tail is known to a factor of ten or so.

    Args:
        thresholds: (t,) the strictest first.
        found: (t,) pairs that the run has at each.
        expected: (t,) impostor pairs among them.
        wanted: Wanted precision.
        floor: Loosest threshold that the run's pairs reach.
    """
    if not np.isfinite(expected.estimate).any():
        return Proposal(None, note="too few different images to say")
    with np.errstate(invalid="ignore", divide="ignore"):
        low = 1 - np.minimum(1, expected.high / found)
        estimate = 1 - np.minimum(1, expected.estimate / found)
    reached = np.flatnonzero((found > 0) & (low >= wanted))
    if not len(reached):
        why = "the run has no pairs there" if not found.any() else "too many impostors are to be expected at every one"
        return Proposal(None, basis="impostors", note=why)
    last = int(reached[-1])
    threshold = float(thresholds[last])
    note = _AT_FLOOR if threshold == floor else ""
    return Proposal(threshold, float(estimate[last]), float(low[last]), "impostors", note)


_AT_FLOOR = "the run's pairs reach no further: a rule with a looser threshold might do as well"
