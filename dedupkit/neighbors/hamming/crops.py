"""Pairs of images of which one looks like a central view of the other, by the PDQ hashes of nested views.

Each image comes as the hash of the whole and of some central views (:data:`dedupkit.hashing.pdq.CROP_VIEWS`). All
hashes are joined once, in any orientation, and a hit counts if at least one side is a whole image: two views that
agree say only that two images share their middle.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from dedupkit.neighbors.hamming.dihedral import iter_dihedral_pairs
from dedupkit.neighbors.hamming.join import Pairs

__all__ = ["iter_crop_pairs"]

_BYTES = 32


def iter_crop_pairs(views: NDArray[np.uint8], max_distance: int, *, workers: int | None = None) -> Iterator[Pairs]:
    """Every pair of images with a whole-to-view (or whole-to-whole) distance within the radius, once.

    Args:
        views: (n, 32 * v) uint8, the hash of the whole, then of the views; 32 zero bytes where a view is too flat.
        max_distance: the radius in bits, inclusive, in any of the eight orientations.
        workers: threads.

    Yields:
        One block of all pairs, a < b, each with its least distance.

    Raises:
        ValueError: another shape or type.
    """
    if views.ndim != 2 or views.shape[1] % _BYTES:
        raise ValueError(f"views have {_BYTES} bytes each; an array of shape {views.shape} has not")
    hashes = np.ascontiguousarray(views).reshape(-1, _BYTES)
    count = views.shape[1] // _BYTES
    usable = np.flatnonzero(hashes.any(axis=1))
    found: list[tuple[NDArray[np.int64], NDArray[np.uint16]]] = []
    for block in iter_dihedral_pairs(hashes[usable], max_distance, workers=workers):
        a, b = usable[block.a], usable[block.b]
        one_whole = (a % count == 0) | (b % count == 0)
        a, b = a // count, b // count
        counted = one_whole & (a != b)
        pair = np.minimum(a, b) * len(views) + np.maximum(a, b)
        found.append((pair[counted], block.distance[counted]))
    if not found:
        return
    pairs, distances = (np.concatenate(column) for column in zip(*found, strict=True))
    nearest_first = np.lexsort((distances, pairs))
    pairs, distances = pairs[nearest_first], distances[nearest_first]
    first = np.flatnonzero(np.diff(pairs, prepend=-1))
    yield Pairs(pairs[first] // len(views), pairs[first] % len(views), distances[first])
