"""The compiled loops that sort sets, rank their tokens and compare equal ones. Importing this file imports numba.

Sets are rows of tokens, one row after the other: row i is ``tokens[starts[i]:starts[i + 1]]``.
"""

from typing import Any

import numpy as np

from dedupkit.neighbors.hamming.kernels import njit
from dedupkit.neighbors.sets.splitmix import mix

__all__ = ["distinct_rows", "equal_rows", "gather_rows", "rank_rows", "row_hashes"]

_SHORT = 24  # rows up to this length are sorted by insertion
_ZERO = np.uint64(0)


@njit
def _sort(row: Any) -> None:
    if len(row) > _SHORT:
        row.sort()
        return
    for place in range(1, len(row)):
        value = row[place]
        left = place - 1
        while left >= 0 and row[left] > value:
            row[left + 1] = row[left]
            left -= 1
        row[left + 1] = value


@njit
def distinct_rows(offsets: Any, tokens: Any, starts: Any, frequency: Any) -> None:
    """Sort each row in place, move its distinct tokens to the front of the array and count in how many rows each is.

    ``starts`` (n + 1,) receives where the rows begin afterwards; ``frequency`` (tokens,) must be zero.
    """
    filled = 0
    for row in range(len(offsets) - 1):
        starts[row] = filled
        values = tokens[offsets[row] : offsets[row + 1]]
        _sort(values)
        for place in range(len(values)):
            value = values[place]
            if place == 0 or value != tokens[filled - 1]:
                tokens[filled] = value
                frequency[value] += 1
                filled += 1
    starts[len(offsets) - 1] = filled


@njit
def rank_rows(starts: Any, tokens: Any, rank: Any) -> None:
    """Replace tokens by their ranks, in place, and sort each row again."""
    for row in range(len(starts) - 1):
        values = tokens[starts[row] : starts[row + 1]]
        for place in range(len(values)):
            values[place] = rank[values[place]]
        _sort(values)


@njit
def row_hashes(starts: Any, tokens: Any, out: Any) -> None:
    """A 48-bit hash of each row below its length (at most 65535), so that sorting them orders rows by size."""
    for row in range(len(starts) - 1):
        value = _ZERO
        for place in range(starts[row], starts[row + 1]):
            value = mix(value + np.uint64(tokens[place]) + np.uint64(0x9E3779B97F4A7C15))
        size = min(starts[row + 1] - starts[row], 65535)
        out[row] = np.uint64(size) << np.uint64(48) | value >> np.uint64(16)


@njit
def equal_rows(starts: Any, tokens: Any, one: Any, other: Any, out: Any) -> None:
    """For each pair of rows whether they hold the same tokens."""
    for pair in range(len(one)):
        a, b = starts[one[pair]], starts[other[pair]]
        size = starts[one[pair] + 1] - a
        same = size == starts[other[pair] + 1] - b
        place = 0
        while same and place < size:
            same = tokens[a + place] == tokens[b + place]
            place += 1
        out[pair] = same


@njit
def gather_rows(starts: Any, tokens: Any, chosen: Any, out_starts: Any, out: Any) -> None:
    """Copy some rows, one after the other."""
    for number in range(len(chosen)):
        begin, end = starts[chosen[number]], starts[chosen[number] + 1]
        for place in range(begin, end):
            out[out_starts[number] + place - begin] = tokens[place]
