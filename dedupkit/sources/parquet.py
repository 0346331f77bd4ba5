"""Images stored in Parquet: Hugging Face (``image: {bytes, path}`` or plain binary) and img2dataset's own output."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

from dedupkit import store
from dedupkit.sources.sample import (
    ALIASES,
    IMAGE_EXTENSIONS,
    Place,
    Sample,
    ShardError,
    as_rows,
    as_score,
    clean_text,
    first_present,
    image_extension,
)

__all__ = ["ParquetShard", "image_column"]

_IMAGE_COLUMNS = ("image", "img", "jpg", "jpeg", "png", "webp", "image_bytes", "bytes", "content")
_READ = frozenset(name for field in ("caption", "url", "uid", "clip_score") for name in ALIASES[field])
_BATCH = 128  # rows held at once


@dataclass(frozen=True, slots=True)
class ParquetShard:
    """A Parquet file with one image a row.

    The key is img2dataset's ``key`` where the file is img2dataset's, else the row number, eight digits wide.
    """

    source: str

    @property
    def paths(self) -> tuple[str, ...]:
        """The file."""
        return (self.source,)

    def read(self) -> Iterator[Sample]:
        """One sample a row, in row order."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            with store.open_binary(self.source) as stream:
                file = pq.ParquetFile(stream)
                column = image_column(file.schema_arrow)
                if column is None:
                    present = ", ".join(file.schema_arrow.names) or "none"
                    raise ShardError(f"no column of images in the Parquet file; its columns: {present}")
                keyed = {"key", "status"} <= set(file.schema_arrow.names)
                wanted = _READ | {column, "key", "status", "error_message"}
                names = [name for name in file.schema_arrow.names if name in wanted]
                number = 0
                for batch in _batches(file, names, range(file.num_row_groups)):
                    for row in as_rows(batch):
                        key = clean_text(row["key"]) if keyed and row["key"] is not None else f"{number:08d}"
                        yield _sample(key or "", row, column, number)
                        number += 1
        except FileNotFoundError:
            raise ShardError("the shard is gone: no such file") from None
        except (OSError, pa.ArrowException) as error:
            raise (error if isinstance(error, ShardError) else ShardError(f"broken Parquet: {error}")) from error

    def fetch_many(self, places: Sequence[Place]) -> Iterator[tuple[Place, bytes | OSError]]:
        """Read each row group that holds one of the rows once, and of it the column of images alone."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        wanted = {-1 if place.offset is None else place.offset: place for place in places}
        try:
            with store.open_binary(self.source) as stream:
                file = pq.ParquetFile(stream)
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
        except pa.ArrowException as error:
            raise ShardError(f"broken Parquet: {error}") from error
        for place in wanted.values():
            yield place, ShardError("the file no longer has this row")


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
        pyarrow.ArrowException, OSError: the rest cannot be read.
    """
    import pyarrow as pa

    done = 0
    try:
        for batch in file.iter_batches(batch_size=_BATCH, row_groups=list(groups), columns=list(columns)):
            done += batch.num_rows
            yield batch
    except (pa.ArrowException, OSError):
        # The batch that broke may begin with sound rows, in this row group or in the ones before.
        for group in groups:
            rows = file.metadata.row_group(group).num_rows
            if done < rows:
                for number, row in enumerate(file.iter_batches(1, row_groups=[group], columns=list(columns))):
                    if number >= done:
                        yield row
            done = max(0, done - rows)
        raise


def image_column(schema: Any) -> str | None:
    """The column of a pyarrow schema that holds images: a known name, else the only binary one."""
    import pyarrow as pa

    def holds_bytes(kind: Any) -> bool:
        if pa.types.is_struct(kind):
            return bool(kind.get_field_index("bytes") >= 0)
        return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))

    candidates = [item.name for item in schema if holds_bytes(item.type)]
    known = [name for name in _IMAGE_COLUMNS if name in candidates]
    if known:
        return known[0]
    return candidates[0] if len(candidates) == 1 else None


def _sample(key: str, row: dict[str, Any], column: str, number: int) -> Sample:
    value = row.pop(column)
    data = value.get("bytes") if isinstance(value, dict) else value
    path = value.get("path") if isinstance(value, dict) else None
    error = None
    status = row.get("status")
    if status not in (None, "success"):
        message = row.get("error_message")
        error, data = (f"{status}: {message}" if message else str(status)), None
    elif data is None:
        error = f"the row stores no image bytes, only the path {path!r}" if path else "the row stores no image"
    extension = column if column in IMAGE_EXTENSIONS else image_extension(path or "") or "jpg"
    caption = clean_text(first_present(row, "caption"))
    members = {} if data is None else {extension: data}
    if caption is not None and data is not None:
        members["txt"] = caption.encode()
    return Sample(
        key=key,
        members=members,
        image_ext=None if data is None else extension,
        error=clean_text(error),
        caption=caption,
        url=clean_text(first_present(row, "url")),
        uid=clean_text(first_present(row, "uid")),
        clip_score=as_score(first_present(row, "clip_score")),
        offset=number,
    )
