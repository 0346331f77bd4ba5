"""The keep-set and the components where duplicates are classes of equal values, with no pair in a class listed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["ClassEdges", "class_components", "group_sizes", "keep_first_of_classes"]

ClassEdges = tuple[NDArray[np.int32], NDArray[np.int32]]
"""Pairs of classes of one kind, named by their first rows: each row of one duplicates each row of the other."""


def keep_first_of_classes(
    labels: NDArray[np.int32],
    order: NDArray[np.integer] | None = None,
    edges: Sequence[ClassEdges | None] = (),
) -> tuple[NDArray[np.int32], NDArray[np.int8]]:
    """Walk the rows in order, and keep one unless a kept row shares a class with it or is in one that an edge names.

    This is :func:`dedupkit.clustering.keep_set` on the graph in which all members of a class are joined, and all
    members of two classes with an edge, in time and memory that grow with rows and edges: a class of 100,000 rows is
    no 5 billion pairs.

    Args:
        labels: (kinds, n) int32, for each kind of class the first row of the class that each row is in, -1 for none.
        order: (n,) rows from the most to the least worth keeping; the order of rows by default.
        edges: For each kind of class pairs of its classes, or None where only rows of one class are duplicates; empty
            where all kinds are such.

    Returns:
        ``witness``, (n,) int32: for a removed row the kept row of the first kind of class that has one, -1 for a kept
        row; and ``kind``, (n,) int8: of that class, -1 for a kept row.

    Example:
        >>> url, text = [0, 0, 2, 3], [0, 1, 1, -1]
        >>> witness, kind = keep_first_of_classes(np.array([url, text], np.int32))
        >>> witness.tolist(), kind.tolist()
        ([-1, 0, -1, -1], [-1, 0, -1, -1])
    """
    from dedupkit.clustering.class_kernels import walk

    count = labels.shape[1]
    witness, kind = np.full(count, -1, np.int32), np.full(count, -1, np.int8)
    occupants = np.full(labels.shape, -1, np.int32)
    starts, joined = _neighbours(edges, count)
    walk(labels, occupants, np.zeros(0, np.int32) if order is None else order, starts, joined, witness, kind)
    return witness, kind


def class_components(labels: NDArray[np.int32], edges: Sequence[ClassEdges | None] = ()) -> NDArray[np.int32]:
    """For each row the smallest row that classes and edges connect it with, (n,) int32; arguments as above."""
    from dedupkit.clustering.class_kernels import connect, connect_pairs, flatten

    parent = np.arange(labels.shape[1], dtype=np.int32)
    for pair in edges:
        if pair is not None:
            connect_pairs(*pair, parent)
    for kind in labels:
        connect(kind, 0, parent)
    flatten(parent)
    return parent


def group_sizes(group: NDArray[np.int32]) -> NDArray[np.int32]:
    """The number of rows in the group that each row names, (n,) int32; 0 at rows that name none."""
    from dedupkit.clustering.class_kernels import count

    sizes = np.zeros(len(group), np.int32)
    count(group, sizes)
    return sizes


def _neighbours(edges: Sequence[ClassEdges | None], count: int) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """By kind and class where its neighbours begin, (kinds, count + 1), or (0, 0) without edges; and these."""
    if all(pair is None for pair in edges):
        return np.zeros((0, 0), np.int64), np.zeros(0, np.int32)
    starts, lists, filled = np.zeros((len(edges), count + 1), np.int64), [np.zeros(0, np.int32)], 0
    for number, pair in enumerate(edges):
        starts[number] = filled
        if pair is not None:
            one, other = np.concatenate(pair), np.concatenate(pair[::-1])
            starts[number, 1:] += np.cumsum(np.bincount(one, minlength=count))
            lists.append(other[np.lexsort((other, one))])
            filled += len(one)
    return starts, np.concatenate(lists)
