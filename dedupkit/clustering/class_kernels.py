"""The compiled loops of :mod:`dedupkit.clustering.classes`. Importing this file imports numba."""

from typing import Any

from numba import njit

__all__ = ["connect", "connect_pairs", "count", "walk"]


@njit(cache=True, nogil=True)
def walk(labels: Any, occupants: Any, order: Any, starts: Any, joined: Any, witness: Any, kind: Any) -> None:
    """Keep rows in order; ``occupants`` says which kept row each class has.

    The neighbours of class c of kind k are ``joined[starts[k, c]:starts[k, c + 1]]``; ``starts`` has no columns where
    there are none.
    """
    for place in range(labels.shape[1]):
        row = order[place] if len(order) else place
        for number in range(labels.shape[0]):
            label = labels[number, row]
            if label < 0:
                continue
            found = occupants[number, label]
            if starts.shape[1]:
                at, end = starts[number, label], starts[number, label + 1]
                while found < 0 and at < end:
                    found = occupants[number, joined[at]]
                    at += 1
            if found >= 0:
                witness[row], kind[row] = found, number
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
def _join(parent: Any, one: Any, other: Any) -> None:
    a, b = _root(parent, one), _root(parent, other)
    if a < b:
        parent[b] = a
    elif b < a:
        parent[a] = b


@njit(cache=True, nogil=True)
def connect(labels: Any, parent: Any) -> None:
    """Join each row with the first of its class, by union-find with path halving, the smaller root first."""
    for row in range(len(labels)):
        if labels[row] >= 0 and labels[row] != row:
            _join(parent, row, labels[row])
    for row in range(len(labels)):
        parent[row] = _root(parent, row)


@njit(cache=True, nogil=True)
def connect_pairs(one: Any, other: Any, parent: Any) -> None:
    """Join the two rows of each pair; :func:`connect` must follow."""
    for pair in range(len(one)):
        _join(parent, one[pair], other[pair])


@njit(cache=True, nogil=True)
def count(group: Any, sizes: Any) -> None:
    """Count the members of each group; ``sizes`` must be zero."""
    for row in range(len(group)):
        sizes[group[row]] += 1
