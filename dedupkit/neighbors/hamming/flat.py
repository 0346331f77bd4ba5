"""Pairs of PDQ hashes in any orientation by comparing all with all, for sets so small that nothing else pays.

The multi-index join of :mod:`.dihedral` finds the same pairs; loading its compiled kernels takes
half a second, in which faiss compares the eight orientations of ten thousand hashes with all of them.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dedupkit.neighbors.hamming.join import Pairs

__all__ = ["FLAT_BELOW", "flat_dihedral_pairs", "flat_dihedral_pairs_of_two", "orientations"]

FLAT_BELOW = 8_000
_BLOCK = 1_000


def orientations(hashes: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The eight orientations of PDQ hashes, (n, 32) to (8, n, 32) uint8; the group action of ``dihedral``."""
    bits = np.unpackbits(hashes, axis=1).reshape(-1, 16, 16)
    odd = np.arange(16) % 2
    views = [
        turned ^ (odd * flip_rows)[:, None].astype(np.uint8) ^ (odd * flip_columns)[None, :].astype(np.uint8)
        for turned in (bits, bits.transpose(0, 2, 1))
        for flip_rows in (0, 1)
        for flip_columns in (0, 1)
    ]
    return np.packbits(np.stack(views).reshape(8, len(hashes), 256), axis=2)


def flat_dihedral_pairs(hashes: NDArray[np.uint8], max_distance: int) -> Pairs:
    """Every pair of rows within the radius in any of the eight orientations; see ``dihedral_pairs``.

    Args:
        hashes: (n, 32) uint8; time and, where most are alike, memory grow with n squared.
        max_distance: the radius in bits, inclusive.
    """
    import faiss

    views = orientations(hashes)
    keys, distances = [np.zeros(0, np.int64)], [np.zeros(0, np.int32)]
    for start in range(0, len(hashes), _BLOCK):
        # The distance is symmetric, so each block is compared with what does not come before it.
        index = faiss.IndexBinaryFlat(256)
        index.add(np.ascontiguousarray(hashes[start:]))
        for view in views:
            limits, distance, found = index.range_search(view[start : start + _BLOCK], max_distance + 1)
            query = np.repeat(np.arange(len(limits) - 1), np.diff(limits.astype(np.int64)))
            ordered = query < found
            keys.append((start + query[ordered]) * len(hashes) + start + found[ordered])
            distances.append(distance[ordered].astype(np.int32))
    return _nearest(np.concatenate(keys), np.concatenate(distances), len(hashes))


def flat_dihedral_pairs_of_two(hashes: NDArray[np.uint8], other: NDArray[np.uint8], max_distance: int) -> Pairs:
    """Every pair of a row of one set and a row of another within the radius in any of the eight orientations.

    Args:
        hashes: (n, 32) uint8.
        other: (k, 32) uint8; time grows with n times k.
        max_distance: the radius in bits, inclusive.
    """
    import faiss

    index = faiss.IndexBinaryFlat(256)
    index.add(np.ascontiguousarray(other))
    views = orientations(hashes)
    keys, distances = [np.zeros(0, np.int64)], [np.zeros(0, np.int32)]
    for start in range(0, len(hashes), _BLOCK):
        for view in views:
            limits, distance, found = index.range_search(view[start : start + _BLOCK], max_distance + 1)
            query = np.repeat(np.arange(len(limits) - 1), np.diff(limits.astype(np.int64)))
            keys.append((start + query) * len(other) + found)
            distances.append(distance.astype(np.int32))
    return _nearest(np.concatenate(keys), np.concatenate(distances), len(other))


def _nearest(key: NDArray[np.int64], distance: NDArray[np.int32], width: int) -> Pairs:
    """Each pair ``a * width + b`` once, with its least distance."""
    nearest_first = np.lexsort((distance, key))
    key, distance = key[nearest_first], distance[nearest_first]
    once = np.flatnonzero(np.diff(key, prepend=-1))
    width = max(width, 1)
    return Pairs(key[once] // width, key[once] % width, distance[once].astype(np.uint16))
