"""The compiled loops of the look-up of one PDQ hash. Importing this file imports numba."""

from __future__ import annotations

from typing import Any

from dedupkit.neighbors.hamming.kernels import njit, popcount

__all__ = ["scan_all", "scan_buckets"]


@njit
def _distance(codes: Any, row: Any, query: Any) -> Any:
    """Least distance over the four mirrors; see :mod:`dedupkit.neighbors.hamming.dihedral`."""
    p0 = popcount(codes[row, 0] ^ query[0])
    p1 = popcount(codes[row, 1] ^ query[1])
    p2 = popcount(codes[row, 2] ^ query[2])
    p3 = popcount(codes[row, 3] ^ query[3])
    upright = min(p1 + p2 + p3, 64 - p1 + p2 + 64 - p3)
    mirrored = min(p1 + 64 - p2 + 64 - p3, 64 - p1 + 64 - p2 + p3)
    return p0 + min(upright, mirrored)


@njit
def scan_buckets(
    codes: Any, order: Any, starts: Any, queries: Any, flips: Any, radius: Any, rows: Any, distances: Any
) -> Any:
    """Compare a query with every hash that shares a chunk with it, but for the flips; returns how many are within.

    More than ``rows`` has room for are counted, not written; one hash may be found several times.
    """
    count = 0
    for half in range(2):
        query = queries[half]
        for chunk in range(16):
            word = chunk >> 2
            value = (int(query[word]) >> (16 * (chunk & 3))) & 0xFFFF
            for complement in range(1 if word == 0 else 2):
                key = value ^ (0xFFFF * complement)
                for flip in flips:
                    bucket = key ^ flip
                    for at in range(starts[chunk, bucket], starts[chunk, bucket + 1]):
                        row = order[chunk, at]
                        bits = _distance(codes, row, query)
                        if bits <= radius:
                            if count < len(rows):
                                rows[count] = row
                                distances[count] = bits
                            count += 1
    return count


@njit
def scan_all(codes: Any, queries: Any, distances: Any) -> None:
    """Write the least distance of every hash to the query over the eight orientations."""
    for row in range(len(codes)):
        distances[row] = min(_distance(codes, row, queries[0]), _distance(codes, row, queries[1]))
