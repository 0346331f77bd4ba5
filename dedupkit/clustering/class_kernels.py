"""The compiled loops of :mod:`dedupkit.clustering.classes`. Importing this file imports numba."""

from typing import Any

from numba import njit

__all__ = ["connect", "count", "walk"]


@njit(cache=True, nogil=True)
def walk(labels: Any, occupants: Any, order: Any, witness: Any, kind: Any) -> None:
    """Keep rows in order; ``occupants`` says which kept row each class has."""
    for place in range(labels.shape[1]):
        row = order[place] if len(order) else place
        for number in range(labels.shape[0]):
            label = labels[number, row]
            if label >= 0 and occupants[number, label] >= 0:
                witness[row], kind[row] = occupants[number, label], number
                break
        if witness[row] < 0:
            for number in range(labels.shape[0]):
                label = labels[number, row]
                if label >= 0:
                    occupants[number, label] = row


@njit(cache=True, nogil=True)
def _root(parent: Any, row: Any) -> Any:
    while parent[row] != row:
        parent[row] = parent[parent[row]]
        row = parent[row]
    return row


@njit(cache=True, nogil=True)
def connect(labels: Any, parent: Any) -> None:
    """Join each row with the first of its class, by union-find with path halving, the smaller root first."""
    for row in range(len(labels)):
        if labels[row] >= 0 and labels[row] != row:
            a, b = _root(parent, row), _root(parent, labels[row])
            if a < b:
                parent[b] = a
            elif b < a:
                parent[a] = b
    for row in range(len(labels)):
        parent[row] = _root(parent, row)


@njit(cache=True, nogil=True)
def count(group: Any, sizes: Any) -> None:
    """Count the members of each group; ``sizes`` must be zero."""
    for row in range(len(group)):
        sizes[group[row]] += 1
