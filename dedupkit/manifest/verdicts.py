"""The verdicts of a manifest, looked up by whatever identifies a sample; read once, lazily, from one open file."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dedupkit.manifest.identity import places

__all__ = ["Rows", "Verdicts"]

Rows = NDArray[np.int64]
"""Row numbers of the manifest, ascending."""

_MOST_KEYS = 2_000_000  # of shards that are remembered, in each process
_MOST_CELLS = 100  # that are read one by one; a placeholder image may stand in thousands of rows


class Verdicts:
    """Which rows of a manifest are kept, and which rows a value stands in.

    The file stays open, so that a manifest that is replaced meanwhile is not mixed with this one.

    Args:
        path: The manifest.
    """

    def __init__(self, path: Path) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        self._stream = pa.OSFile(str(path))  # reads at positions, so that forked workers may share it
        self._file = pq.ParquetFile(self._stream)
        rows = [self._file.metadata.row_group(group).num_rows for group in range(self._file.num_row_groups)]
        self._starts = np.concatenate([[0], np.cumsum(rows)]).astype(np.int64)
        self._by_column: dict[str, _Index] = {}
        self._by_key: dict[str, dict[str, list[int]]] = {}
        self._by_name: dict[str, list[str]] = {}
        self._read_lately: dict[tuple[str, int], Any] = {}

    @cached_property
    def digest(self) -> str:
        """A digest of the verdicts and of the file's footer, which states what they are about."""
        end = self._stream.size() - 8
        size = int.from_bytes(self._stream.read_at(4, end), "little")
        footer = self._stream.read_at(size, end - size)
        return hashlib.sha256(self._packed.tobytes() + footer).hexdigest()[:32]

    def kept(self, rows: Rows) -> NDArray[np.bool_]:
        """Whether each of some rows is kept."""
        bits: NDArray[np.bool_] = (self._packed[rows >> 3] >> (7 - (rows & 7)) & 1).astype(np.bool_)
        return bits

    def in_source_surely(self, source: str, key: str) -> bool | None:
        """Whether a key of one source is kept; None where the source has no such key or may repeat it."""
        table = self._keys(source)
        rows = table.get(key)
        if rows is None or len(rows) > 1 or f"{key}#2" in table:
            return None
        return bool(self._bits[rows[0] >> 3] >> (7 - (rows[0] & 7)) & 1)

    def in_source(self, source: str, key: str) -> Rows:
        """The rows of a key in one source; a key that the source repeats has several, called ``KEY#2`` and so on."""
        table = self._keys(source)
        found = list(table.get(key, []))
        number = 2
        while (repeated := table.get(f"{key}#{number}")) is not None:
            found += repeated
            number += 1
        return np.array(sorted(found), np.int64)

    def sources(self, name: str) -> list[str]:
        """The sources that a shard's name may mean: those that end as its path does, as far as one does."""
        if name not in self._by_name:
            found: list[str] = []
            for place in places(name):
                parts = place.split("/")
                ends = ("/".join(parts[-length:]) for length in range(len(parts), 0, -1))
                found += next((self._by_end[end] for end in ends if end in self._by_end), [])
            self._by_name = {**dict(list(self._by_name.items())[-999:]), name: list(dict.fromkeys(found))}
        return self._by_name[name]

    def rows(self, column: str, value: str) -> Rows:
        """The rows with a value in a column; one row in ten billion may be there by chance."""
        if column not in self._by_column:
            self._by_column[column] = _Index(self._read(column))
        return self._by_column[column].rows(value)

    def having(self, rows: Rows, column: str, *values: str | None) -> Rows:
        """Those of some rows that have one of some values in a column."""
        if len(rows) > _MOST_CELLS and None not in values:
            found = [self.rows(column, value) for value in values if value is not None]
            return np.intersect1d(rows, np.concatenate(found))
        return rows[[self._cell(column, row) in values for row in rows.tolist()]]

    @cached_property
    def all_sources(self) -> list[str]:
        """The sources, in the manifest's order."""
        return list(self._groups)

    @cached_property
    def _packed(self) -> NDArray[np.uint8]:
        """One bit for each row."""
        import pyarrow.compute as pc

        parts = [
            pc.equal(batch["verdict"], "keep").to_numpy(zero_copy_only=False)
            for batch in self._file.iter_batches(columns=["verdict"], use_threads=False)
        ]
        return np.packbits(np.concatenate([np.zeros(0, np.bool_), *parts]))

    @cached_property
    def _bits(self) -> bytes:
        return self._packed.tobytes()

    @cached_property
    def _groups(self) -> dict[str, list[int]]:
        """The row groups of each source; its range of values says it where it is one value."""
        column = self._file.schema_arrow.names.index("source")
        groups: dict[str, list[int]] = {}
        for group in range(self._file.num_row_groups):
            stated = self._file.metadata.row_group(group).column(column).statistics
            if stated is not None and stated.has_min_max and stated.min == stated.max:
                names = [stated.min]
            else:
                names = self._column("source", group).unique().to_pylist()
            for name in names:
                groups.setdefault(name, []).append(group)
        return groups

    @cached_property
    def _by_end(self) -> dict[str, list[str]]:
        """Every way to end a source's path, to the sources that end so."""
        table: dict[str, list[str]] = {}
        for source in self._groups:
            parts = source.split("/")
            for length in range(1, len(parts) + 1):
                table.setdefault("/".join(parts[-length:]), []).append(source)
        return table

    def _keys(self, source: str) -> dict[str, list[int]]:
        """Key to rows in one source."""
        if source not in self._by_key:
            table: dict[str, list[int]] = {}
            for group in self._groups[source]:
                keys, names = self._column("key", group).to_pylist(), self._column("source", group).to_pylist()
                for number, (key, name) in enumerate(zip(keys, names, strict=True), int(self._starts[group])):
                    if name == source:
                        table.setdefault(key, []).append(number)
            while self._by_key and sum(map(len, self._by_key.values())) + len(table) > _MOST_KEYS:
                del self._by_key[next(iter(self._by_key))]
            self._by_key[source] = table
        return self._by_key[source]

    def _cell(self, column: str, row: int) -> Any:
        group = int(np.searchsorted(self._starts, row, side="right")) - 1
        if (column, group) not in self._read_lately:
            self._read_lately = dict(list(self._read_lately.items())[-7:])
            self._read_lately[column, group] = self._column(column, group)
        return self._read_lately[column, group][row - int(self._starts[group])].as_py()

    def _column(self, column: str, group: int) -> Any:
        return self._file.read_row_group(group, columns=[column], use_threads=False)[column]

    def _read(self, column: str) -> Iterable[str | None]:
        for batch in self._file.iter_batches(columns=[column], use_threads=False):
            yield from batch[column].to_pylist()


class _Index:
    """Rows by value, 16 bytes a row: hashes in order, and the rows that they belong to."""

    def __init__(self, values: Iterable[str | None]) -> None:
        # Python's hash is never -1.
        hashes = np.fromiter((-1 if value is None else hash(value) for value in values), np.int64)
        order = np.argsort(hashes, kind="stable")
        present = hashes[order] != -1
        self._hashes, self._rows = hashes[order][present], order[present]

    def rows(self, value: str) -> Rows:
        low, high = (int(np.searchsorted(self._hashes, hash(value), side)) for side in ("left", "right"))
        found: Rows = self._rows[low:high]
        return found
