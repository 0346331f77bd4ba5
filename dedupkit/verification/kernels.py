"""The compiled loop that compares binary codes. Importing this file imports numba; only verification of pairs does."""

from __future__ import annotations

from typing import Any

import numpy as np

from dedupkit.neighbors.hamming.kernels import njit, popcount

__all__ = ["nearest_codes", "nearest_nearby"]

_SHIFT, _ROWS = np.int32(16), np.int32((1 << 16) - 1)  # a distance and the row it belongs to, in one number
_NONE = np.int32((1 << 30) - 1)


@njit
def nearest_codes(a: Any, b: Any, nearest: Any, best: Any, second: Any, back: Any) -> None:
    """Find for each code of a the nearest of b, and the other way round; the first of equals.

    Args:
        a: (2, n) uint64, n at most 65,536.
        b: (2, m) uint64, likewise.
        nearest: (n,) int32, rows of b, to be filled.
        best: (n,) int32, bits by which that row differs, to be filled.
        second: (n,) int32, bits by which the second nearest differs, to be filled.
        back: (m,) int32, rows of a, to be filled.
    """
    width = len(back)
    row, least = np.empty(width, np.int32), np.full(width, _NONE)
    for i in range(len(nearest)):
        x, y = a[0, i], a[1, i]
        for j in range(width):
            row[j] = np.int32(popcount(x ^ b[0, j]) + popcount(y ^ b[1, j])) << _SHIFT
        first = _NONE
        for j in range(width):
            least[j] = min(least[j], row[j] | np.int32(i))
            first = min(first, row[j] | np.int32(j))
        at = first & _ROWS
        row[at] = _NONE
        after = _NONE
        for j in range(width):
            after = min(after, row[j])
        nearest[i], best[i], second[i] = at, first >> _SHIFT, after >> _SHIFT
    for j in range(width):
        back[j] = least[j] & _ROWS


@njit
def nearest_nearby(placed: Any, a: Any, points: Any, b: Any, radius: Any, nearest: Any, best: Any) -> None:
    """Find for each code of a the nearest of those of b that lie within a radius of a place.

    Args:
        placed: (n, 2) float32, where each of a should lie in b.
        a: (2, n) uint64 codes.
        points: (m, 2) float32.
        b: (2, m) uint64 codes.
        radius: In the unit of the points.
        nearest: (n,) int32, rows of b, -1 where none is near, to be filled.
        best: (n,) int32, bits by which that row differs, to be filled.
    """
    for i in range(len(placed)):
        x, y = placed[i, 0], placed[i, 1]
        first, at = np.int32(1 << 20), np.int32(-1)
        for j in range(len(points)):
            across, down = points[j, 0] - x, points[j, 1] - y
            if across * across + down * down <= radius * radius:
                bits = np.int32(popcount(a[0, i] ^ b[0, j]) + popcount(a[1, i] ^ b[1, j]))
                if bits < first:
                    first, at = bits, np.int32(j)
        nearest[i], best[i] = at, first
