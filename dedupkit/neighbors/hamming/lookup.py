"""Look-up of single PDQ hashes among many, in any of eight orientations, exactly.

Multi-index hashing (Norouzi, Punjani and Fleet, CVPR 2012): a hash is cut into 16 chunks of 16 bits. If two hashes
differ in at most 31 bits, some chunk of theirs differs in at most one bit, so that 17 buckets a chunk hold every hash
within the radius. A mirror keeps or complements whole words of the hashes as they are kept here
(:mod:`dedupkit.neighbors.hamming.dihedral`), so the eight orientations of a query need 952 buckets and not 2,176.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dedupkit.neighbors.hamming.dihedral import class_words, transpose

__all__ = ["HashLookup"]

_CHUNKS, _BUCKETS = 16, 1 << 16
_REACH = 2 * _CHUNKS - 1  # the largest radius that one flipped bit a chunk covers
_ROOM = 4096
_FILES = ("codes", "order", "starts")


class HashLookup:
    """PDQ hashes that answer which of them lie near a query.

    Memory: 96 bytes a hash and 4 MiB; mapped from a file, only the pages that are used stay in memory. Searching is
    safe in several threads at once.

    Args:
        codes: (n, 4) uint64, class words.
        order: (16, n) int32, rows sorted by each chunk.
        starts: (16, 65537) int32, where the rows of each chunk's value begin.

    >>> hashes = np.random.default_rng(0).integers(0, 256, (100, 32), dtype=np.uint8)
    >>> query = hashes[7] ^ np.eye(1, 32, 3, dtype=np.uint8)[0]
    >>> rows, distances = HashLookup.of(hashes).within(query, 31)
    >>> rows.tolist(), distances.tolist()
    ([7], [1])
    """

    def __init__(self, codes: NDArray[np.uint64], order: NDArray[np.int32], starts: NDArray[np.int32]) -> None:
        self._codes, self._order, self._starts = codes, order, starts

    def __len__(self) -> int:
        return len(self._codes)

    @classmethod
    def of(cls, hashes: ArrayLike) -> HashLookup:
        """Index hashes, (n, 32) uint8; O(n) in time and memory.

        Raises:
            ValueError: An array of another shape or type.
        """
        codes = class_words(hashes)
        order = np.empty((_CHUNKS, len(codes)), np.int32)
        starts = np.zeros((_CHUNKS, _BUCKETS + 1), np.int32)
        for chunk in range(_CHUNKS):
            values = (codes[:, chunk >> 2] >> np.uint64(16 * (chunk & 3))).astype(np.uint16)
            order[chunk] = np.argsort(values, kind="stable")
            starts[chunk, 1:] = np.cumsum(np.bincount(values, minlength=_BUCKETS))
        return cls(codes, order, starts)

    @classmethod
    def open(cls, folder: Path) -> HashLookup:
        """Map what :meth:`save` wrote."""
        return cls(*(np.load(folder / f"{name}.npy", mmap_mode="r") for name in _FILES))

    def save(self, folder: Path) -> None:
        """Write three ``.npy`` files into a folder that exists."""
        arrays: tuple[NDArray[Any], ...] = (self._codes, self._order, self._starts)
        for name, array in zip(_FILES, arrays, strict=True):
            np.save(folder / f"{name}.npy", array)

    def within(self, query: NDArray[np.uint8], radius: int) -> tuple[NDArray[np.int64], NDArray[np.int16]]:
        """The hashes within a radius of a query in some orientation, nearest first.

        Args:
            query: (32,) uint8, an upright PDQ hash.
            radius: Radius in bits, inclusive; beyond 31 every hash is compared.

        Returns:
            Rows, (k,) int64, and distances in bits, (k,) int16, sorted by distance and row.
        """
        from dedupkit.neighbors.hamming.lookup_kernels import scan_all, scan_buckets

        words = class_words(np.asarray(query)[None])
        queries = np.concatenate([words, transpose(words)])
        if radius > _REACH:
            found = np.empty(len(self), np.int16)
            scan_all(self._codes, queries, found)
            rows = np.flatnonzero(found <= radius)
            return _sorted(rows, found[rows])
        flips = np.array([0, *(1 << bit for bit in range(16))], np.int64)
        return _sorted(*self._probe(scan_buckets, queries, flips, radius))

    def _probe(
        self, scan: Callable[..., Any], queries: NDArray[np.uint64], flips: NDArray[np.int64], radius: int
    ) -> tuple[NDArray[np.int64], NDArray[np.int16]]:
        room = _ROOM
        while True:
            rows, distances = np.empty(room, np.int64), np.empty(room, np.int16)
            count = scan(self._codes, self._order, self._starts, queries, flips, radius, rows, distances)
            if count <= room:
                return rows[:count], distances[:count]
            room = count


def _sorted(rows: NDArray[np.int64], distances: NDArray[np.int16]) -> tuple[NDArray[np.int64], NDArray[np.int16]]:
    order = np.lexsort((distances, rows))  # of one row, the least distance first
    rows, distances = rows[order], distances[order]
    first = np.ones(len(rows), bool)
    first[1:] = rows[1:] != rows[:-1]
    rows, distances = rows[first], distances[first]
    nearest = np.lexsort((rows, distances))
    return rows[nearest], distances[nearest]
