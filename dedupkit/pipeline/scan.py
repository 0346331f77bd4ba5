"""The scan stage: one shard in, one row per sample out, each image decoded once."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from dedupkit.hashing.decimator import luma_buffer
from dedupkit.hashing.exact import pixel_hash, stored_hash
from dedupkit.hashing.pdq import CROP_VIEWS, PDQ_BYTES, crop_views, one_math_thread, pdq_from_buffers
from dedupkit.images import LUMA_MIN_SIDE, ImageError, decode_luma, luma_of, open_image
from dedupkit.io import atomic_path
from dedupkit.pipeline.signals import HASHES, MIN_PDQ_QUALITY
from dedupkit.sources import Sample, Shard, ShardError

__all__ = ["HASH_BYTES", "sample_schema", "scan_shard"]

HASH_BYTES = dict.fromkeys(HASHES, 8) | {"pixels": 32, "crops": (1 + len(CROP_VIEWS)) * PDQ_BYTES}
"""The size in bytes of each hash that is computed on request."""

_HASHED_TOGETHER = 64
_CROPS_MIN_SIDE = 256  # the smallest view is half of it


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
    with one_math_thread():
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
        self._from_pixels = [name for name in hashes if name != "crops"]
        self._views = 1 + len(CROP_VIEWS) if "crops" in hashes else 1
        self._min_side = _CROPS_MIN_SIDE if "crops" in hashes else LUMA_MIN_SIDE
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
        if len(self._buffers) >= _HASHED_TOGETHER:
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
        if self._from_pixels:
            image = open_image(data)
            luma = luma_of(image, min_side=self._min_side)
            if "pixels" in self._from_pixels:
                values["pixels"] = pixel_hash(image)
            perceptual = [name for name in self._from_pixels if name != "pixels"]
            if perceptual:
                from dedupkit.hashing.perceptual import perceptual_hashes

                try:
                    hashed = perceptual_hashes(image, perceptual)
                except (ValueError, OSError) as error:
                    raise ImageError(f"mode {image.mode}: {error}") from error
                values |= {name: bits.tobytes() for name, bits in hashed.items()}
        else:
            luma = decode_luma(data, min_side=self._min_side)
        views = [luma, *crop_views(luma)] if self._views > 1 else [luma]
        self._buffers += [luma_buffer(view) for view in views]
        self._buffer_rows.append(len(self._columns["pdq"]))
        return values | {"width": luma.width, "height": luma.height, "format": luma.format}

    def _hash_buffers(self) -> None:
        """Fill in PDQ for the rows whose buffers wait."""
        if not self._buffers:
            return
        hashes, qualities = pdq_from_buffers(np.stack(self._buffers))
        for place, row in enumerate(self._buffer_rows):
            first = place * self._views
            quality = int(qualities[first])
            self._columns["pdq"][row] = hashes[first].tobytes()
            self._columns["pdq_quality"][row] = quality
            if self._views > 1 and quality >= MIN_PDQ_QUALITY:
                mine = slice(first, first + self._views)
                flat = qualities[mine] < MIN_PDQ_QUALITY
                self._columns["crops"][row] = np.where(flat[:, None], 0, hashes[mine]).astype(np.uint8).tobytes()
        self._buffers.clear()
        self._buffer_rows.clear()
