"""The keep-set and the components where duplicates are classes of equal values, without ever listing a pair."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["class_components", "group_sizes", "keep_first_of_classes"]


def keep_first_of_classes(
    labels: NDArray[np.int32], order: NDArray[np.integer] | None = None
) -> tuple[NDArray[np.int32], NDArray[np.int8]]:
    """Walk the rows in order, and keep one unless a kept row shares a class with it.

    This is :func:`dedupkit.clustering.keep_set` on the graph in which all members of a class are joined, in time and
    memory that grow with the rows: a class of 100,000 rows is no 5 billion pairs.

    Args:
        labels: (kinds, n) int32, for each kind of class the first row of the class that each row is in, -1 for none.
        order: (n,) rows from the most to the least worth keeping; the order of rows by default.

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
    walk(labels, occupants, np.zeros(0, np.int32) if order is None else order, witness, kind)
    return witness, kind


def class_components(labels: NDArray[np.int32]) -> NDArray[np.int32]:
    """For each row the smallest row that it is connected with by classes, (n,) int32; ``labels`` as above."""
    from dedupkit.clustering.class_kernels import connect

    parent = np.arange(labels.shape[1], dtype=np.int32)
    for kind in labels:
        connect(kind, parent)
    return parent


def group_sizes(group: NDArray[np.int32]) -> NDArray[np.int32]:
    """The number of rows in the group that each row names, (n,) int32; 0 at rows that name none."""
    from dedupkit.clustering.class_kernels import count

    sizes = np.zeros(len(group), np.int32)
    count(group, sizes)
    return sizes
