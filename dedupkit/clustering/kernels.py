"""Loops over edges, compiled for large graphs; for small ones numba would take longer to load than they to run."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np

__all__ = ["greedy_independent_set", "kernel", "smallest_labels"]

_COMPILED_FROM = 400_000  # edges and vertices together; below it loading the compiled form takes longer than it saves


def greedy_independent_set(earlier: Any, later: Any, edges: Any, count: Any) -> Any:
    """Walk vertices 0..count-1 in rank order: keep one unless a kept one before it is its neighbour.

    This is the lexicographically first maximal independent set (Cook 1985); one counting sort and one pass, so
    O(count + edges) time and 16 bytes per vertex of memory beside the arguments.

    Args:
        earlier: (m,) int32, the lower rank of each edge.
        later: (m,) int32, the higher rank.
        edges: (m,) integers that hold any edge's number; what is in it is overwritten.
        count: number of vertices.

    Returns:
        (count,) int64: -1 for a kept vertex, else the edge to the first kept vertex that is its neighbour.
    """
    start = np.zeros(count + 1, np.int64)
    for rank in earlier:
        start[rank + 1] += 1
    for rank in range(count):
        start[rank + 1] += start[rank]
    for edge in range(earlier.size):
        edges[start[earlier[edge]]] = edge
        start[earlier[edge]] += 1
    removed_by = np.full(count, -1, np.int64)
    first = 0
    for rank in range(count):
        last = start[rank]  # the sort has moved each start to its end
        if removed_by[rank] < 0:
            for position in range(first, last):
                edge = edges[position]
                if removed_by[later[edge]] < 0:
                    removed_by[later[edge]] = edge
        first = last
    return removed_by


def smallest_labels(a: Any, b: Any, count: Any) -> Any:
    """Connected components by union-find with path halving, linking to the smaller root.

    Source: Tarjan and van Leeuwen 1984, "Worst-case analysis of set union algorithms" (path halving).

    Args:
        a: (m,) int32, one end of each edge.
        b: (m,) int32, the other.
        count: number of vertices.

    Returns:
        (count,) int32: the smallest vertex of each vertex's component.
    """
    parent = np.arange(count).astype(np.int32)
    for edge in range(a.size):
        x, y = a[edge], b[edge]
        while parent[x] != x:
            parent[x] = parent[parent[x]]
            x = parent[x]
        while parent[y] != y:
            parent[y] = parent[parent[y]]
            y = parent[y]
        if x < y:
            parent[y] = x
        elif y < x:
            parent[x] = y
    for vertex in range(count):  # parents are smaller, so one pass in order flattens every tree
        parent[vertex] = parent[parent[vertex]]
    return parent


def kernel(function: Callable[..., Any], work: int) -> Callable[..., Any]:
    """The function itself, or its compiled form where there is enough work.

    Args:
        function: one of this module.
        work: number of edges and vertices.
    """
    return _compiled(function) if work >= _COMPILED_FROM else function


@lru_cache
def _compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    from numba import njit

    result: Callable[..., Any] = njit(cache=True, nogil=True)(function)
    return result
