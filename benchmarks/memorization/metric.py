"""What counts as extracted: distances to clusters of a reference that is the same for all arms."""

from __future__ import annotations

from math import comb
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dedupkit.neighbors.cosine.recall import wilson

__all__ = ["carlini_ratio", "cluster_distances", "distances", "extracted", "mcnemar", "proportion", "row_ratio"]

SHARE = 1 / 3
"""A sample is extracted when its own cluster is nearest and at most this share as far as the next one."""


def distances(samples: NDArray[Any], reference: NDArray[Any]) -> NDArray[np.float64]:
    """Root mean square difference of every sample from every reference image.

    Args:
        samples: (s, d) Pixels.
        reference: (r, d) Pixels.
    """
    a, b = np.asarray(samples, np.float64), np.asarray(reference, np.float64)
    squares = (a * a).sum(1)[:, None] + (b * b).sum(1)[None] - 2 * a @ b.T
    return np.sqrt(np.maximum(squares, 0) / a.shape[1])


def cluster_distances(rows: NDArray[Any], cluster: NDArray[Any], count: int) -> NDArray[np.float64]:
    """The distance to the nearest image of each cluster.

    Args:
        rows: (s, r) Distances to reference images.
        cluster: (r,) Cluster of each reference image, below count; every cluster has one.
        count: Number of clusters.

    Returns:
        (s, count) Distances.

    Example:
        >>> cluster_distances(np.array([[3.0, 1.0, 2.0]]), np.array([0, 0, 1]), 2)
        array([[1., 2.]])
    """
    order = np.argsort(cluster, kind="stable")
    starts = np.searchsorted(cluster[order], np.arange(count))
    return np.minimum.reduceat(np.asarray(rows)[:, order], starts, axis=1)


def extracted(by_cluster: NDArray[Any], own: NDArray[Any], share: float = SHARE) -> NDArray[np.bool_]:
    """Whether each sample is nearest to its own cluster, and the next one at least 1/share times as far.

    Args:
        by_cluster: (s, c) Distances of :func:`cluster_distances`.
        own: (s,) Cluster of the prompt of each sample.
        share: Largest ratio of the two distances.

    Example:
        >>> extracted(np.array([[0.1, 0.5], [0.3, 0.5], [0.5, 0.1]]), np.array([0, 0, 0]))
        array([ True, False, False])
    """
    mine = np.take_along_axis(by_cluster, own[:, None], 1)[:, 0]
    others = by_cluster.copy()
    np.put_along_axis(others, own[:, None], np.inf, 1)
    return mine <= share * others.min(1)


def row_ratio(rows: NDArray[Any]) -> NDArray[np.float64]:
    """Distance to the nearest training image over that to the second nearest: the usual test, at most 1/3.

    Copies in the training set make both distances small, so the ratio stays near 1 however exact the sample is.
    """
    nearest = np.partition(rows, 1, axis=1)[:, :2]
    return nearest[:, 0] / np.maximum(nearest[:, 1], 1e-12)


def carlini_ratio(rows: NDArray[Any], neighbours: int = 50, alpha: float = 0.5) -> NDArray[np.float64]:
    """Distance to the nearest training image over alpha times the mean of its nearest ones; at most 1 is extracted.

    After the adaptive distance of Carlini et al. (arXiv 2301.13188, 5.1), with the neighbours of the sample.
    """
    nearest = np.sort(rows, axis=1)[:, :neighbours]
    return nearest[:, 0] / np.maximum(alpha * nearest.mean(1), 1e-12)


def proportion(hits: int, count: int) -> dict[str, float | int | None]:
    """A share with its 95 % Wilson interval, for JSON."""
    if count == 0:
        return {"hits": 0, "count": 0, "share": None, "low": 0.0, "high": 1.0}
    low, high = wilson(hits / count, count, 1.96)
    return {
        "hits": int(hits),
        "count": int(count),
        "share": round(hits / count, 4),
        "low": round(float(low), 4),
        "high": round(float(high), 4),
    }


def mcnemar(first: NDArray[Any], second: NDArray[Any]) -> dict[str, float | int]:
    """McNemar's exact test that two arms extract the same share of images.

    Args:
        first: (n,) Whether each image was extracted in one arm.
        second: (n,) The same in the other arm.

    Example:
        >>> mcnemar(np.array([1, 1, 1, 1, 1, 1]), np.array([0, 0, 0, 0, 0, 0]))
        {'only_first': 6, 'only_second': 0, 'p': 0.03125}
    """
    a = int(np.sum(np.asarray(first, bool) & ~np.asarray(second, bool)))
    b = int(np.sum(~np.asarray(first, bool) & np.asarray(second, bool)))
    tail = sum(comb(a + b, k) for k in range(min(a, b) + 1)) / 2 ** (a + b)
    return {"only_first": a, "only_second": b, "p": min(1.0, 2 * tail)}
