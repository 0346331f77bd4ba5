"""What a run folder holds for its signals: columns of all samples, and edges."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from dedupkit.runfolder.folder import RunFolder
from dedupkit.signals.equal import bytes_of, first_equal
from dedupkit.signals.matches import leading
from dedupkit.store import count_rows, parquet_writer, read_columns, rows_by_file

__all__ = [
    "Distinct", "Edges", "Scanned", "Written", "distinct_values", "read_column", "usable_values", "values_of",
    "write_edges",
]  # fmt: skip

_SMALL, _FIRST = 1000, 16  # rows of a small shard, on average; shards before which a large one does not count yet
_MOST = 1_000_000  # rows that are held

Edges = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]
"""Pairs a and b, and their scores."""


@dataclass(frozen=True, slots=True)
class Scanned:
    """The samples of a run whose scan is done.

    Attributes:
        folder: The run folder.
        shards: Number of its shards.
        held: Columns that need not be read again.
    """

    folder: RunFolder
    shards: int
    held: pa.Table | None = field(default=None, compare=False, repr=False)

    def __len__(self) -> int:
        if self.held is not None:
            return int(self.held.num_rows)
        return sum(count_rows(self.folder.samples(shard)) for shard in range(self.shards))

    def read(self, *names: str) -> pa.Table:
        """Some columns of all samples, in the order of the manifest."""
        held = self.select(*names)
        return read_column(self.folder, self.shards, *names) if held is None else held

    def readable(self) -> NDArray[np.bool_]:
        """(n,) bool, which samples could be read."""
        held = self.select("error")
        tables = (read_columns(self.folder.samples(shard), ["error"]) for shard in range(self.shards))
        return np.concatenate([table["error"].is_null().to_numpy() for table in (tables if held is None else [held])])

    def select(self, *names: str) -> pa.Table | None:
        """The same where they are held; else None."""
        if self.held is None or not set(names) <= set(self.held.column_names):
            return None
        return self.held.select(list(names))

    def labels(self, name: str) -> NDArray[np.int32]:
        """(n,) int32, the labels that the join of a signal wrote; see :meth:`dedupkit.signals.Signal.labels`."""
        first: NDArray[np.int32] = np.load(self.folder.labels(name))
        return first

    def holding(self, names: Iterable[str]) -> Scanned:
        """The same with some columns in memory where shards are small, so that each file is opened once for them."""
        wanted, tables, rows = list(dict.fromkeys(names)), [], 0
        for shard in range(self.shards if wanted else 0):
            tables.append(read_columns(self.folder.samples(shard), wanted))
            rows += tables[-1].num_rows
            if rows > min(_SMALL * (shard + _FIRST), _MOST):
                return self
        return replace(self, held=pa.concat_tables(tables).combine_chunks()) if tables else self


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
        return leading(self.first)

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
    table = scanned.read(*dict.fromkeys((column, *also)))
    rows, values = usable_values(table, column, usable)
    first = first_equal(values)
    label = np.full(table.num_rows, -1, np.int32)
    label[rows] = rows[first]
    return Distinct(label, _as_array(values.take(pa.array(leading(first)))))


def values_of(
    scanned: Scanned,
    column: str,
    also: tuple[str, ...],
    usable: Callable[[pa.Table], Any],
    samples: NDArray[np.int64],
) -> tuple[NDArray[np.bool_], NDArray[Any]]:
    """The fingerprints of some samples, ascending; arguments as those of :func:`distinct_values`.

    Returns:
        Which of them have one, (k,) bool; and the fingerprints of these.
    """
    names = list(dict.fromkeys((column, *also)))
    held, files = scanned.select(*names), [scanned.folder.samples(shard) for shard in range(scanned.shards)]
    if held is None:
        found = rows_by_file(files, samples)
        parts = [read_columns(file, names).take(pa.array(mine)) for file, _, _, mine in found]
        table = pa.concat_tables(parts or [read_columns(files[0], names).slice(0, 0)])
    else:
        table = held.take(pa.array(samples))
    rows, values = usable_values(table, column, usable)
    present = np.zeros(len(samples), bool)
    present[rows] = True
    return present, _as_array(values)


def usable_values(
    table: pa.Table, column: str, usable: Callable[[pa.Table], Any]
) -> tuple[NDArray[np.int32], pa.Array]:
    """The rows of a table whose fingerprint counts, ascending, and their fingerprints; see :func:`distinct_values`."""
    import pyarrow.compute as pc

    values = table[column].combine_chunks()
    counts = pc.and_(pc.fill_null(usable(table), False), values.is_valid())
    rows = np.flatnonzero(counts.to_numpy()).astype(np.int32)
    return rows, values.take(pa.array(rows))


def _as_array(values: pa.Array) -> NDArray[Any]:
    return bytes_of(values) if pa.types.is_fixed_size_binary(values.type) else values.to_numpy(zero_copy_only=False)


class Written(NamedTuple):
    """What :func:`write_edges` wrote.

    Attributes:
        edges: Number of pairs.
        content: A digest of them that depends neither on their order nor on how they are spread over files: 16 hex
            digits; see :meth:`together`.
    """

    edges: int
    content: str

    @classmethod
    def together(cls, parts: Iterable[Mapping[str, Any]]) -> Written:
        """What several tasks wrote whose summaries hold these two, none of them the same pair.

        >>> Written.together([{"edges": 2, "content": "00ff"}, {"edges": 1, "content": "0001"}])
        Written(edges=3, content='0000000000000100')
        """
        listed = list(parts)
        total = sum(int(part["content"], 16) for part in listed) % 2**64
        return cls(sum(part["edges"] for part in listed), f"{total:016x}")


def write_edges(path: Path, blocks: Iterable[Edges], *, across: bool = False) -> Written:
    """Write scored pairs of samples, block by block.

    Args:
        path: The file.
        blocks: The pairs.
        across: Whether ``b`` numbers other rows than ``a``; otherwise a < b is written.
    """
    schema = pa.schema([("a", pa.int64()), ("b", pa.int64()), ("score", pa.float32())])
    count = content = 0
    with parquet_writer(path, schema) as writer:
        for a, b, score in blocks:
            ends = (a, b) if across else (np.minimum(a, b), np.maximum(a, b))
            writer.write_table(pa.table([*ends, score], schema=schema))
            count += len(a)
            content += int(_mixed(ends[0], ends[1], score).sum(dtype=np.uint64))
    return Written(count, f"{content % 2**64:016x}")


def _mixed(a: NDArray[np.int64], b: NDArray[np.int64], score: NDArray[np.float32]) -> NDArray[np.uint64]:
    """A number for each pair that looks random (Steele, Lea and Flood, OOPSLA 2014, the finalizer of SplitMix)."""
    bits = np.ascontiguousarray(score, np.float32).view(np.uint32).astype(np.uint64)
    x = a.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    for more in (b.astype(np.uint64), bits):
        x = (x ^ more) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        x ^= x >> np.uint64(31)
    return x
