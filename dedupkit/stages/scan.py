"""The scan stage: one shard in, one row per sample out, each image decoded once."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dedupkit.hashing.exact import pixel_hash, stored_hash
from dedupkit.hashing.pdq import CROP_VIEWS, PDQ_BYTES, Decimated, decimate, one_math_thread, pdq_from_buffers
from dedupkit.images import ImageError, open_image
from dedupkit.signals.table import HASHES, MIN_PDQ_QUALITY
from dedupkit.sources import Sample, Shard, ShardError
from dedupkit.store import atomic_path

__all__ = ["HASH_BYTES", "sample_schema", "scan_shard"]

HASH_BYTES = dict.fromkeys(HASHES, 8) | {"pixels": 32, "crops": (1 + len(CROP_VIEWS)) * PDQ_BYTES}
"""The size in bytes of each hash that is computed on request."""

_HASHED_TOGETHER = 32
_WAITING_BYTES = 32 << 20  # of images that wait at most, and one more


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
    """Collects columns; images wait until there are a few dozen, which are decoded and hashed together."""

    def __init__(self, hashes: Sequence[str]) -> None:
        self._from_pixels = [name for name in hashes if name != "crops"]
        self._views = CROP_VIEWS if "crops" in hashes else ()
        self._schema = sample_schema(hashes)
        self._columns: dict[str, list[Any]] = {name: [] for name in self._schema.names}
        self._keys: dict[str, int] = {}
        self._waiting: list[tuple[int, bytes]] = []  # rows and their images
        self._waiting_bytes = 0
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
                self._waiting.append((len(self._columns["key"]), data))
                self._waiting_bytes += len(data)
        for name, column in self._columns.items():
            column.append(row.get(name))
        if len(self._waiting) >= _HASHED_TOGETHER or self._waiting_bytes >= _WAITING_BYTES:
            self._hash_waiting()

    def table(self) -> pa.Table:
        """The rows so far."""
        self._hash_waiting()
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

    def _hash_waiting(self) -> None:
        """Fill in what the images that wait say: size, format and hashes, or what is wrong with them."""
        rows = [row for row, _ in self._waiting]
        images = [image for _, image in self._waiting]
        self._waiting.clear()
        self._waiting_bytes = 0
        found: list[tuple[int, Decimated]] = []
        for row, image, decimated in zip(rows, images, decimate(images, self._views), strict=True):
            try:
                if isinstance(decimated, ImageError):
                    raise decimated
                for name, value in self._pixel_hashes(image).items():
                    self._columns[name][row] = value
                found.append((row, decimated))
            except ImageError as error:
                self._columns["error"][row] = str(error)
        if found:
            self._hash(found)

    def _hash(self, images: list[tuple[int, Decimated]]) -> None:
        """Fill in PDQ and the size."""
        hashes, qualities = pdq_from_buffers(np.concatenate([image.buffers for _, image in images]))
        for place, (row, image) in enumerate(images):
            first = place * (1 + len(self._views))
            quality = int(qualities[first])
            values: dict[str, Any] = {"pdq": hashes[first].tobytes(), "pdq_quality": quality}
            values |= {"width": image.width, "height": image.height, "format": image.format}
            if self._views and quality >= MIN_PDQ_QUALITY:
                mine = slice(first, first + 1 + len(self._views))
                flat = qualities[mine] < MIN_PDQ_QUALITY
                values["crops"] = np.where(flat[:, None], 0, hashes[mine]).astype(np.uint8).tobytes()
            for name, value in values.items():
                self._columns[name][row] = value

    def _pixel_hashes(self, data: bytes) -> dict[str, bytes]:
        """The hashes that need all pixels, where they were asked for."""
        if not self._from_pixels:
            return {}
        image = open_image(data)
        values = {"pixels": pixel_hash(image)} if "pixels" in self._from_pixels else {}
        perceptual = [name for name in self._from_pixels if name != "pixels"]
        if perceptual:
            from dedupkit.hashing.perceptual import perceptual_hashes

            try:
                hashed = perceptual_hashes(image, perceptual)
            except (ValueError, OSError) as error:
                raise ImageError(f"mode {image.mode}: {error}") from error
            values |= {name: bits.tobytes() for name, bits in hashed.items()}
        return values
