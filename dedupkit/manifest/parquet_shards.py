"""Cleaned Parquet files with the images in them: bytes copied, never re-encoded."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from dedupkit.manifest.names import ArchiveNames
from dedupkit.manifest.readme import readme
from dedupkit.sources import Sample

__all__ = ["ParquetShardWriter"]

_ROWS_AT_ONCE = 256
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
        self._names = ArchiveNames()

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
        name = self._names.give(row["key"], sample.image_ext)
        image = {"bytes": sample.image, "path": f"{name}.{sample.image_ext}"}
        self._rows.append({name: image if name == "image" else row[name] for name in _PARQUET_COLUMNS})
        if len(self._rows) == _ROWS_AT_ONCE:
            self._flush()

    def _flush(self) -> None:
        if self._rows:
            self._writer.write_table(pa.Table.from_pylist(self._rows, schema=_PARQUET_SCHEMA))
            self._rows.clear()

    @staticmethod
    def beside(name: str, samples: int) -> dict[str, bytes]:
        """Nothing stands beside a Parquet file."""
        return {}

    @staticmethod
    def index(sizes: Mapping[str, int]) -> dict[str, bytes]:
        """A README.md for Hugging Face ``datasets``."""
        return readme(sizes, "*.parquet")
