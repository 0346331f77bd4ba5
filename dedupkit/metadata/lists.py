"""URL lists as files: Parquet, TSV and CSV, read batch by batch and written again without the rows that go."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from types import MappingProxyType
from typing import Any, BinaryIO, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from dedupkit.errors import DedupkitError
from dedupkit.metadata import pages
from dedupkit.sources.columns import ALIASES
from dedupkit.store import atomic_path

__all__ = ["HASH_COLUMNS", "ROLES", "Batch", "UrlList", "open_list"]

HASH_COLUMNS = ("sha256", "hash", "image_phash", "phash", "md5", "sha512")
"""Columns of published hashes. In a rule each name is its column, but ``hash`` is the first of them but ``phash``."""

ROLES: dict[str, tuple[str, ...]] = {
    "url": ALIASES["url"],
    "caption": ALIASES["caption"],
    "hash": ("sha256", "hash", "image_phash", "md5", "sha512"),
    "width": ("width", "WIDTH", "original_width"),
    "height": ("height", "HEIGHT", "original_height"),
    "clip_score": ALIASES["clip_score"],
    **{name: (name,) for name in HASH_COLUMNS if name != "hash"},
}
"""The columns that are looked at, and the names under which data sets store them."""

_ROWS = 1 << 17
_BATCH_BYTES = 64 << 20
_BUFFER = 1 << 20  # a column chunk is read in steps of so many bytes, not whole
_LINE_BYTES = 60  # of a line of text that is short
_SUFFIXES = {".parquet": "parquet", ".tsv": "tsv", ".csv": "csv", ".txt": "tsv"}


@dataclass(frozen=True, slots=True)
class Batch:
    """Some rows of a list.

    Attributes:
        rows: number of rows.
        columns: Columns that the list has, by role: pyarrow arrays.
        problem: why the rows cannot be read; they then have no columns.
    """

    rows: int
    columns: dict[str, Any] = field(default_factory=dict)
    problem: str | None = None


class UrlList(Protocol):
    """A file with one URL a row."""

    @property
    def path(self) -> Path:
        """The file."""

    @property
    def rows(self) -> int:
        """The number of rows, or an estimate."""

    @property
    def columns(self) -> dict[str, str]:
        """By role the name of the column that has it."""

    @property
    def names(self) -> list[str]:
        """The names of all columns."""

    def batches(self, roles: Sequence[str]) -> Iterator[Batch]:
        """The rows in order, with the columns of some roles."""

    def write(self, kept: NDArray[np.bool_], to: Path) -> None:
        """Write the rows that are kept, in their order and with all columns."""


def open_list(path: str | Path) -> UrlList:
    """Open a URL list by its suffix.

    Raises:
        DedupkitError: no such file, another suffix, a broken file, or no column of URLs; the message names the columns.
    """
    path = Path(path)
    kind = _SUFFIXES.get(path.suffix.lower())
    if not path.is_file():
        raise DedupkitError(f"no such file: {path}")
    if kind is None:
        raise DedupkitError(f"cannot tell the format of {path}; its name must end in {', '.join(_SUFFIXES)}")
    return ParquetList(path) if kind == "parquet" else TextList(path, kind)


class ParquetList:
    """A Parquet file. Row groups that cannot be read, or not in little memory, become batches with a problem."""

    def __init__(self, path: Path) -> None:
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
        self.columns = _roles(self.names, path, self._unfit())
        self.rows = sum(self._groups)

    def batches(self, roles: Sequence[str]) -> Iterator[Batch]:
        """See :meth:`UrlList.batches`."""
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
        """See :meth:`UrlList.write`; rows that cannot be read are left out."""
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


class TextList:
    """Rows as lines of a TSV, or records of a CSV; what is kept is written byte for byte.

    A first line that names a column of URLs is a header; without one, the column whose first value is a URL has them,
    and the other one of two has the captions.
    """

    def __init__(self, path: Path, kind: str) -> None:
        self.path, self._kind = path, kind
        first = next(self._records(), (b"", []))[1]
        known = {name for names in ROLES.values() for name in names}
        self._header = any(field in known for field in first) and not any(_is_url(field) for field in first)
        self.names = first if self._header else self._guessed(first)
        self.columns = _roles(self.names, path)
        self._places = {role: self.names.index(name) for role, name in self.columns.items()}
        self.rows = path.stat().st_size // _LINE_BYTES + 1

    def batches(self, roles: Sequence[str]) -> Iterator[Batch]:
        """See :meth:`UrlList.batches`."""
        places = {role: self._places[role] for role in roles if role in self._places}
        records = self._records()
        if self._header:
            next(records)
        while block := list(islice(records, _ROWS)):
            columns = {
                role: pa.array([_field(fields, place) for _, fields in block], pa.large_string())
                for role, place in places.items()
            }
            yield Batch(len(block), columns)

    def write(self, kept: NDArray[np.bool_], to: Path) -> None:
        """See :meth:`UrlList.write`."""
        records = self._records()
        with atomic_path(to) as temporary, temporary.open("wb") as out:
            if self._header:
                out.write(next(records)[0])
            for (line, _), stays in zip(records, kept.tolist(), strict=True):
                if stays:
                    out.write(line)

    def _records(self) -> Iterator[tuple[bytes, list[str]]]:
        """Each record as it stands in the file, and its fields."""
        with self.path.open("rb") as stream:
            if self._kind == "tsv":
                for line in self._lines(stream):
                    yield line, line.rstrip(b"\r\n").decode("utf-8", "replace").split("\t")
                return
            consumed: list[bytes] = []

            def lines() -> Iterator[str]:
                for line in self._lines(stream):
                    consumed.append(line)
                    yield line.decode("utf-8", "replace")

            limit = csv.field_size_limit(pages.MAX_PAGE_BYTES)
            try:
                for fields in csv.reader(lines()):
                    yield b"".join(consumed), fields
                    consumed.clear()
            except csv.Error as error:
                raise DedupkitError(f"{self.path} cannot be read as CSV: {error}") from error
            finally:
                csv.field_size_limit(limit)

    def _lines(self, stream: BinaryIO) -> Iterator[bytes]:
        number = 0
        while line := stream.readline(pages.MAX_PAGE_BYTES + 1):
            number += 1
            if len(line) > pages.MAX_PAGE_BYTES:
                raise DedupkitError(
                    f"{self.path}, line {number:,} has more than {pages.MAX_PAGE_BYTES:,} bytes "
                    "(DEDUPKIT_MAX_PAGE_BYTES); leave it out"
                )
            yield line

    def _guessed(self, first: list[str]) -> list[str]:
        place = next((place for place, field in enumerate(first) if _is_url(field)), None)
        names = [f"column {number + 1}" for number in range(len(first))]
        if place is not None:
            names[place] = "url"
            if len(names) == 2:
                names[1 - place] = "caption"
        return names


def _roles(names: Sequence[str], path: Path, unfit: Mapping[str, Any] = MappingProxyType({})) -> dict[str, str]:
    """Which column has which role, by the table of names; lists and objects have none."""
    found = {}
    for role, aliases in ROLES.items():
        name = next((alias for alias in aliases if alias in names and alias not in unfit), None)
        if name is not None:
            found[role] = name
    if "url" not in found:
        other = next((alias for alias in ROLES["url"] if alias in unfit), None)
        if other is not None:
            raise DedupkitError(f"{path} has URLs of type {unfit[other]} in its column {other}, not of text")
        raise DedupkitError(f"{path} has no column of URLs; its columns: {', '.join(names) or 'none'}")
    return found


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


def _field(fields: list[str], place: int) -> str | None:
    return fields[place] if place < len(fields) else None


def _is_url(text: str) -> bool:
    return text.startswith(("http://", "https://"))


def _rows_a_batch(group: Any) -> int:
    size: int = group.total_byte_size
    return max(1, min(_ROWS, _BATCH_BYTES * int(group.num_rows) // max(1, size)))


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
