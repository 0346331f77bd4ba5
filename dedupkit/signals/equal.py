"""Which fingerprints of a column are equal, however many bytes they are."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

__all__ = ["as_values", "bytes_of", "first_equal", "part_of"]

_TABLE_BYTES = 1 << 29  # of values that are looked up together: Arrow's tables hold no 2 GiB

Ints = NDArray[np.int64]


def first_equal(values: pa.Array) -> Ints:
    """For each of some values, none of which is null, the place of the first that equals it, (n,) int64.

    Values of a fixed width are put into parts by their bytes where they are many.

    Example:
        >>> first_equal(pa.array([7, 5, 7, 5, 6])).tolist()
        [0, 1, 0, 1, 4]
    """
    parts = -(-values.nbytes // _TABLE_BYTES)
    if parts <= 1 or not pa.types.is_fixed_size_binary(values.type) or values.type.byte_width < 8:
        return _first_in_table(values)
    part, first = part_of(bytes_of(values), parts), np.empty(len(values), np.int64)
    for number in range(parts):
        mine = np.flatnonzero(part == number)
        first[mine] = mine[_first_in_table(values.take(pa.array(mine)))]
    return first


def _first_in_table(values: pa.Array) -> Ints:
    codes = values.dictionary_encode().indices.to_numpy()
    first = np.empty(int(codes.max(initial=-1)) + 1, np.int64)
    first[codes[::-1]] = np.arange(len(codes))[::-1]  # the last write is the first place
    found: Ints = first[codes]
    return found


def part_of(values: NDArray[np.uint8], parts: int) -> Ints:
    """The range of bytes that each fingerprint, (n, width) uint8, is in: its first eight bytes, mixed.

    >>> values = np.arange(80, dtype=np.uint8).reshape(10, 8)
    >>> part_of(values, 3).tolist() == part_of(values[::-1], 3)[::-1].tolist()
    True
    """
    first = np.ascontiguousarray(values[:, :8]).view("<u8")[:, 0]
    mixed = (first ^ (first >> np.uint64(32))) * np.uint64(0x9E3779B97F4A7C15)  # 2^64 over the golden ratio
    part: Ints = (((mixed >> np.uint64(32)) * np.uint64(parts)) >> np.uint64(32)).astype(np.int64)
    return part


def as_values(rows: NDArray[Any]) -> pa.Array:
    """Rows of bytes, or scalars, as an Arrow array."""
    if rows.ndim == 1:
        return pa.array(rows)
    width = math.prod(rows.shape[1:]) * rows.itemsize
    flat = np.ascontiguousarray(rows).view(np.uint8).reshape(len(rows), width)
    return pa.FixedSizeBinaryArray.from_buffers(pa.binary(flat.shape[1]), len(flat), [None, pa.py_buffer(flat)])


def bytes_of(values: pa.Array) -> NDArray[np.uint8]:
    """The bytes of a column of a fixed width, (n, width); rows without a value are undefined."""
    width = values.type.byte_width
    flat = np.frombuffer(values.buffers()[1], np.uint8)[values.offset * width :][: len(values) * width]
    return flat.reshape(-1, width)
