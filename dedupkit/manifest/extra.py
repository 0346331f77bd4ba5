"""Columns of the source that the manifest does not have: kept in cleaned shards under their own names."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import date, datetime, time
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from dedupkit import store
from dedupkit.sources import Shard
from dedupkit.sources.parquet import ParquetShard, image_column

__all__ = ["as_array", "as_json", "beside", "extra_schema", "free_name", "has_captions_column", "with_captions_column"]

_FOOTERS_AT_ONCE = 16
_CAPTIONS = b"dedupkit.captions"


def extra_schema(shards: Iterable[Shard]) -> pa.Schema:
    """The columns of some shards but the image, as Parquet has them: of Parquet files and of img2dataset's metadata.

    A column whose types in two files do not fit together is text; one of integers here and floats there is of floats,
    as in pandas. What Hugging Face ``datasets`` says of the columns is kept in the schema's metadata.
    """
    with ThreadPoolExecutor(_FOOTERS_AT_ONCE) as pool:
        found = pool.map(_schema_of, shards)  # many files share one; older pyarrow cannot hash a schema with metadata
        schemas = {schema.serialize().to_pybytes(): schema for schema in found}.values()
    fields: dict[str, pa.Field] = {}
    features: dict[str, Any] = {}
    for schema in schemas:
        features = {**_features(schema), **features}
        for field in schema:
            fields[field.name] = _merged(fields.get(field.name, field), field)
    kept = {name: feature for name, feature in features.items() if name in fields}
    return pa.schema(list(fields.values()), metadata={"huggingface": json.dumps({"info": {"features": kept}})})


def with_captions_column(extra: pa.Schema) -> pa.Schema:
    """The same columns of the source, for shards with a column of ours for the captions that samples carry."""
    return extra.with_metadata({**(extra.metadata or {}), _CAPTIONS: b"carried"})


def has_captions_column(extra: pa.Schema) -> bool:
    """Whether shards have a column of ours for the captions that samples carry."""
    return _CAPTIONS in (extra.metadata or {})


def free_name(name: str, taken: Collection[str]) -> str:
    """The name under which a column of the source is kept beside columns of ours.

    >>> free_name("source", {"source", "key"}), free_name("license", {"source"})
    ('source_in_source', 'license')
    """
    while name in taken:
        name += "_in_source"
    return name


def beside(theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> dict[str, Any]:
    """The columns of the source beside columns of ours, under free names where ours have theirs.

    >>> beside({"captions": ["a"], "n": 1}, {"captions": ["a", "b"]})
    {'captions_in_source': ['a'], 'n': 1, 'captions': ['a', 'b']}
    """
    taken = {*ours, *theirs}
    renamed = {free_name(name, taken) if name in ours else name: value for name, value in theirs.items()}
    return {**renamed, **ours}


def as_array(values: Sequence[Any], kind: pa.DataType) -> pa.Array:
    """Python values as a column of a type; what Python holds as text or a number is read back as the type.

    An integer that no float equals is the nearest one in a column of floats.
    """
    try:
        return pa.array(values, kind)
    except (pa.ArrowException, TypeError, ValueError, OverflowError):
        if pa.types.is_string(kind):
            return pa.array([None if value is None else _as_text(value) for value in values], kind)
        if pa.types.is_floating(kind):
            return pa.array([None if value is None else float(value) for value in values], kind)
        return pa.array(values).cast(kind)


def as_json(value: Any) -> Any:
    r"""A cell as JSON holds it: bytes in base64, dates in ISO 8601, no number that is none, else what ``str`` gives.

    >>> as_json({"score": float("nan"), "mask": b"\x00", "day": date(2024, 2, 29), "tags": ("a", 1)})
    {'score': None, 'mask': 'AA==', 'day': '2024-02-29', 'tags': ['a', 1]}
    """
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, Mapping):
        return {str(name): as_json(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [as_json(item) for item in value]
    return value.isoformat() if isinstance(value, datetime | date | time) else str(value)


def _as_text(value: Any) -> str:
    """A cell as text; a date or a decimal as JSON holds it, without quotation marks."""
    stated = as_json(value)
    return stated if isinstance(stated, str) else json.dumps(stated)


def _schema_of(shard: Shard) -> pa.Schema:
    """The extra columns of one shard; none where it has no Parquet file, or one that cannot be read."""
    path = shard.path if isinstance(shard, ParquetShard) else getattr(shard, "metadata", None)
    if path is None:
        return pa.schema([])
    try:
        with store.open_binary(path) as stream:
            schema = pq.ParquetFile(stream).schema_arrow
    except (OSError, pa.ArrowException):
        return pa.schema([])
    image = image_column(schema) if isinstance(shard, ParquetShard) else None
    return schema if image is None else schema.remove(schema.get_field_index(image))


def _merged(one: pa.Field, other: pa.Field) -> pa.Field:
    kinds = {one.type, other.type}
    if pa.uint64() in kinds and any(map(pa.types.is_signed_integer, kinds)):  # Arrow would take int64
        return pa.field(one.name, pa.string())
    try:
        return pa.unify_schemas([pa.schema([one]), pa.schema([other])], promote_options="permissive").field(0)
    except pa.ArrowException:
        return pa.field(one.name, pa.string())


def _features(schema: pa.Schema) -> dict[str, Any]:
    try:
        stated = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))["info"]["features"]
    except (ValueError, KeyError, TypeError):
        return {}
    return stated if isinstance(stated, dict) else {}
