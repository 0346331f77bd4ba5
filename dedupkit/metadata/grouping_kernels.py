"""The compiled loops that sort keys into parts and find the first row of each. Importing this file imports numba."""

from typing import Any

import numpy as np

from dedupkit.metadata.keys import DONE
from dedupkit.neighbors.hamming.kernels import njit
from dedupkit.neighbors.sets.splitmix import mix

__all__ = ["count_parts", "first_rows", "scatter"]


@njit
def count_parts(keys: Any, state: Any, shift: Any, counts: Any) -> None:
    """How many keys go to each part: the part is the highest bits of the hash."""
    for row in range(len(keys)):
        if state[row] == DONE:
            counts[np.int64(keys[row, 0] >> shift)] += 1


@njit
def scatter(keys: Any, state: Any, shift: Any, first_row: Any, places: Any, out: Any) -> None:
    """Sort keys into parts, in the order of rows; ``out`` (n, 5) uint32 holds two halves of each hash, and the row."""
    keep = np.uint64(0xFFFFFFFF)
    for row in range(len(keys)):
        if state[row] == DONE:
            part = np.int64(keys[row, 0] >> shift)
            at = places[part]
            places[part] = at + 1
            high, low = keys[row, 0], keys[row, 1]
            out[at, 0], out[at, 1] = np.uint32(high >> np.uint64(32)), np.uint32(high & keep)
            out[at, 2], out[at, 3] = np.uint32(low >> np.uint64(32)), np.uint32(low & keep)
            out[at, 4] = np.uint32(first_row + row)


@njit
def first_rows(records: Any, table: Any, labels: Any) -> Any:
    """Label each row of a part by the first row with the same key; returns the number of distinct keys.

    ``table`` is a power of two of slots filled with -1, more than there are records.
    """
    mask, distinct = np.uint64(len(table) - 1), 0
    for record in range(len(records)):
        slot = mix(np.uint64(records[record, 1]) | np.uint64(records[record, 2]) << np.uint64(32)) & mask
        while True:
            known = table[slot]
            if known < 0:
                table[slot] = record
                labels[records[record, 4]] = records[record, 4]
                distinct += 1
                break
            if (
                records[known, 0] == records[record, 0] and records[known, 1] == records[record, 1]
                and records[known, 2] == records[record, 2] and records[known, 3] == records[record, 3]
            ):  # fmt: skip
                labels[records[record, 4]] = records[known, 4]
                break
            slot = (slot + np.uint64(1)) & mask
    return distinct
