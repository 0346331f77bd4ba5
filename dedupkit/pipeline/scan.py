"""The scan stage: one shard in, one row per sample out, each image decoded once."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from dedupkit.hashing.exact import pixel_hash, stored_hash
from dedupkit.hashing.pdq import luma_buffer, pdq_from_buffers
from dedupkit.images import ImageError, decode_luma, luma_of, open_image
from dedupkit.io import atomic_path
from dedupkit.sources import Sample, Shard, ShardError

__all__ = ["HASH_BYTES", "sample_schema", "scan_shard"]

HASH_BYTES = {"pixels": 32} | dict.fromkeys(
    (f"{kind}{definition}" for definition in ("", "_imagededup") for kind in ("phash", "dhash", "ahash", "whash")),
    8,
)
"""The hashes that are computed on request, and their size in bytes; a rule that names one requests it."""

_HASHED_TOGETHER = 64


def sample_schema(hashes: Sequence[str]) -> pa.Schema:
    """The columns of ``samples/{shard:05d}.parquet``."""
    return pa.schema(
        [
            ("key", pa.string()),
            ("uid", pa.string()),
            ("url", pa.string()),
            ("caption", pa.string()),
            ("clip_score", pa.float32()),
            ("sha256", pa.binary(32)),
            ("pdq", pa.binary(32)),
            ("pdq_quality", pa.int16()),
            ("width", pa.int32()),
            ("height", pa.int32()),
            ("nbytes", pa.int64()),
            ("format", pa.string()),
            ("offset", pa.int64()),
            ("error", pa.string()),
            *((name, pa.binary(HASH_BYTES[name])) for name in hashes),
        ]
    )


def scan_shard(shard: Shard, path: str, hashes: Sequence[str], what: str) -> dict[str, Any]:
    """Read a shard and write its rows; a task of the engine.

    Args:
        shard: what to read.
        path: the Parquet file to write.
        hashes: names of :data:`HASH_BYTES` to compute beside SHA-256 and PDQ.
        what: the shard's name, for messages about this task.

    Returns:
        ``samples`` (rows), ``unreadable``, ``nbytes`` (of images); ``problem`` and ``retry`` where the shard could
        not be read to its end.
    """
    del what
    rows = _Rows(hashes)
    problem: str | None = None
    try:
        for sample in shard.read():
            rows.add(sample)
    except ShardError as error:
        problem = str(error)
        # The empty key stands for the rest of the shard, which nobody can list.
        rows.add(Sample(key="", error=problem))
    table = rows.table()
    with atomic_path(Path(path)) as temporary:
        pq.write_table(table, temporary, compression="zstd")
    summary: dict[str, Any] = {
        "samples": table.num_rows,
        "unreadable": table.num_rows - table["error"].null_count,
        "nbytes": rows.nbytes,
    }
    return summary if problem is None else {**summary, "problem": problem, "retry": True}


class _Rows:
    """Collects columns; hashes a few dozen images at a time, so that small matrix products become larger ones."""

    def __init__(self, hashes: Sequence[str]) -> None:
        self._hashes = tuple(hashes)
        self._schema = sample_schema(hashes)
        self._columns: dict[str, list[Any]] = {name: [] for name in self._schema.names}
        self._keys: dict[str, int] = {}
        self._buffers: list[NDArray[np.float32]] = []
        self._buffer_rows: list[int] = []
        self.nbytes = 0

    def add(self, sample: Sample) -> None:
        """One row, whatever is wrong with the sample."""
        row: dict[str, Any] = {
            "uid": sample.uid,
            "url": sample.url,
            "caption": sample.caption,
            "clip_score": sample.clip_score,
            "offset": sample.offset,
        }
        row["key"], repeated = self._unique(sample.key)
        row["error"] = "; ".join(filter(None, (sample.error, repeated))) or None
        data = sample.image
        if data is not None:
            self.nbytes += len(data)
            row["sha256"], row["nbytes"] = stored_hash(data), len(data)
            if row["error"] is None:
                try:
                    row |= self._fingerprints(data)
                except ImageError as error:
                    row["error"] = str(error)
        for name, column in self._columns.items():
            column.append(row.get(name))
        if len(self._buffers) == _HASHED_TOGETHER:
            self._hash_buffers()

    def table(self) -> pa.Table:
        """The rows so far."""
        self._hash_buffers()
        return pa.table(self._columns, schema=self._schema)

    def _unique(self, key: str) -> tuple[str, str | None]:
        """Source and key together name a sample, so a key that comes again is marked and numbered."""
        seen = self._keys[key] = self._keys.get(key, 0) + 1
        if seen == 1:
            return key, None
        return (
            f"{key}#{seen}",
            f"the key {key} comes again in this shard; a sample's members must be contiguous",
        )

    def _fingerprints(self, data: bytes) -> dict[str, Any]:
        values: dict[str, Any] = {}
        if self._hashes:
            image = open_image(data)
            luma = luma_of(image)
            perceptual = [name for name in self._hashes if name != "pixels"]
            if "pixels" in self._hashes:
                values["pixels"] = pixel_hash(image)
            if perceptual:
                from dedupkit.hashing.perceptual import perceptual_hashes

                values |= {name: bits.tobytes() for name, bits in perceptual_hashes(image, perceptual).items()}
        else:
            luma = decode_luma(data)
        self._buffers.append(luma_buffer(luma))
        self._buffer_rows.append(len(self._columns["pdq"]))
        return values | {"width": luma.width, "height": luma.height, "format": luma.format}

    def _hash_buffers(self) -> None:
        """Fill in PDQ for the rows whose buffers wait."""
        if not self._buffers:
            return
        hashes, qualities = pdq_from_buffers(np.stack(self._buffers))
        for row, bits, quality in zip(self._buffer_rows, hashes, qualities.tolist(), strict=True):
            self._columns["pdq"][row] = bits.tobytes()
            self._columns["pdq_quality"][row] = quality
        self._buffers.clear()
        self._buffer_rows.clear()
