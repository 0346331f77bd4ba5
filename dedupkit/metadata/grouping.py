"""For each row the first row with the same key, in memory that does not grow with the keys.

Keys are written into parts by their highest bits, then each part is grouped alone by a hash table: 20 bytes a row and
kind of key on disk, a few bytes a row in memory. This is the plan of a partitioned hash aggregation (Graefe, "Query
Evaluation Techniques for Large Databases", 1993, section 4.1).
"""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

__all__ = ["KEY_BYTES", "KeyParts"]

KEY_BYTES = 20
"""Bytes on disk for a key."""

_ROWS_A_PART = 1 << 21
_MOST_BITS = 7  # a file for each part and kind of key is open at a time, and processes may often have 1,024
_BUFFER = 1 << 18


class KeyParts:
    """Keys of one kind, in parts on disk.

    Args:
        folder: a folder for the parts; it must exist, and is left with them if the block fails.
        rows: number of rows at most, for the number of parts.
    """

    def __init__(self, folder: Path, rows: int) -> None:
        self._folder = folder
        self._bits = min(max(1, (max(1, rows) // _ROWS_A_PART).bit_length()), _MOST_BITS)
        self._files: list[BinaryIO] = []

    def __enter__(self) -> KeyParts:
        self._folder.mkdir(parents=True, exist_ok=True)
        self._files = [self._path(part).open("w+b", buffering=_BUFFER) for part in range(1 << self._bits)]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for part, file in enumerate(self._files):
            file.close()
            self._path(part).unlink(missing_ok=True)
        self._files = []

    def add(self, hashes: NDArray[np.uint64], state: NDArray[np.uint8], first_row: int) -> None:
        """Append the keys of rows from ``first_row`` on; arrays as :class:`dedupkit.metadata.keys.Keys` has them."""
        from dedupkit.metadata import grouping_kernels as kernels

        counts, shift = np.zeros(1 << self._bits, np.int64), np.uint64(64 - self._bits)
        kernels.count_parts(hashes, state, shift, counts)
        starts = np.cumsum(counts) - counts
        records = np.empty((int(counts.sum()), 5), np.uint32)
        kernels.scatter(hashes, state, shift, first_row, starts.copy(), records)
        for file, start, count in zip(self._files, starts.tolist(), counts.tolist(), strict=True):
            file.write(records[start : start + count].data)

    def label(self, labels: NDArray[np.int32]) -> int:
        """Fill ``labels`` (rows,) with the first row of each row's key, and return the number of distinct keys.

        Rows without a key are left as they are.
        """
        from dedupkit.metadata import grouping_kernels as kernels

        distinct = 0
        for file in self._files:
            file.seek(0)
            records = np.fromfile(file, np.uint32).reshape(-1, 5)
            if len(records):
                table = np.full(1 << (2 * len(records) - 1).bit_length(), -1, np.int32)
                distinct += int(kernels.first_rows(records, table, labels))
        return distinct

    def _path(self, part: int) -> Path:
        return self._folder / f"{part:04d}.keys"
