"""The compiled loops that compare codes and pixels. Importing this imports numba; only verification of pairs does."""

from __future__ import annotations

from typing import Any

import numpy as np

from dedupkit.neighbors.hamming.kernels import njit, popcount

__all__ = [
    "agreeing_moves",
    "compare_tiles",
    "correlate_reduced",
    "describe",
    "mutual_matches",
    "nearest_codes",
    "nearest_nearby",
]

_SHIFT, _ROWS = np.int32(16), np.int32((1 << 16) - 1)  # a distance and the row it belongs to, in one number
_NONE = np.int32((1 << 30) - 1)


@njit
def describe(pixels: Any, places: Any, turns: Any, pattern: Any) -> Any:
    """Compare pairs of pixels around corners.

    Args:
        pixels: (h, w) uint8.
        places: (k, 2) int64, x and y of the corners.
        turns: (k,) uint8, the pattern of each.
        pattern: (directions, 2 bits, 2) int64, x and y of the pixels beside a corner.

    Returns:
        (k, bits / 8) uint8: whether the pixel of row i of the pattern is less than that of row bits + i, the first bit
        of a byte the highest.
    """
    bits = pattern.shape[1] // 2
    codes = np.zeros((len(places), bits // 8), np.uint8)
    for at in range(len(places)):
        x, y, turned = places[at, 0], places[at, 1], pattern[turns[at]]
        for bit in range(bits):
            first = pixels[y + turned[bit, 1], x + turned[bit, 0]]
            if first < pixels[y + turned[bits + bit, 1], x + turned[bits + bit, 0]]:
                codes[at, bit // 8] |= np.uint8(128 >> bit % 8)
    return codes


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
    # numba widens sums to 64 bits. Where they are narrowed at once, and compared without min(), the compiled loops work
    # on twice as many numbers at a time.
    width = len(back)
    row, least = np.empty(width, np.int32), np.full(width, _NONE)
    for i in range(len(nearest)):
        x, y = a[0, i], a[1, i]
        for j in range(width):
            row[j] = np.int32(popcount(x ^ b[0, j]) + popcount(y ^ b[1, j])) << _SHIFT
        first = _NONE
        for j in range(width):
            far = np.int32(row[j] + np.int32(i))
            least[j] = far if far < least[j] else least[j]
            far = np.int32(row[j] + np.int32(j))
            first = far if far < first else first
        at = first & _ROWS
        row[at] = _NONE
        after = _NONE
        for j in range(width):
            after = row[j] if row[j] < after else after
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
def mutual_matches(a: Any, b: Any, mirror: Any, shape: Any, bounds: Any, matches: Any, moves: Any) -> Any:
    """Find the codes of two images that are nearest to one another, clearly nearer than the second nearest.

    Args:
        a: The corners of one image: (2, n) uint64 codes, (n,) int64 turns and (n,) int64 levels.
        b: The same of the other.
        mirror: Whether the codes of a are those of its mirror image; its turns are not.
        shape: Number of turns and of levels.
        bounds: Bits by which matches differ less, and the share of those of the second nearest.
        matches: (at least n or m, 2) int64, rows of a and b, to be filled.
        moves: (as many, 2) int64, to be filled: how far each is turned, and how much it is resized, from 0.

    Returns:
        Number of matches.
    """
    (words_a, turns_a, levels_a), (words_b, turns_b, levels_b) = a, b
    (turns, levels), (far, ratio) = shape, bounds
    nearest, best = np.empty(len(turns_a), np.int32), np.empty(len(turns_a), np.int32)
    second, back = np.empty(len(turns_a), np.int32), np.empty(len(turns_b), np.int32)
    nearest_codes(words_a, words_b, nearest, best, second, back)
    count = 0
    for i in range(len(nearest)):
        j = nearest[i]
        if back[j] == i and best[i] < far and best[i] < ratio * second[i]:
            matches[count, 0], matches[count, 1] = i, j
            moves[count, 0] = (turns_b[j] - (turns // 2 - turns_a[i] if mirror else turns_a[i])) % turns
            moves[count, 1] = levels_b[j] - levels_a[i] + levels
            count += 1
    return count


@njit
def agreeing_moves(moves: Any, shape: Any, bounds: Any, agreeing: Any) -> None:
    """Find the largest set of matches that differ little from one turn and size; the first of equals.

    Args:
        moves: (k, 2) int64, how far each is turned, below shape[0], which is a full turn, and resized, below shape[1].
        shape: Number of turns and of sizes.
        bounds: By how much they differ in turn and in size from the middle of the set at most.
        agreeing: (k,) bool, to be filled.
    """
    (turns, sizes), (turn, size) = shape, bounds
    votes = np.zeros(shape, np.int64)
    for at in range(len(moves)):
        for i in range(moves[at, 0] - turn, moves[at, 0] + turn + 1):
            for j in range(max(0, moves[at, 1] - size), min(sizes, moves[at, 1] + size + 1)):
                votes[i % turns, j] += 1
    best = np.argmax(votes)
    i, j = best // sizes, best % sizes
    for at in range(len(moves)):
        apart = abs((moves[at, 0] - i + turns // 2) % turns - turns // 2)
        agreeing[at] = apart <= turn and abs(moves[at, 1] - j) <= size


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


@njit
def correlate_reduced(first: Any, bounds: Any, second: Any, limits: Any, to_second: Any, tile: Any, found: Any) -> None:
    """Correlate two reduced images under a map, tile by tile of the first.

    Args:
        first: (n, m) uint8.
        bounds: (2, 2) float64, from where to where x and y of its pixels count.
        second: (k, l) uint8.
        limits: (2, 2) float64, as the bounds.
        to_second: (2, 3) float64, from x and y of a pixel of the first to those in the second.
        tile: Pixels of a side of a tile.
        found: (down, across) float64, to be filled: the correlations; NaN where a tile is even in both or lies by half
            outside of the second.
    """
    rows, columns = first.shape
    last, lowest = second.shape[1] - 2, second.shape[0] - 2
    for i in range(found.shape[0]):
        for j in range(found.shape[1]):
            count, a, b, aa, bb, ab = 0, 0.0, 0.0, 0.0, 0.0, 0.0
            for y in range(i * tile, min((i + 1) * tile, rows)):
                for x in range(j * tile, min((j + 1) * tile, columns)):
                    if x < bounds[0, 0] or y < bounds[0, 1] or x > bounds[1, 0] or y > bounds[1, 1]:
                        continue
                    across = to_second[0, 0] * x + to_second[0, 1] * y + to_second[0, 2]
                    down = to_second[1, 0] * x + to_second[1, 1] * y + to_second[1, 2]
                    if limits[0, 0] <= across <= limits[1, 0] and limits[0, 1] <= down <= limits[1, 1]:
                        p, q = min(int(across), last), min(int(down), lowest)
                        u, v = across - p, down - q
                        upper = second[q, p] * (1 - u) + second[q, p + 1] * u
                        lower = second[q + 1, p] * (1 - u) + second[q + 1, p + 1] * u
                        one, two = np.float64(first[y, x]), upper * (1 - v) + lower * v
                        count += 1
                        a, b, aa, bb, ab = a + one, b + two, aa + one * one, bb + two * two, ab + one * two
            found[i, j] = np.nan
            if 2 * count > tile * tile:
                a, b = a / count, b / count
                spread_a, spread_b = max(aa / count - a * a, 0.0) + 1, max(bb / count - b * b, 0.0) + 1
                if max(spread_a, spread_b) > 17:
                    found[i, j] = (ab / count - a * b) / np.sqrt(spread_a * spread_b)
