"""How well vectors tell copies from other images: by a threshold, and by rank."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dedupkit.embedding.embedder import unit_rows
from dedupkit.embedding.projection import Projection, fit_projection

__all__ = ["Separation", "held_out", "separation"]

_LIST = 4


@dataclass(frozen=True, slots=True)
class Separation:
    """Copies against strangers, which are the other images.

    Attributes:
        recall: Share of the copies that the threshold keeps, at least.
        threshold: Cosine of a copy and its original at or above which they are.
        strangers: Share of the pairs of a copy and another image that lie there too.
        pairs: Number of these pairs.
        copies: Number of copies.
        first: Share of the copies that come before every stranger, as seen from the copy or from the original.
        listed: Share of those with fewer than four strangers before them on one of the sides.
    """

    recall: float
    threshold: float
    strangers: float
    pairs: int
    copies: int
    first: float
    listed: float

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class _Scores:
    """Cosines of copies and originals, (m,), and of copies and strangers; how many strangers come before each copy."""

    own: NDArray[np.float32]
    strangers: NDArray[np.float32]
    before: NDArray[np.int64]


def separation(
    originals: NDArray[np.floating],
    copies: NDArray[np.floating],
    original: NDArray[np.integer],
    *,
    recall: float = 0.99,
) -> Separation:
    """Measure how well vectors tell copies from other images.

    Args:
        originals: (n, d) vectors of different images.
        copies: (m, d) vectors of copies.
        original: (m,) place of each copy's original among them.
        recall: Share of the copies that the threshold keeps.

    Example:
        >>> images = np.eye(3)
        >>> found = separation(images, images + 0.1, np.arange(3))
        >>> found.strangers, found.first
        (0.0, 1.0)
    """
    return _summed([_scores(unit_rows(originals), unit_rows(copies), original)], recall)


def held_out(
    originals: NDArray[np.floating],
    copies: NDArray[np.floating],
    original: NDArray[np.integer],
    *,
    dims: int = 512,
    recall: float = 0.99,
) -> tuple[Separation, Separation, NDArray[np.float32]]:
    """What a projection gains, on images that it was not fitted to: each half is projected by a fit to the other.

    Args:
        originals: (n, d) vectors of different images, in random order.
        copies: (m, d) vectors of copies.
        original: (m,) place of each copy's original among them.
        dims: Number of values of a projected vector.
        recall: Share of the copies that the thresholds keep.

    Returns:
        The separation without and with a projection, over the same pairs; and the projected copies' cosines with their
        originals, ascending.
    """
    plain, projected = [], []
    for half in (0, 1):
        fitted = _part(originals, copies, original, 1 - half)
        tested = _part(originals, copies, original, half)
        projection: Projection = fit_projection(*fitted, dims=dims)
        plain.append(_scores(unit_rows(tested[0]), unit_rows(tested[1]), tested[2]))
        projected.append(_scores(projection(tested[0]), projection(tested[1]), tested[2]))
    own = np.sort(np.concatenate([scores.own for scores in projected]))
    return _summed(plain, recall), _summed(projected, recall), own


def _part(
    originals: NDArray[np.floating], copies: NDArray[np.floating], original: NDArray[np.integer], half: int
) -> tuple[NDArray[np.floating], NDArray[np.floating], NDArray[np.integer]]:
    """Every other image, and its copies."""
    mine = original % 2 == half
    return originals[half::2], copies[mine], original[mine] // 2


def _scores(originals: NDArray[np.float32], copies: NDArray[np.float32], original: NDArray[np.integer]) -> _Scores:
    """Cosines of unit rows."""
    own = np.einsum("ij,ij->i", copies, originals[original])
    stranger = np.arange(len(originals)) != original[:, None]
    to_copy = copies @ originals.T
    to_original = (originals @ originals.T)[original]
    before = np.minimum(*(((side > own[:, None]) & stranger).sum(axis=1) for side in (to_copy, to_original)))
    return _Scores(own, to_copy[stranger], before)


def _summed(parts: list[_Scores], recall: float) -> Separation:
    own = np.concatenate([part.own for part in parts])
    strangers = np.concatenate([part.strangers for part in parts])
    before = np.concatenate([part.before for part in parts])
    ordered = np.sort(own)
    threshold = float(ordered[int(np.floor((1 - recall) * len(ordered) + 1e-9))])
    return Separation(
        recall=recall,
        threshold=round(threshold, 4),
        strangers=float((strangers >= threshold).mean()) if len(strangers) else 0.0,
        pairs=len(strangers),
        copies=len(own),
        first=float((before == 0).mean()),
        listed=float((before < _LIST).mean()),
    )
