"""Images stored in Parquet: Hugging Face (``image: {bytes, path}`` or plain binary) and img2dataset's own output."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import chain, repeat
from typing import IO, Any

from dedupkit import store
from dedupkit.sources.arrow import as_rows
from dedupkit.sources.columns import (
    ALIASES,
    IMAGE_EXTENSIONS,
    READ_COLUMNS,
    as_score,
    as_text,
    clean_text,
    first_present,
    image_extension,
)
from dedupkit.sources.keys import text_of, unique_key
from dedupkit.sources.limits import MAX_IMAGE_BYTES, too_large
from dedupkit.sources.sample import (
    NOTHING,
    Extra,
    NoImagesError,
    PassedOver,
    Place,
    Sample,
    ShardError,
    as_shard_errors,
    is_asked,
)

__all__ = ["ParquetShard", "image_column"]

_IMAGE_COLUMNS = ("image", "img", "jpg", "jpeg", "png", "webp", "image_bytes", "bytes", "content")
_BATCH_ROWS, _BATCH_BYTES = 128, 64 << 20  # held at once, the second as far as one row allows


@dataclass(frozen=True, slots=True)
class ParquetShard:
    """A Parquet file with one image a row.

    The key is img2dataset's ``key`` where the file is img2dataset's, else the row number, eight digits wide. A key that
    comes again, where files of several runs were joined, is named ``KEY#2`` and so on.

    Attributes:
        path: Path of the file.
        beside: how many files of its folder belong to no shard, and the name of one; told by one shard for all.
    """

    path: str
    beside: tuple[int, str] = NOTHING

    @property
    def source(self) -> str:
        """The path as text."""
        return text_of(self.path)

    @property
    def paths(self) -> tuple[str, ...]:
        """The file."""
        return (self.path,)

    @property
    def settings(self) -> str:
        """Nothing."""
        return ""

    def read(self, *, extra: Extra = False, passed_over: PassedOver | None = None) -> Iterator[Sample]:
        """One sample a row, in row order."""
        if passed_over is not None and self.beside[0]:
            passed_over.add(text_of(self.beside[1]), self.beside[0])
        return as_shard_errors(self._read(extra))

    def _read(self, extra: Extra) -> Iterator[Sample]:
        with store.open_binary(self.path) as stream:
            file = _opened(stream)
            schema = file.schema_arrow
            column = image_column(schema)
            if column is None:
                raise NoImagesError(_no_images(schema))
            keyed = {"key", "status"} <= set(schema.names)
            states = keyed and "error_message" in schema.names  # else a column of the user's own may be called status
            wanted = READ_COLUMNS | {column, "key", "status", "error_message"}
            names = [name for name in schema.names if name in wanted]
            more = [name for name in schema.names if name not in wanted and is_asked(name, extra)]
            others = self._others(more) if extra else repeat({})
            named: dict[str, int] = {}
            number = 0
            for batch in _batches(file, names, range(file.num_row_groups)):
                for row in as_rows(batch):
                    key = clean_text(row["key"]) if keyed else None
                    key = f"{number:08d}" if key is None else key
                    sample = _sample(unique_key(key, named) if keyed else key, row, column, number, states=states)
                    yield replace(sample, extra=row | next(others, {})) if extra else sample
                    number += 1

    def _others(self, names: Sequence[str]) -> Iterator[dict[str, Any]]:
        """The columns that the scan does not read, as far as they can be read: a break in one costs no image."""
        if not names:
            return
        with store.open_binary(self.path) as stream, suppress(Exception):
            file = _opened(stream)
            for batch in _batches(file, names, range(file.num_row_groups)):
                yield from as_rows(batch)

    def fetch_many(self, places: Sequence[Place]) -> Iterator[tuple[Place, bytes | OSError]]:
        """Read each row group that holds one of the rows once, and of it the column of images alone."""
        return as_shard_errors(self._fetch_many(places))

    def _fetch_many(self, places: Sequence[Place]) -> Iterator[tuple[Place, bytes | OSError]]:
        wanted = {-1 if place.offset is None else place.offset: place for place in places}
        with store.open_binary(self.path) as stream:
            file = _opened(stream)
            column = image_column(file.schema_arrow)
            groups, rows = _groups_of(file, wanted)
            numbers = iter(rows)
            for batch in _batches(file, [column], groups) if column is not None else ():
                values = batch.column(0)
                for place_in_batch, number in zip(range(batch.num_rows), numbers, strict=False):
                    if number in wanted:
                        data = stored_bytes(values[place_in_batch].as_py())
                        place = wanted.pop(number)
                        yield place, ShardError("the row no longer stores an image") if data is None else data
                if not wanted:
                    return
        for place in wanted.values():
            yield place, ShardError("the file no longer has this row")


def _opened(stream: IO[bytes]) -> Any:
    """The file behind a stream.

    Raises:
        ShardError: it is no Parquet file.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.ParquetFile(stream)
    except (pa.ArrowException, OSError) as error:
        raise ShardError(f"broken Parquet: {error}") from error


