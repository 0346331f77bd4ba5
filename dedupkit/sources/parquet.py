"""Images stored in Parquet: Hugging Face (``image: {bytes, path}`` or plain binary) and img2dataset's own output."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from dedupkit import store
from dedupkit.sources.sample import (
    ALIASES,
    IMAGE_EXTENSIONS,
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
                for batch in file.iter_batches(batch_size=_BATCH, columns=names):
                    for row in as_rows(batch):
                        key = clean_text(row["key"]) if keyed and row["key"] is not None else f"{number:08d}"
                        yield _sample(key or "", row, column, number)
                        number += 1
        except FileNotFoundError:
            raise ShardError("the shard is gone: no such file") from None
        except (OSError, pa.ArrowException) as error:
            raise (error if isinstance(error, ShardError) else ShardError(f"broken Parquet: {error}")) from error

    def fetch(self, key: str, offset: int | None, nbytes: int) -> bytes:
        """Read the one row group that holds row number ``offset``."""
        import pyarrow.parquet as pq

        with store.open_binary(self.source) as stream:
            file = pq.ParquetFile(stream)
            column = image_column(file.schema_arrow)
            row = -1 if offset is None else offset
            for group in range(file.metadata.num_row_groups):
                rows = file.metadata.row_group(group).num_rows
                if column is not None and 0 <= row < rows:
                    value = file.read_row_group(group, columns=[column])[column][row].as_py()
                    data = value.get("bytes") if isinstance(value, dict) else value
                    if data is not None:
                        return bytes(data)
                row -= rows
        raise ShardError(f"{self.source} no longer holds {key}")


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
