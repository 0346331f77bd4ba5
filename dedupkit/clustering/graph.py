"""The duplicate graph: its components, for showing groups, and its keep-set, for deciding."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dedupkit.clustering.kernels import greedy_independent_set, kernel, smallest_labels

__all__ = ["components", "keep_set"]


def keep_set(
    a: NDArray[np.integer],
    b: NDArray[np.integer],
    order: NDArray[np.integer],
    protected: NDArray[np.bool_] | None = None,
) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """The maximal independent set reached by walking the vertices in order.

    No two kept vertices are joined by an edge, and each removed one has an edge to a kept one (its witness): nothing
    goes because of a chain.

    Args:
        a: (m,) one end of each edge, vertex numbers; an edge may be listed more than once, in either direction.
        b: (m,) the other end.
        order: (n,) a permutation of the vertices, the most worth keeping first; n < 2**31.
        protected: (n,) vertices that are kept whatever the order says, such as those of an earlier run. Two of them
            may be joined by an edge; every other kept vertex has no edge to a kept one.

    Returns:
        ``kept``, (n,) bool; and ``witness_edge``, (n,) int64: for a removed vertex the position in ``a`` and ``b`` of
        the edge to the first kept neighbour in the order, -1 for a kept vertex.

    Raises:
        ValueError: a vertex number outside 0..n-1, a loop, an order that is no permutation, or arrays of other shapes.
        TypeError: vertex numbers that are no integers.
    """
    a, b, order = np.asarray(a), np.asarray(b), np.asarray(order)
    if order.ndim != 1:
        raise ValueError(f"order is an array of shape {order.shape}; it lists each vertex once, (n,)")
    count = len(order)
    _check(a, b, count)
    _check_numbers("order", order, count)
    rank = np.full(count, -1, np.int32)
    rank[order.astype(np.intp, copy=False)] = np.arange(count, dtype=np.int32)
    if count and rank.min() < 0:
        raise ValueError(f"order is no permutation of 0..{count - 1}: it leaves out {rank.argmin()}")
    if protected is not None:
        protected = np.asarray(protected, bool)
        if protected.shape != order.shape:
            raise ValueError(f"protected has shape {protected.shape}, and there are {count} vertices")
    if len(a) == 0:
        return np.ones(count, bool), np.full(count, -1, np.int64)
    if protected is not None and protected.any():
        return _keep_protected(a, b, order, protected)
    earlier, later = rank[a], rank[b]
    smaller = np.minimum(earlier, later)
    np.maximum(earlier, later, out=later)
    edges = np.empty(len(a), np.int32 if len(a) < 2**31 else np.int64)
    witness_edge: NDArray[np.int64] = kernel(greedy_independent_set, len(a) + count)(smaller, later, edges, count)[rank]
    return witness_edge < 0, witness_edge


def _keep_protected(
    a: NDArray[np.integer], b: NDArray[np.integer], order: NDArray[np.integer], protected: NDArray[np.bool_]
) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """The keep-set where protected vertices come first, and edges between two of them count for nothing."""
    counted = np.flatnonzero(~(protected[a] & protected[b]))
    protected_first = order[np.argsort(~protected[order], kind="stable")]
    kept, edge = keep_set(a[counted], b[counted], protected_first)
    edge[~kept] = counted[edge[~kept]]
    return kept, edge


def components(a: NDArray[np.integer], b: NDArray[np.integer], count: int) -> NDArray[np.int32]:
    """Connected components.

    Args:
        a: (m,) one end of each edge.
        b: (m,) the other end.
        count: number of vertices, < 2**31.

    Returns:
        (count,) int32: the smallest vertex of each vertex's component.

    Raises:
        ValueError: as :func:`keep_set`.
    """
    a, b = np.asarray(a), np.asarray(b)
    _check(a, b, count)
    if len(a) == 0:
        return np.arange(count, dtype=np.int32)
    ends = (np.ascontiguousarray(end, np.int32) for end in (a, b))
    labels: NDArray[np.int32] = kernel(smallest_labels, len(a) + count)(*ends, count)
    return labels


def _check(a: NDArray[np.integer], b: NDArray[np.integer], count: int) -> None:
    if a.ndim != 1 or a.shape != b.shape:
        raise ValueError(f"edges need two ends, (m,) each: arrays of shapes {a.shape} and {b.shape} given")
    if not 0 <= count < 2**31:
        raise ValueError(f"{count} vertices; at least 0 and at most 2**31 - 1 fit")
    for end in (a, b):
        _check_numbers("an edge", end, count)
    if len(a) and bool(np.any(a == b)):
        raise ValueError("an edge joins a vertex to itself")


def _check_numbers(name: str, numbers: NDArray[np.integer], count: int) -> None:
    if not len(numbers):  # np.asarray gives an empty list no integers
        return
    if numbers.dtype.kind not in "iu":
        raise TypeError(f"{name} holds {numbers.dtype}; vertex numbers are integers")
    if numbers.min() < 0 or numbers.max() >= count:
        raise ValueError(f"{name} names a vertex outside 0..{count - 1}")
