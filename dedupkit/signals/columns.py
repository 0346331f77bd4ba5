"""What a run folder holds for its signals: columns of all samples, and edges."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from dedupkit.runfolder.folder import RunFolder
from dedupkit.store import count_rows, parquet_writer, read_columns

__all__ = ["Distinct", "Edges", "Scanned", "bytes_of", "distinct_values", "read_column", "write_edges"]

Edges = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]
"""Pairs a and b, and their scores."""


@dataclass(frozen=True, slots=True)
class Scanned:
    """The samples of a run whose scan is done.

    Attributes:
        folder: The run folder.
        shards: Number of its shards.
    """

    folder: RunFolder
    shards: int

    def __len__(self) -> int:
        return sum(count_rows(self.folder.samples(shard)) for shard in range(self.shards))

    def read(self, *names: str) -> pa.Table:
        """Some columns of all samples, in the order of the manifest."""
        return read_column(self.folder, self.shards, *names)


@dataclass(frozen=True, slots=True)
class Distinct:
    """The fingerprints of all samples, equal ones collapsed.

    Attributes:
        first: (n,) int32, for each sample the smallest sample with the same fingerprint, -1 where it has none.
        values: The distinct fingerprints in the order in which they first occur: (k, bytes) uint8 for columns of
            fixed-width bytes, (k,) numbers for columns of numbers, else (k,) objects.
    """

    first: NDArray[np.int32]
    values: NDArray[Any]

    @property
    def leaders(self) -> NDArray[np.int64]:
        """(k,) int64, the first sample that has each of ``values``."""
        return np.flatnonzero(self.first == np.arange(len(self.first)))

    def rows_of(self, samples: NDArray[np.int64]) -> tuple[NDArray[np.bool_], NDArray[Any]]:
        """Which of some samples have a fingerprint, and the fingerprints of these."""
        mine = self.first[samples]
        present = mine >= 0
        return present, self.values[np.searchsorted(self.leaders, mine[present])]


def read_column(folder: RunFolder, shards: int, *names: str) -> pa.Table:
    """Some columns of all samples, in the order of the manifest."""
    return pa.concat_tables(read_columns(folder.samples(shard), names) for shard in range(shards))


def distinct_values(
    scanned: Scanned, column: str, also: tuple[str, ...], usable: Callable[[pa.Table], Any]
) -> Distinct:
    """The fingerprints that one column of the samples holds, equal ones collapsed.

    Args:
        scanned: The samples.
        column: The column of fingerprints.
        also: Further columns that ``usable`` looks at.
        usable: Table of these columns to booleans, one per sample: whether its fingerprint counts.
    """
    import pyarrow.compute as pc

    table = scanned.read(*dict.fromkeys((column, *also)))
    values = table[column].combine_chunks()
    counts = pc.and_(pc.fill_null(usable(table), False), values.is_valid())
    rows = np.flatnonzero(counts.to_numpy()).astype(np.int32)
    encoded = values.take(pa.array(rows)).dictionary_encode()
    indices = encoded.indices.to_numpy()
    first = np.empty(len(encoded.dictionary), np.int32)
    first[indices[::-1]] = rows[::-1]  # the last write is the smallest sample
    label = np.full(table.num_rows, -1, np.int32)
    label[rows] = first[indices]
    return Distinct(label, _as_array(encoded.dictionary))


def _as_array(values: pa.Array) -> NDArray[Any]:
    return bytes_of(values) if pa.types.is_fixed_size_binary(values.type) else values.to_numpy(zero_copy_only=False)


def bytes_of(values: pa.Array) -> NDArray[np.uint8]:
    """The bytes of a column of a fixed width, (n, width); rows without a value are undefined."""
    width = values.type.byte_width
    flat = np.frombuffer(values.buffers()[1], np.uint8)[values.offset * width :][: len(values) * width]
    return flat.reshape(-1, width)


def write_edges(path: Path, blocks: Iterable[Edges], *, across: bool = False) -> int:
    """Write scored pairs of samples, block by block; returns their number.

    Args:
        path: The file.
        blocks: The pairs.
        across: Whether ``b`` numbers other rows than ``a``; otherwise a < b is written.
    """
    schema = pa.schema([("a", pa.int64()), ("b", pa.int64()), ("score", pa.float32())])
    count = 0
    with parquet_writer(path, schema) as writer:
        for a, b, score in blocks:
            ends = [a, b] if across else [np.minimum(a, b), np.maximum(a, b)]
            writer.write_table(pa.table([*ends, score], schema=schema))
            count += len(a)
    return count
