"""The recall of a search: measured on a sample, with its interval."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["EXACT", "Recall", "effective", "measured", "wilson"]


class Recall(NamedTuple):
    """Share of the true pairs of distinct vectors that was found, measured on a random sample of rows.

    Attributes:
        estimate: Estimated recall; 1 for exact search, NaN if the sample had no true pair.
        low, high: 95 % Wilson interval, with the sample counted as `effective` pairs; [1, 1] for exact search.
        sampled_pairs: True pairs of the sampled rows that it was measured on.
        effective: Independent pairs that these are worth, as all pairs of a row may stand and fall together.
        sampled_rows: Rows whose true pairs were looked for, half of them to choose the overlap.
        note: Caveat, as a sentence; empty where there is none.
    """

    estimate: float
    low: float
    high: float
    sampled_pairs: int = 0
    effective: float = 0.0
    sampled_rows: int = 0
    note: str = ""


EXACT = Recall(1.0, 1.0, 1.0)


def measured(found: NDArray[np.bool_], queries: NDArray[np.int64], rows: int) -> Recall:
    """Recall and its interval from which sampled pairs, of these queries, were found."""
    worth = effective(queries)
    estimate = float(found.mean()) if len(found) else float("nan")
    low, high = wilson(estimate, worth, 1.96)
    note = "" if worth >= 100 else f"{rows:,} rows have only {len(found):,} true pairs to measure by: a wide interval"
    return Recall(estimate, float(low), float(high), len(found), worth, rows, note)


def wilson(share: Any, count: float, z: float) -> tuple[Any, Any]:
    """Interval of a proportion, z standard errors wide (Wilson, JASA 22, 1927); [0, 1] without observations."""
    if count == 0:
        return 0.0 * np.ones_like(share), 1.0 * np.ones_like(share)
    centre = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * np.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    return np.maximum(0.0, centre - half), np.minimum(1.0, centre + half)


def effective(queries: NDArray[np.int64]) -> float:
    """Number of independent pairs that pairs of these queries are worth (Kish, "Survey Sampling", 1965, 8.2).

    All pairs of one vector may stand and fall together, so a vector with a thousand pairs must not count for
    a thousand observations.
    """
    counts = np.unique(queries, return_counts=True)[1].astype(np.float64)
    return float(counts.sum() ** 2 / (counts**2).sum()) if len(counts) else 0.0
