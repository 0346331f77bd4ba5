"""The kept samples as lists: URLs for img2dataset, a DataComp subset, plain keys."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from dedupkit.errors import DedupkitError
from dedupkit.store import atomic_path

__all__ = ["LISTS", "write_datacomp", "write_keys", "write_urls"]


def write_urls(manifest: Path, to: Path) -> int:
    """``urls.parquet`` (url, caption, uid) as img2dataset takes it: ``--input_format parquet --url_col url``.

    Returns:
        The number of rows; samples without a URL cannot be listed.

    Raises:
        DedupkitError: no kept sample has a URL.
    """
    count = 0
    schema = pa.schema([("url", pa.string()), ("caption", pa.string()), ("uid", pa.string())])
    with atomic_path(to / "urls.parquet") as temporary:
        with pq.ParquetWriter(temporary, schema, compression="zstd") as writer:
            for table in _kept(manifest, *schema.names):
                listed = table.filter(pc.is_valid(table["url"]))
                writer.write_table(listed)
                count += listed.num_rows
        if count == 0:
            raise DedupkitError("no kept sample has a URL; choose another --format")
    return count


def write_datacomp(manifest: Path, to: Path) -> int:
    """``subset.npy``, DataComp's subset format: (n,) of dtype ``u8,u8``, high and low 64 bits of each uid, sorted.

    Raises:
        DedupkitError: a kept sample has no uid of 32 hexadecimal digits.
    """
    halves = [_uid_halves(table["uid"].to_pylist()) for table in _kept(manifest, "uid")]
    empty = np.zeros(0, np.dtype("u8,u8"))
    subset = np.sort(np.concatenate([empty, *halves]))
    with atomic_path(to / "subset.npy") as temporary, temporary.open("wb") as stream:
        np.save(stream, subset)
    return len(subset)


def write_keys(manifest: Path, to: Path) -> int:
    """``keys.tsv``: source and key of each kept sample, one a line, in the order of the manifest."""
    count = 0
    with atomic_path(to / "keys.tsv") as temporary, temporary.open("w", encoding="utf-8") as stream:
        for table in _kept(manifest, "source", "key"):
            rows = zip(table["source"].to_pylist(), table["key"].to_pylist(), strict=True)
            stream.writelines(f"{source}\t{key}\n" for source, key in rows)
            count += table.num_rows
    return count


LISTS: dict[str, Callable[[Path, Path], int]] = {
    "urls": write_urls,
    "datacomp": write_datacomp,
    "keys": write_keys,
}


def _kept(manifest: Path, *columns: str) -> Iterator[pa.Table]:
    """Columns of the kept samples, a batch at a time."""
    with pq.ParquetFile(manifest) as file:
        for batch in file.iter_batches(columns=[*columns, "verdict"]):
            table = pa.Table.from_batches([batch])
            yield table.filter(pc.equal(table["verdict"], "keep")).select(list(columns))


def _uid_halves(uids: list[Any]) -> np.ndarray[Any, Any]:
    try:
        numbers = [int(uid, 16) for uid in uids if len(uid) == 32]
    except (TypeError, ValueError):
        numbers = []
    if len(numbers) < len(uids):
        raise DedupkitError("a kept sample has no uid of 32 hexadecimal digits; a DataComp subset needs them")
    mask = 2**64 - 1
    return np.array([(number >> 64, number & mask) for number in numbers], np.dtype("u8,u8"))
