"""img2dataset's record of a shard: a JSON object a sample, and one Parquet file with the failures too."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

from dedupkit import store
from dedupkit.sources.arrow import as_rows
from dedupkit.sources.columns import READ_COLUMNS, as_score, as_text, clean_text, first_present
from dedupkit.sources.keys import text_of
from dedupkit.sources.sample import Extra, Sample, ShardError, is_asked

__all__ = ["Metadata", "parse_json"]

_WANTED = READ_COLUMNS | {"key", "status", "error_message"}


def parse_json(data: bytes | None) -> dict[str, Any]:
    """The object in a sample's JSON member; empty where there is none or it is no object."""
    if data is None:
        return {}
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


class Metadata:
    """img2dataset's rows of one shard, by key.

    Args:
        path: the Parquet file; None where the shard has none.
        extra: Which columns are read beside those that the manifest has.

    Attributes:
        problem: why the file cannot be read; None where it can, or is not img2dataset's.
    """

    def __init__(self, path: str | None, *, extra: Extra = False) -> None:
        self.problem: str | None = None
        self._extra = extra
        self._rows: dict[str, list[dict[str, Any]]] = defaultdict(list)
        if path is None:
            return
        try:
            self._read(path)
        except Exception as error:  # pyarrow and stores raise errors of many kinds
            self.problem = (
                f"the metadata in {text_of(path)} cannot be read ({type(error).__name__}: {error}); the failed "
                "downloads, addresses and captions that it lists are missing"
            )

    def _read(self, path: str) -> None:
        import pyarrow.parquet as pq

        with store.open_binary(path) as stream:
            file = pq.ParquetFile(stream)
            names = file.schema_arrow.names
            if "key" in names:
                wanted = [name for name in names if name in _WANTED or is_asked(name, self._extra)]
                for row in as_rows(file.read(columns=wanted)):
                    self._rows[clean_text(row["key"]) or ""].append(row)

    def __bool__(self) -> bool:
        return bool(self._rows)

    def take(self, key: str) -> dict[str, Any]:
        """The first row of a key or name, which is then no longer held; empty where there is none."""
        rows = self._rows.get(text_of(key))
        return rows.pop(0) if rows else {}

    def left(self, failure: ShardError | None) -> Iterator[Sample]:
        """The rows that were not taken, as samples without an image: failed downloads, and what the shard lost.

        Args:
            failure: why the rest of the shard cannot be read.
        """
        for key, rows in self._rows.items():
            for row in rows:
                yield self._lost(key, row, failure)

    def _lost(self, key: str, row: dict[str, Any], failure: ShardError | None) -> Sample:
        status = row.get("status") or "success"
        if status != "success":
            message = row.get("error_message")
            error = f"{status}: {message}" if message else str(status)
        elif failure is not None:
            error = f"not reached: {failure}"
        else:
            error = "listed as downloaded, but not in the tar"
        return Sample(
            key=key,
            error=error,
            caption=as_text(row, "caption"),
            url=as_text(row, "url"),
            uid=as_text(row, "uid"),
            clip_score=as_score(first_present(row, "clip_score")),
            extra=row if self._extra else {},
        )
