"""The compiled loops of :mod:`dedupkit.clustering.classes`. Importing this file imports numba."""

from typing import Any

from numba import njit

__all__ = ["connect", "connect_pairs", "count", "flatten", "walk"]


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
def connect(labels: Any, low: Any, parent: Any) -> None:
    """Join rows with the first of their class, by union-find with path halving, the smaller root first.

    Args:
        labels: (k,) int32, the first rows of the classes that rows from ``low`` on are in, -1 for none.
        low: The first of these rows.
        parent: (n,) int32; :func:`flatten` must follow.
    """
    for place in range(len(labels)):
        row = low + place
        if labels[place] >= 0 and labels[place] != row:
            _join(parent, row, labels[place])


@njit(cache=True, nogil=True)
def flatten(parent: Any) -> None:
    """Make each row's parent the smallest row that it is connected with."""
    for row in range(len(parent)):
        parent[row] = _root(parent, row)


@njit(cache=True, nogil=True)
def connect_pairs(one: Any, other: Any, parent: Any) -> None:
    """Join the two rows of each pair; :func:`flatten` must follow."""
    for pair in range(len(one)):
        _join(parent, one[pair], other[pair])


@njit(cache=True, nogil=True)
def count(group: Any, sizes: Any) -> None:
    """Count the members of each group; ``sizes`` must be zero."""
    for row in range(len(group)):
        sizes[group[row]] += 1
