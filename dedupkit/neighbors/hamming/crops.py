"""Pairs of images of which one looks like a central view of the other, by the PDQ hashes of nested views.

Each image comes as the hash of the whole and of some central views (:data:`dedupkit.hashing.pdq.CROP_VIEWS`). All
hashes are joined once, in any orientation, and a hit counts if at least one side is a whole image: two views that
agree say only that two images share their middle.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from dedupkit.neighbors.hamming.dihedral import class_distance, iter_dihedral_pairs
from dedupkit.neighbors.hamming.join import Pairs

__all__ = ["iter_crop_pairs", "nearest_views"]

_BYTES = 32


def iter_crop_pairs(
    views: NDArray[np.uint8],
    max_distance: int,
    other: NDArray[np.uint8] | None = None,
    *,
    workers: int | None = None,
) -> Iterator[Pairs]:
    """Every pair of images with a whole-to-view (or whole-to-whole) distance within the radius, once.

    Args:
        views: (n, 32 * v) uint8, the hash of the whole, then of the views; 32 zero bytes where a view is too flat.
        max_distance: the radius in bits, inclusive, in any of the eight orientations.
        other: (k, 32 * v) uint8 to join with; without it, ``views`` is joined with itself.
        workers: threads.

    Yields:
        One block of all pairs, each with its least distance; a < b where a set was joined with itself.

    Raises:
        ValueError: another shape or type.
    """
    sides = [views] if other is None else [views, other]
    for side in sides:
        if side.ndim != 2 or side.shape[1] % _BYTES or side.shape[1] != views.shape[1]:
            raise ValueError(f"views have {_BYTES} bytes each; an array of shape {side.shape} has not")
    count = views.shape[1] // _BYTES
    hashes = [np.ascontiguousarray(side).reshape(-1, _BYTES) for side in sides]
    usable = [np.flatnonzero(side.any(axis=1)) for side in hashes]
    joined = [side[rows] for side, rows in zip(hashes, usable, strict=True)]
    found: list[tuple[NDArray[np.int64], NDArray[np.uint16]]] = []
    for block in iter_dihedral_pairs(joined[0], max_distance, *joined[1:], workers=workers):
        a, b = usable[0][block.a], usable[-1][block.b]
        one_whole = (a % count == 0) | (b % count == 0)
        a, b = a // count, b // count
        if other is None:
            one_whole &= a != b
            a, b = np.minimum(a, b), np.maximum(a, b)
        found.append(((a * len(sides[-1]) + b)[one_whole], block.distance[one_whole]))
    if not found:
        return
    pairs, distances = (np.concatenate(column) for column in zip(*found, strict=True))
    nearest_first = np.lexsort((distances, pairs))
    pairs, distances = pairs[nearest_first], distances[nearest_first]
    first = np.flatnonzero(np.diff(pairs, prepend=-1))
    width = max(len(sides[-1]), 1)
    yield Pairs(pairs[first] // width, pairs[first] % width, distances[first])


def nearest_views(codes: NDArray[np.uint64], hits: Pairs, count: int) -> Pairs:
    """The pairs of images that some hits stand for, whatever the other hits are.

    Of all hits of two images one stands for them: that with the least distance, of these the first in a fixed order.
    So hits may be found in many places, and each pair of images comes from one of them.

    Args:
        codes: uint64 (n * count, 4), class words of the hashes of n images, the whole first; zeros for a view that is
            too flat.
        hits: Pairs of rows of ``codes`` with their distance.
        count: Number of hashes of an image.
    """
    (one, i), (other, j) = np.divmod(hits.a, count), np.divmod(hits.b, count)
    counts = (one != other) & ((i == 0) | (j == 0))
    one, other, i, j = one[counts], other[counts], i[counts], j[counts]
    least, nearest = np.full(len(one), np.iinfo(np.int16).max, np.int16), np.zeros(len(one), np.int64)
    for place, (x, y) in enumerate([(0, view) for view in range(count)] + [(view, 0) for view in range(1, count)]):
        left, right = codes[one * count + x], codes[other * count + y]
        distance = class_distance(left, right)
        nearer = left.any(axis=1) & right.any(axis=1) & (distance < least)
        least[nearer], nearest[nearer] = distance[nearer], place
    mine = nearest == np.where(i == 0, j, count - 1 + i)
    return Pairs(one[mine], other[mine], least[mine].astype(np.uint16))
