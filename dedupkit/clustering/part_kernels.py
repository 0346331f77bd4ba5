"""The compiled loops of :mod:`dedupkit.clustering.parts`. Importing this file imports numba."""

from typing import Any

import numpy as np
from numba import njit

__all__ = ["equal_pairs", "fill_parts", "mark_parts", "weigh"]


@njit(cache=True, nogil=True)
def equal_pairs(first: Any, seen: Any) -> Any:
    """Count the pairs of samples with the same first sample; ``seen`` is zero before the first block of them."""
    pairs = 0
    for row in range(len(first)):
        if first[row] >= 0:
            pairs += seen[first[row]]
            seen[first[row]] += 1
    return pairs


@njit(cache=True, nogil=True)
def weigh(parent: Any, active: Any, amount: Any, several: Any) -> None:
    """Sum what there is of each component at its root.

    Args:
        parent: (n,) the smallest sample of each one's component.
        active: (n,) bool, which take part.
        amount: (n,) edges by sample; afterwards, at roots, edges and samples that take part.
        several: (n,) zeros; afterwards, at roots, how many take part: 0, 1, or 2 for more.
    """
    for row in range(len(parent)):
        root = parent[row]
        if active[row]:
            amount[root] += 1
            if several[root] < 2:
                several[root] += 1
        if root != row:
            amount[root] += amount[row]


@njit(cache=True, nogil=True)
def fill_parts(parent: Any, several: Any, amount: Any, size: Any, most: Any, numbers: Any) -> Any:
    """Put the components of two samples or more into parts, one after the other; returns the number of parts.

    Args:
        parent: (n,) the smallest sample of each one's component.
        several: As :func:`weigh` leaves it.
        amount: As :func:`weigh` leaves it.
        size: What a part should hold at most; one component may be more.
        most: The largest number of parts.
        numbers: (n,) filled with what stands for no part; afterwards the number of each sample's part.
    """
    total = 0
    for row in range(len(parent)):
        if parent[row] == row and several[row] > 1:
            total += amount[row]
    # Any two parts in a row hold more than ``size``.
    size = max(size, 2 * total // (most - 1) + 1)
    number, filled = 0, 0
    for row in range(len(parent)):
        root = parent[row]
        if root != row:
            numbers[row] = numbers[root]
        elif several[row] > 1:
            if filled > 0 and filled + amount[row] > size:
                number, filled = number + 1, 0
            filled += amount[row]
            numbers[row] = number
    return number + (filled > 0)


@njit(cache=True, nogil=True)
def mark_parts(first: Any, active: Any, numbers: Any, none: Any, marks: Any) -> None:
    """Set the bit of each part that has samples of a class, at the first sample of the class."""
    for row in range(len(first)):
        if active[row] and first[row] >= 0 and numbers[row] != none:
            marks[first[row]] |= np.uint64(1) << np.uint64(numbers[row])
