"""Planted copies: the share of copies that lists of nearest neighbours would hold, measured on images of the run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dedupkit.images.transformations import TRANSFORMATIONS
from dedupkit.neighbors.cosine.recall import effective, wilson
from dedupkit.signals.columns import Scanned
from dedupkit.signals.vector_files import vectors_of
from dedupkit.stages.copies import embedded_copies, model_for
from dedupkit.stages.plan import Job

__all__ = ["PLANTED", "Planted", "listed_share", "plant", "plant_each"]

PLANTED = ("sides-10", "mirrored", "rotated-5", "rotated-25", "crop-20", "crop-40", "border", "text")
"""Names of the transformations for which hashes do not suffice."""

_MOST, _LEAST, _SHARE = 64, 8, 100  # images transformed: one in so many
_ROWS = 1 << 14


@dataclass(frozen=True, slots=True)
class Planted:
    """Copies of some samples, and their vectors.

    Attributes:
        original: (m,) int64, the sample that each is a copy of.
        vectors: (m, d) float32, of unit length.
    """

    original: NDArray[np.int64]
    vectors: NDArray[np.float32]


def plant(job: Job, name: str, samples: NDArray[np.int64]) -> Planted | None:
    """Transform some of the samples, drawn by the seed, and embed them; None where there is no model to do so.

    Args:
        job: What is computed.
        name: The embedder.
        samples: (n,) ascending, images that have a vector.
    """
    count = min(len(samples), _MOST, max(_LEAST, len(samples) // _SHARE))
    chosen = np.random.default_rng([job.computing.seed, 1]).choice(samples, count, replace=False)
    return plant_each(job, name, np.sort(chosen))


def plant_each(job: Job, name: str, samples: NDArray[np.int64]) -> Planted | None:
    """As :func:`plant`, but each of the samples is transformed."""
    model = model_for(job, name)
    if model is None:
        return None
    changes = [transformation for transformation in TRANSFORMATIONS if transformation.name in PLANTED]
    originals: list[int] = []
    vectors: list[NDArray[np.float32]] = []
    for sample, rows in embedded_copies(job, model, samples, lambda _: changes):
        vectors.append(rows[1:])
        originals += [sample] * len(changes)
    if not vectors:
        return None
    found = np.concatenate(vectors)
    usable = np.isfinite(found).all(axis=1) & found.any(axis=1)
    return Planted(np.array(originals, np.int64)[usable], found[usable])


def listed_share(
    planted: Planted, scanned: Scanned, name: str, kept: NDArray[np.int64], floor: float, k: int
) -> dict[str, Any]:
    """The share of planted copies that a list of k neighbours would hold, on one of the two sides.

    A copy is held if fewer than k kept images are nearer to it than its original is, or nearer to the original than
    the copy is. Copies below the floor do not count: that is the rule's bound, not the limit of the lists.

    Args:
        planted: The copies; their originals are kept.
        scanned: All samples.
        name: The embedder.
        kept: (n,) ascending, the samples that are kept and have a vector.
        floor: Least cosine of a neighbour.
        k: Length of a list.

    Returns:
        ``copies`` planted, ``above_floor`` of them, ``estimate`` of the share held, and its 95 % Wilson interval
        ``low`` and ``high``, in which the copies of one image count as they agree with one another.
    """
    ids, place = np.unique(planted.original, return_inverse=True)
    originals = vectors_of(scanned, name, ids)[place]
    score = np.einsum("ij,ij->i", originals, planted.vectors)
    nearer = np.zeros((2, len(score)), np.int64)
    for begin in range(0, len(kept), _ROWS):
        some = kept[begin : begin + _ROWS]
        others = vectors_of(scanned, name, some)
        strangers = some != planted.original[:, None]
        for side, rows in enumerate((planted.vectors, originals)):
            nearer[side] += ((rows @ others.T > score[:, None] + 1e-4) & strangers).sum(axis=1)
    reached = score >= floor
    held = nearer.min(axis=0)[reached] < k
    worth = effective(planted.original[reached])
    estimate = float(held.mean()) if len(held) else None
    low, high = wilson(0.0 if estimate is None else estimate, worth, 1.96)
    return {
        "copies": len(score),
        "above_floor": int(reached.sum()),
        "estimate": estimate,
        "low": float(low),
        "high": float(high),
    }
