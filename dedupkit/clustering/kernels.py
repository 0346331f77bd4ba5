"""Compiled loops over edges. Imported where they run: numba costs a quarter of a second to load."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

__all__ = ["greedy_independent_set", "smallest_labels"]


@njit("int64[::1](int32[::1], int32[::1], int64)", cache=True, nogil=True)  # type: ignore[misc,unused-ignore]
def greedy_independent_set(earlier: Any, later: Any, count: Any) -> Any:
    """Walk vertices 0..count-1 in rank order: keep one unless a kept one before it is its neighbour.

    This is the lexicographically first maximal independent set (Cook 1985); one counting sort and one pass, so
    O(count + edges) time and 8 bytes per edge and 16 per vertex of memory.

    Args:
        earlier: (m,) int32, the lower rank of each edge.
        later: (m,) int32, the higher rank.
        count: number of vertices.

    Returns:
        (count,) int64: -1 for a kept vertex, else the edge to the first kept vertex that is its neighbour.
    """
    start = np.zeros(count + 1, np.int64)
    for rank in earlier:
        start[rank + 1] += 1
    for rank in range(count):
        start[rank + 1] += start[rank]
    edges = np.empty(earlier.size, np.int64)
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


@njit("int32[::1](int32[::1], int32[::1], int64)", cache=True, nogil=True)  # type: ignore[misc,unused-ignore]
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
