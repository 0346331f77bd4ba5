"""Cleaned Parquet files with the images in them: bytes copied, never re-encoded."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from dedupkit.manifest.extra import as_array, free_name, has_captions_column
from dedupkit.manifest.names import ArchiveNames
from dedupkit.manifest.readme import readme
from dedupkit.sources import Sample

__all__ = ["ParquetShardWriter"]

_ROWS_AT_ONCE, _BYTES_AT_ONCE = 256, 64 << 20  # of a row group
_COLUMNS = {
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
_CAPTIONS = {"captions": pa.list_(pa.string())}
_SAME_AS_OURS = ("caption", "url", "uid")  # where the source has them as text


class ParquetShardWriter:
    """A Parquet file as Hugging Face datasets reads it: ``image: {bytes, path}`` and the manifest's identity.

    Where samples carry captions, the column ``captions`` has them. Every column of the source follows under its own
    name, or with ``_in_source`` where the name is one of ours.
    """

    suffix = ".parquet"

    def __init__(self, path: Path, extra: pa.Schema) -> None:
        self._path = path
        self._rows: list[dict[str, Any]] = []
        self._held = 0
        self._extra: dict[str, list[Any]] = {}
        self._names = ArchiveNames()
        self._ours = {**_COLUMNS, **_CAPTIONS} if has_captions_column(extra) else _COLUMNS
        self._kept = _kept_columns(self._ours, extra)
        self._schema = _schema(self._ours, self._kept, extra)

    def __enter__(self) -> ParquetShardWriter:
        self._writer = pq.ParquetWriter(self._path, self._schema, compression="zstd", write_page_checksum=True)
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
        self._rows.append({name: image if name == "image" else row.get(name) for name in self._ours})
        for name in self._kept:
            self._extra.setdefault(name, []).append(sample.extra.get(name))
        self._held += len(sample.image or b"")
        if len(self._rows) == _ROWS_AT_ONCE or self._held >= _BYTES_AT_ONCE:
            self._flush()

    def _flush(self) -> None:
        if self._rows:
            ours = pa.Table.from_pylist(self._rows, schema=pa.schema(list(self._ours.items())))
            theirs = [as_array(self._extra[name], self._schema.field(kept).type) for name, kept in self._kept.items()]
            self._writer.write_table(pa.table([*ours.columns, *theirs], schema=self._schema))
            self._rows.clear()
            self._extra.clear()
            self._held = 0

    @staticmethod
    def beside(name: str, samples: int) -> dict[str, bytes]:
        """Nothing stands beside a Parquet file."""
        return {}

    @staticmethod
    def index(sizes: Mapping[str, int]) -> dict[str, bytes]:
        """A README.md for Hugging Face ``datasets``."""
        return readme(sizes, "*.parquet")


def _kept_columns(ours: Mapping[str, Any], extra: pa.Schema) -> dict[str, str]:
    """Columns of the source that are kept, by their names in it, and their names here."""
    kept: dict[str, str] = {}
    for field in extra:
        is_text = pa.types.is_string(field.type) or pa.types.is_large_string(field.type)
        if not (field.name in _SAME_AS_OURS and is_text):
            kept[field.name] = free_name(field.name, {*ours, *kept.values(), *(set(extra.names) - {field.name})})
    return kept


def _schema(ours: Mapping[str, Any], kept: Mapping[str, str], extra: pa.Schema) -> pa.Schema:
    """Our columns and theirs; Hugging Face datasets reads the metadata and decodes the column of images."""
    stated = json.loads((extra.metadata or {}).get(b"huggingface", b"{}")).get("info", {}).get("features", {})
    features = {name: {"_type": "Value", "dtype": str(kind)} for name, kind in _COLUMNS.items()}
    features |= {kept[name]: feature for name, feature in stated.items() if name in kept}
    features |= {"image": {"_type": "Image"}}
    fields = [*ours.items(), *((name, extra.field(theirs).type) for theirs, name in kept.items())]
    return pa.schema(fields, metadata={"huggingface": json.dumps({"info": {"features": features}})})
