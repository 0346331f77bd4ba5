"""The threshold of an audit, and how often it is wrong: both from real images that were not trained on."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["choose_threshold", "share_as_near"]


def choose_threshold(cosines: NDArray[np.floating], rate: float) -> float:
    """The least cosine that at most a share of some real images reaches.

    Args:
        cosines: (n,) the cosine of each real image with the training image nearest to it; at least one.
        rate: Greatest share, 0 to 1.

    Returns:
        A cosine just above that of the first image that must not reach it; above 1, which no vector reaches, where
        that image's is 1.

    >>> choose_threshold(np.array([0.2, 0.5, 0.4, 0.3]), 0.25)
    0.4001
    >>> choose_threshold(np.array([1.0, 1.0, 0.4, 0.3]), 0.25)
    1.0001
    """
    ranked = np.sort(cosines)[::-1]
    allowed = min(int(rate * len(ranked)), len(ranked) - 1)
    return round(float(ranked[allowed]) + 1e-4, 4)


def share_as_near(scores: NDArray[np.floating], real: NDArray[np.floating], *, similarity: bool) -> NDArray[np.float64]:
    """For each score the share of real images that are at least as near to a training image: the floor beside it.

    Args:
        scores: (n,) scores of generated images.
        real: (m,) scores of real images; NaN where an image has none.
        similarity: Whether larger scores are nearer.

    >>> share_as_near(np.array([0.5, 0.9]), np.array([0.2, 0.5, 0.7, np.nan]), similarity=True)
    array([0.5, 0. ])
    """
    sign = -1.0 if similarity else 1.0
    known = np.sort(sign * real[~np.isnan(real)])
    found: NDArray[np.float64] = np.searchsorted(known, sign * scores, side="right") / max(1, len(real))
    return found
