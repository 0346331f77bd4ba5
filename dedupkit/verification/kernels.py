"""The compiled loops that compare codes and pixels. Importing this imports numba; only verification of pairs does."""

from __future__ import annotations

from typing import Any

import numpy as np

from dedupkit.neighbors.hamming.kernels import njit, popcount

__all__ = ["compare_tiles", "nearest_codes", "nearest_nearby"]

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


@njit
def compare_tiles(first: Any, second: Any, inside: Any, rows: Any, columns: Any, unsure: Any, found: Any) -> None:
    """Compare two grids of pixels tile by tile: how they correlate, and by how much one lies off the other.

    Args:
        first: (n, m) float32.
        second: (n, m) float32.
        inside: (n, m) bool, which pixels count.
        rows: (down + 1,) int64, where tiles begin and end.
        columns: (across + 1,) int64, likewise.
        unsure: Squared gradient that noise has.
        found: (6, down, across) float64, to be filled: pixels that count, variance of each grid with 1 added,
            correlation, displacement to the right and down.
    """
    _, down, across = found.shape
    middle, rest = np.empty_like(first), np.empty_like(first)
    for i in range(down):
        for j in range(across):
            count, a, b, aa, bb, ab = 0, 0.0, 0.0, 0.0, 0.0, 0.0
            for y in range(rows[i], rows[i + 1]):
                for x in range(columns[j], columns[j + 1]):
                    if inside[y, x]:
                        u, v = np.float64(first[y, x]), np.float64(second[y, x])
                        count += 1
                        a, b, aa, bb, ab = a + u, b + v, aa + u * u, bb + v * v, ab + u * v
            number = max(count, 1)
            a, b = a / number, b / number
            spread_a, spread_b = max(aa / number - a * a, 0.0) + 1, max(bb / number - b * b, 0.0) + 1
            found[0, i, j], found[1, i, j], found[2, i, j] = count, spread_a, spread_b
            found[3, i, j] = (ab / number - a * b) / np.sqrt(spread_a * spread_b)
            # Once each tile of the second has the mean and the contrast of that of the first, the rest is displacement.
            gain = np.sqrt(spread_a / spread_b)
            for y in range(rows[i], rows[i + 1]):
                for x in range(columns[j], columns[j + 1]):
                    matched = second[y, x] * gain + (a - b * gain)
                    middle[y, x], rest[y, x] = (first[y, x] + matched) / 2, first[y, x] - matched
    bottom, right = len(first) - 1, first.shape[1] - 1
    for i in range(down):
        for j in range(across):
            xx, xy, yy, x_rest, y_rest = 0.0, 0.0, 0.0, 0.0, 0.0
            for y in range(rows[i], rows[i + 1]):
                for x in range(columns[j], columns[j + 1]):
                    if inside[y, x]:
                        dx, dy, off = 0.0, 0.0, rest[y, x]
                        if 0 < x < right:
                            dx = (middle[y, x + 1] - middle[y, x - 1]) / 2
                        if 0 < y < bottom:
                            dy = (middle[y + 1, x] - middle[y - 1, x]) / 2
                        xx, xy, yy = xx + dx * dx, xy + dx * dy, yy + dy * dy
                        x_rest, y_rest = x_rest + dx * off, y_rest + dy * off
            number = max(found[0, i, j], 1.0)
            xx, xy, yy = xx / number + unsure, xy / number, yy / number + unsure
            x_rest, y_rest = x_rest / number, y_rest / number
            size = xx * yy - xy * xy
            found[4, i, j], found[5, i, j] = (yy * x_rest - xy * y_rest) / size, (xx * y_rest - xy * x_rest) / size
