"""URL lists in Parquet, read in steps of little memory whatever the size of their row groups."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from dedupkit.errors import DedupkitError
from dedupkit.metadata import pages
from dedupkit.metadata.columns import ROWS, Batch, find_roles
from dedupkit.store import atomic_path

__all__ = ["ParquetList"]

_BATCH_BYTES = 64 << 20
_BUFFER = 1 << 20  # a column chunk is read in steps of so many bytes, not whole


class ParquetList:
    """A Parquet file. Row groups that cannot be read, or not in little memory, become batches with a problem."""

    def __init__(self, path: Path, meta: Sequence[str] = ()) -> None:
        self.path = path
        try:
            with pq.ParquetFile(path) as file:
                self._schema = file.schema_arrow
                groups = [file.metadata.row_group(group) for group in range(file.num_row_groups)]
                self._groups = [group.num_rows for group in groups]
                self._steps = [_rows_a_batch(group) for group in groups]
                self._problems = {
                    number: said for number, group in enumerate(groups) if (said := _problem(path, group))
                }
                self._compression = _compression(file)
        except (pa.ArrowException, OSError, ValueError) as error:
            raise DedupkitError(f"{path} is no Parquet file that can be read: {error}") from error
        self.names = list(self._schema.names)
        self.columns = find_roles(self.names, path, self._unfit(), meta)
        self.rows = sum(self._groups)

    def batches(self, roles: Sequence[str]) -> Iterator[Batch]:
        """See :meth:`dedupkit.metadata.lists.UrlList.batches`."""
        wanted = {role: self.columns[role] for role in roles if role in self.columns}
        for group, rows in enumerate(self._groups):
            done = 0
            if group in self._problems:
                yield Batch(rows, problem=f"row group {group} is not read: {self._problems[group]}")
                continue
            try:
                for batch in self._read(group, sorted(set(wanted.values()))):
                    yield Batch(batch.num_rows, {role: _column(batch, name) for role, name in wanted.items()})
                    done += batch.num_rows
            except (pa.ArrowException, OSError, ValueError) as error:
                yield Batch(rows - done, problem=f"row group {group} cannot be read: {_first_line(error)}")

    def write(self, kept: NDArray[np.bool_], to: Path) -> None:
        """See :meth:`dedupkit.metadata.lists.UrlList.write`; rows that cannot be read are left out."""
        start = 0
        with (
            atomic_path(to) as temporary,
            pq.ParquetWriter(temporary, self._schema, compression=self._compression) as out,
        ):
            for group, rows in enumerate(self._groups):
                mine = kept[start : start + rows]
                start += rows
                if not mine.any():
                    continue
                done = 0
                try:
                    for batch in self._read(group, None):
                        chosen = _chosen(batch, pa.array(mine[done : done + batch.num_rows]))
                        done += batch.num_rows
                        if chosen.num_rows:
                            out.write_batch(chosen)
                        if not mine[done:].any():  # what follows may be the part that cannot be read
                            break
                except (pa.ArrowException, OSError, ValueError) as error:
                    raise DedupkitError(
                        f"{self.path}, row group {group}: a column that was not looked at cannot be read "
                        f"({_first_line(error)}); leave the file out, or repair it"
                    ) from error

    def _unfit(self) -> dict[str, Any]:
        """The columns whose values are neither texts nor numbers, with their types."""
        return {field.name: field.type for field in self._schema if pa.types.is_nested(field.type)}

    def _read(self, group: int, columns: list[str] | None) -> Iterator[Any]:
        if columns is not None and len(set(self._schema.names)) < len(self._schema.names):
            columns = None  # names that come twice cannot be asked for
        with pq.ParquetFile(self.path, buffer_size=_BUFFER) as file:
            yield from file.iter_batches(self._steps[group], row_groups=[group], columns=columns)


def _chosen(batch: Any, mask: Any) -> Any:
    """The rows of a mask; columns of views, which pyarrow does not filter, pass through the type that it does."""
    try:
        return batch.filter(mask)
    except pa.ArrowNotImplementedError:
        plain = {"string_view": pa.large_string(), "binary_view": pa.large_binary()}
        types = [plain.get(str(column.type), column.type) for column in batch.columns]
        columns = [column.cast(kind).filter(mask) for column, kind in zip(batch.columns, types, strict=True)]
        back = [column.cast(field.type) for column, field in zip(columns, batch.schema, strict=True)]
        return pa.RecordBatch.from_arrays(back, schema=batch.schema)


def _column(batch: Any, name: str) -> Any:
    return batch.column(batch.schema.names.index(name))


def _rows_a_batch(group: Any) -> int:
    size: int = group.total_byte_size
    return max(1, min(ROWS, _BATCH_BYTES * int(group.num_rows) // max(1, size)))


def _problem(path: Path, group: Any) -> str | None:
    """Why a row group would take too much memory, or None."""
    if group.total_byte_size <= pages.MAX_PAGE_BYTES:
        return None
    try:
        said = pages.oversized_column(path, group, pages.MAX_PAGE_BYTES)
    except ValueError as error:
        return str(error)
    return said and f"{said}, more than {pages.MAX_PAGE_BYTES:,} (DEDUPKIT_MAX_PAGE_BYTES)"


def _compression(file: Any) -> str:
    metadata = file.metadata
    if not metadata.num_row_groups or not metadata.num_columns:
        return "zstd"
    name = metadata.row_group(0).column(0).compression.lower()
    return "none" if name == "uncompressed" else name


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
