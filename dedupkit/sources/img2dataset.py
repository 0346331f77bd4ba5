"""img2dataset's record of a shard: a JSON object a sample, and one Parquet file with the failures too."""

from __future__ import annotations

import json
from typing import Any

from dedupkit import store
from dedupkit.sources.sample import Sample, ShardError, as_rows, as_score, clean_text, first_present

__all__ = ["failed_row", "metadata_rows", "parse_json"]


def parse_json(data: bytes | None) -> dict[str, Any]:
    """The object in a sample's JSON member; empty where there is none or it is no object."""
    if data is None:
        return {}
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def metadata_rows(path: str) -> dict[str, dict[str, Any]]:
    """img2dataset's rows by key, in file order; empty where the file is not img2dataset's."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    wanted = {"key", "status", "error_message", "caption", "url", "uid", "similarity", "clip_score"}
    try:
        with store.open_binary(path) as stream:
            file = pq.ParquetFile(stream)
            names = [name for name in file.schema_arrow.names if name in wanted]
            if "key" not in names:
                return {}
            rows = as_rows(file.read(columns=names))
    except (OSError, pa.ArrowException):
        return {}
    return {str(row["key"]): row for row in rows}


def failed_row(key: str, row: dict[str, Any], failure: ShardError | None) -> Sample:
    """A row of the metadata that has no member in the tar."""
    status = row.get("status") or "success"
    if status != "success":
        message = row.get("error_message")
        error = f"{status}: {message}" if message else str(status)
    elif failure is not None:
        error = f"not reached: {failure}"
    else:
        error = "listed as downloaded, but not in the tar"
    return Sample(
        key=clean_text(key) or "",
        error=clean_text(error),
        caption=clean_text(first_present(row, "caption")),
        url=clean_text(first_present(row, "url")),
        uid=clean_text(first_present(row, "uid")),
        clip_score=as_score(first_present(row, "clip_score")),
    )
