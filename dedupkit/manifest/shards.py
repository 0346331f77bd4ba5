"""Writers of cleaned shards: WebDataset tars and Parquet files, bytes copied, never re-encoded."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from dedupkit.sources import Sample
from dedupkit.store import write_json

__all__ = ["SHARD_WRITERS", "ParquetShardWriter", "ShardWriter", "TarShardWriter"]

_BLOCK = 512
_ROWS_AT_ONCE = 256


class ShardWriter(Protocol):
    """Writes one shard; the file is complete when the context ends."""

    suffix: str

    def __init__(self, path: Path) -> None: ...
    def __enter__(self) -> ShardWriter: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
    def add(self, sample: Sample, row: Mapping[str, Any]) -> None:
        """Append a sample; ``row`` is its row in the manifest."""

    @staticmethod
    def finish(path: Path, count: int) -> None:
        """Write what stands beside the shard."""


class TarShardWriter:
    """A WebDataset tar: members in source order, ``mtime=0``, names as ustar where they fit, else pax."""

    suffix = ".tar"

    def __init__(self, path: Path) -> None:
        self._path = path
        self._names: set[str] = set()

    def __enter__(self) -> TarShardWriter:
        self._stream = self._path.open("wb")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._stream.write(bytes(2 * _BLOCK))
        self._stream.close()

    def add(self, sample: Sample, row: Mapping[str, Any]) -> None:
        """Append every file of the sample under its key."""
        name = tar_key(row["key"], sample.image_ext)
        while name in self._names:  # a folder's a.jpg and a.png would become one sample
            name += f"_{sample.image_ext}"
        self._names.add(name)
        for extension, data in sample.members.items():
            header = tarfile.TarInfo(f"{name}.{extension}")
            header.size = len(data)
            try:
                block = header.tobuf(tarfile.USTAR_FORMAT, "utf-8", "surrogateescape")
            except ValueError:  # a name of more than 100 bytes that no prefix splits
                block = header.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")
            self._stream.write(block)
            self._stream.write(data)
            self._stream.write(bytes(-len(data) % _BLOCK))

    @staticmethod
    def finish(path: Path, count: int) -> None:
        """img2dataset's ``_stats.json``; its times are zero, so that the same input gives the same bytes."""
        write_json(
            path.with_name(path.name.removesuffix(".tar") + "_stats.json"),
            {
                "count": count,
                "successes": count,
                "failed_to_download": 0,
                "failed_to_resize": 0,
                "duration": 0.0,
                "start_time": 0.0,
                "end_time": 0.0,
                "status_dict": {"success": count},
            },
        )


def tar_key(key: str, image_ext: str | None) -> str:
    """The key as WebDataset reads it back: a folder's file name loses its suffix, other dots become underscores."""
    if image_ext is not None:
        key = key.removesuffix(f".{image_ext}")
    folder, slash, base = key.rpartition("/")
    return folder + slash + base.replace(".", "_")


_PARQUET_COLUMNS = {
    "key": pa.string(),
    "source": pa.string(),
    "image": pa.struct([("bytes", pa.binary()), ("path", pa.string())]),
    "caption": pa.string(),
    "url": pa.string(),
    "uid": pa.string(),
    "width": pa.int32(),
    "height": pa.int32(),
    "sha256": pa.string(),
}
_FEATURES = {
    name: {"_type": "Image"} if name == "image" else {"_type": "Value", "dtype": str(kind)}
    for name, kind in _PARQUET_COLUMNS.items()
}
# Hugging Face datasets reads this key and decodes the column as images.
_PARQUET_SCHEMA = pa.schema(
    list(_PARQUET_COLUMNS.items()), metadata={"huggingface": json.dumps({"info": {"features": _FEATURES}})}
)


class ParquetShardWriter:
    """A Parquet file as Hugging Face datasets reads it: ``image: {bytes, path}`` and the manifest's identity."""

    suffix = ".parquet"

    def __init__(self, path: Path) -> None:
        self._path = path
        self._rows: list[dict[str, Any]] = []

    def __enter__(self) -> ParquetShardWriter:
        self._writer = pq.ParquetWriter(self._path, _PARQUET_SCHEMA, compression="zstd")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._flush()
        self._writer.close()

    def add(self, sample: Sample, row: Mapping[str, Any]) -> None:
        """Append one row."""
        image = {"bytes": sample.image, "path": f"{tar_key(row['key'], sample.image_ext)}.{sample.image_ext}"}
        self._rows.append({name: image if name == "image" else row[name] for name in _PARQUET_COLUMNS})
        if len(self._rows) == _ROWS_AT_ONCE:
            self._flush()

    def _flush(self) -> None:
        if self._rows:
            self._writer.write_table(pa.Table.from_pylist(self._rows, schema=_PARQUET_SCHEMA))
            self._rows.clear()

    @staticmethod
    def finish(path: Path, count: int) -> None:
        """Nothing stands beside a Parquet file."""


SHARD_WRITERS: dict[str, type[ShardWriter]] = {"webdataset": TarShardWriter, "parquet": ParquetShardWriter}
