"""Rows of Parquet files as Python values, whatever the columns hold."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

from dedupkit.sources.columns import clean_text
from dedupkit.sources.keys import text_of

__all__ = ["as_rows"]


def as_rows(table: Any) -> list[dict[str, Any]]:
    """The rows of a pyarrow table or batch.

    Text that is no UTF-8 is decoded with U+FFFD, in keys as :func:`~dedupkit.sources.keys.text_of` does, so that
    different keys stay different. What Python cannot hold (a year 300,000, nanoseconds, an unknown time
    zone) becomes text, or None where it has no text either.
    """
    try:
        rows: list[dict[str, Any]] = table.to_pylist()
    except Exception:  # pyarrow raises errors of many kinds here; one odd column must not cost the others
        names = table.schema.names
        columns = [_values(column, name) for column, name in zip(table.columns, names, strict=True)]
        return [dict(zip(table.schema.names, values, strict=True)) for values in zip(*columns, strict=True)]
    if "key" in table.schema.names:
        for row in rows:
            if isinstance(row["key"], str):
                row["key"] = text_of(row["key"])
    return rows


def _values(column: Any, name: str) -> list[Any]:
    if name == "key":
        with suppress(Exception):
            return [None if value is None else text_of(value) for value in _names(column)]
    for convert in (_plain, _decoded, _as_text, _as_number):
        try:
            return convert(column)
        except Exception:  # noqa: S112 - the next way may do
            continue
    return [_one(value) for value in column]


def _plain(column: Any) -> list[Any]:
    values: list[Any] = column.to_pylist()
    return values


def _decoded(column: Any) -> list[Any]:
    """Text that is no UTF-8: Parquet does not check what it stores as text."""
    return [clean_text(value) for value in _stored(column)]


def _names(column: Any) -> list[str | None]:
    """The same as names of files, which Python holds as they are."""
    return [None if value is None else value.decode("utf-8", "surrogateescape") for value in _stored(column)]


def _stored(column: Any) -> list[bytes | None]:
    import pyarrow as pa

    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
        raise TypeError(kind)
    values: list[bytes | None] = column.cast("large_string").cast("large_binary").to_pylist()
    return values


def _as_text(column: Any) -> list[Any]:
    return [clean_text(value) for value in column.cast("string").to_pylist()]


def _as_number(column: Any) -> list[Any]:
    return [clean_text(value) for value in column.cast("int64").to_pylist()]


def _one(value: Any) -> Any:
    attempts: tuple[Callable[[], Any], ...] = (value.as_py, lambda: value.cast("string").as_py())
    for attempt in attempts:
        try:
            return attempt()
        except Exception:  # noqa: S112 - this value alone is lost
            continue
    return None