def _no_images(schema: Any) -> str:
    """What to do about a file without a column of images."""
    present = ", ".join(schema.names) or "none"
    message = f"no column of images in the Parquet file; its columns: {present}"
    if set(schema.names) & set(ALIASES["url"]):
        message += "; these are addresses of images: download them with img2dataset, then name its output here "
        message += "(dedupkit metadata removes duplicates before the download)"
    return message


def stored_bytes(value: Any) -> bytes | None:
    """The image in a cell: plain bytes, or the field ``bytes`` of a struct."""
    data = value.get("bytes") if isinstance(value, dict) else value
    return None if data is None else bytes(data)


def _groups_of(file: Any, wanted: Iterable[int]) -> tuple[list[int], Iterator[int]]:
    """The row groups that hold wanted rows, and the numbers of all their rows in order."""
    numbers = sorted(wanted)
    groups: list[int] = []
    ranges: list[range] = []
    start = 0
    for group in range(file.num_row_groups):
        rows = range(start, start := start + file.metadata.row_group(group).num_rows)
        if bisect_left(numbers, rows.start) < bisect_left(numbers, rows.stop):
            groups.append(group)
            ranges.append(rows)
    return groups, chain.from_iterable(ranges)


def _batches(file: Any, columns: Sequence[str], groups: Sequence[int]) -> Iterator[Any]:
    """Batches of rows, those before a break in the file included.

    Raises:
        ShardError: the rest cannot be read.
    """
    import pyarrow as pa

    done = 0
    sizes = [(group.total_byte_size, group.num_rows) for group in map(file.metadata.row_group, groups)]
    per_row = max((size // max(rows, 1) for size, rows in sizes), default=0)
    rows_at_once = max(1, min(_BATCH_ROWS, _BATCH_BYTES // max(per_row, 1)))
    try:
        for batch in file.iter_batches(batch_size=rows_at_once, row_groups=list(groups), columns=list(columns)):
            done += batch.num_rows
            yield batch
    except (pa.ArrowException, OSError) as error:
        # The batch that broke may begin with sound rows, in this row group or in the ones before.
        yield from _row_by_row(file, columns, groups, done)
        raise ShardError(f"broken Parquet: {error}") from error


def _row_by_row(file: Any, columns: Sequence[str], groups: Sequence[int], done: int) -> Iterator[Any]:
    """The rows that can be read behind the first ``done`` ones."""
    import pyarrow as pa

    for group in groups:
        rows = file.metadata.row_group(group).num_rows
        if done < rows:
            try:
                for number, row in enumerate(file.iter_batches(1, row_groups=[group], columns=list(columns))):
                    if number >= done:
                        yield row
            except (pa.ArrowException, OSError):
                return
        done = max(0, done - rows)


def image_column(schema: Any) -> str | None:
    """The column of a pyarrow schema that holds images: a known name, else the only binary one."""
    candidates = [item.name for item in schema if _holds_bytes(item.type)]
    known = [name for name in _IMAGE_COLUMNS if name in candidates]
    if known:
        return known[0]
    return candidates[0] if len(candidates) == 1 else None


def _holds_bytes(kind: Any) -> bool:
    import pyarrow as pa

    if pa.types.is_struct(kind):
        place = kind.get_field_index("bytes")
        return place >= 0 and _holds_bytes(kind.field(place).type)
    if pa.types.is_dictionary(kind):
        return _holds_bytes(kind.value_type)
    return any(
        is_kind(kind) for is_kind in (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_fixed_size_binary)
    )


def _sample(key: str, row: dict[str, Any], column: str, number: int, *, states: bool) -> Sample:
    value = row.pop(column)
    data = stored_bytes(value)
    path = value.get("path") if isinstance(value, dict) else None
    error = None
    status = row.get("status") if states else None
    if status and status != "success":
        message = row.get("error_message")
        error, data = (f"{status}: {message}" if message else str(status)), None
    elif data is None:
        error = f"the row stores no image bytes, only the path {path!r}" if path else "the row stores no image"
    elif len(data) > MAX_IMAGE_BYTES:
        error, data = too_large("the image", len(data)), None
    extension = column if column in IMAGE_EXTENSIONS else image_extension(str(path or "")) or "jpg"
    caption = as_text(row, "caption")
    members = {} if data is None else {extension: data}
    if caption is not None and data is not None:
        members["txt"] = caption.encode()
    return Sample(
        key=key,
        members=members,
        image_ext=None if data is None else extension,
        error=clean_text(error),
        caption=caption,
        url=as_text(row, "url"),
        uid=as_text(row, "uid"),
        clip_score=as_score(first_present(row, "clip_score")),
        offset=number,
    )
