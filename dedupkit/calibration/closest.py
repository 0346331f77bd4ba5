"""The closest of all pairs of some images: what the tail of false matches is fitted to.

All kinds of score are products of rows. Bits become +1 and -1, so that a product of two hashes is the number of bits
less twice those that differ, exactly, in float32; vectors of unit length give cosines. A distance that is the least
of several (orientations, nested views) is the largest of several products.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dedupkit.calibration.tail import Closest
from dedupkit.neighbors.hamming.flat import orientations

__all__ = ["Sides", "closest_pairs", "hash_sides", "rows_for", "vector_sides"]

Matrix = NDArray[np.float32]
Columns = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]
Sides = list[tuple[Matrix, Matrix]]

_MOST_ROWS = 6_400  # 20 million pairs
_MOST_WORK = 4e10  # multiply-adds, some seconds of one core
_BLOCK = 512
_SHARE, _LEAST, _MOST = 0.002, 500, 20_000  # of the pairs, those that are kept


def hash_sides(hashes: NDArray[np.uint8], *, views: int = 1, turned: bool = False) -> Sides:
    """Hashes as products.

    Args:
        hashes: (n, bytes * views) uint8; a view of zeros alone is missing and counts as unlike everything.
        views: hashes in a row, the whole first; pairs of views count if one of the two is a whole.
        turned: whether the least distance over the eight orientations of PDQ counts.

    Returns:
        Pairs of matrices (n, bits) float32; the score of i and j is the largest product of row i of the one and row j
        of the other: bits less twice the distance.
    """
    parts = np.split(np.ascontiguousarray(hashes), views, axis=1)

    def signs(seen: NDArray[np.uint8], part: NDArray[np.uint8]) -> Matrix:
        return _signs(seen) if views == 1 else _signs(seen) * np.any(part, axis=1, keepdims=True)

    whole = signs(parts[0], parts[0])
    sides = [(whole, signs(seen, part)) for part in parts for seen in (orientations(part) if turned else [part])]
    # The turns form a group, so a whole beside a turned view is, turned back, the view beside a turned whole.
    return sides + [(right, left) for left, right in sides[len(sides) // views :]]


def vector_sides(vectors: NDArray[np.float16]) -> Sides:
    """Vectors (n, d) of any length but zero as products that are cosines."""
    rows = vectors.astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return [(rows, rows)]


def rows_for(sides: int, width: int) -> int:
    """How many images can be paired in a few seconds: n * n / 2 pairs, each of so many products of so many values."""
    return int(min(_MOST_ROWS, (2 * _MOST_WORK / (sides * width)) ** 0.5))


def closest_pairs(sides: Sides, groups: NDArray[np.integer], *, bits: int | None = None) -> Closest:
    """Score all pairs of images of different groups and keep the closest 0.2 %, 500 at least, 20,000 at most.

    Args:
        sides: as above.
        groups: (n,) integers; pairs of one group are no pairs of strangers.
        bits: of a hash, so that scores are minus distances; None for cosines.

    Returns:
        The closest pairs. Work: n * n / 2 products; memory: a block of n * 512 floats.
    """
    count = len(groups)
    sizes = np.unique(groups, return_counts=True)[1]
    pairs = count * (count - 1) // 2 - int((sizes * (sizes - 1) // 2).sum())
    most = min(_MOST, max(_LEAST, int(_SHARE * pairs)))
    found: list[Columns] = [(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0))]
    waiting, start = 0, -np.inf
    for top in range(0, count, _BLOCK):
        score = _block(sides, top, bits)
        left, right = np.nonzero(score >= start)
        ordered = (left < right) & (groups[left + top] != groups[right + top])
        left, right = left[ordered], right[ordered]
        found.append((left + top, right + top, score[left, right].astype(np.float64)))
        waiting += len(left)
        if waiting > 4 * most:
            found, start = _cut(found, most)
            waiting = len(found[0][2])
    found, start = _cut(found, most)
    i, j, kept = found[0]
    return Closest(i, j, kept, start, count, pairs, bits is not None)


def _block(sides: Sides, top: int, bits: int | None) -> Matrix:
    """Scores of some rows with those from the first of them on."""
    rows = slice(top, top + _BLOCK)
    best: Matrix = sides[0][0][rows] @ sides[0][1][top:].T
    for left, right in sides[1:]:
        np.maximum(best, left[rows] @ right[top:].T, out=best)
    return best if bits is None else (best - np.float32(bits)) / np.float32(2)


def _cut(found: list[Columns], most: int) -> tuple[list[Columns], float]:
    """Keep so many of the closest pairs, and all that tie with the last of them."""
    i, j, score = (np.concatenate(column) for column in zip(*found, strict=True))
    if not len(score):
        return [(i, j, score)], 0.0
    start = (
        float(np.partition(score, len(score) - most)[len(score) - most]) if len(score) > most else float(score.min())
    )
    kept = score >= start
    return [(i[kept], j[kept], score[kept])], start


def _signs(hashes: NDArray[np.uint8]) -> Matrix:
    bits: Matrix = np.unpackbits(np.ascontiguousarray(hashes), axis=1).astype(np.float32) * 2 - 1
    return bits
