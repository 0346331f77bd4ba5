"""The scan stage: one shard in, one row per sample out, each image decoded once."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet  # workers load it before their first task comes

from dedupkit.clustering.policy import META
from dedupkit.errors import DedupkitError
from dedupkit.hashing.exact import stored_hash
from dedupkit.hashing.pdq import CROP_VIEWS, Decimated, decimate, one_math_thread, pdq_from_buffers
from dedupkit.images import ImageError
from dedupkit.signals.image import ScannedImage
from dedupkit.signals.signal import Signal
from dedupkit.sources import Sample, Shard, ShardError
from dedupkit.sources.columns import clean_text
from dedupkit.sources.sample import NoImagesError, PassedOver
from dedupkit.stages.meta import number_of
from dedupkit.store import write_table

__all__ = ["sample_schema", "scan_sample", "scan_shard"]

_HASHED_TOGETHER = 32
_WAITING_BYTES = 32 << 20  # of images that wait at most, and one more


def sample_schema(signals: Sequence[Signal], meta: Sequence[str] = ()) -> pa.Schema:
    """The columns of ``samples/{shard:05d}.parquet``: those that every scan has, the signals', and the data's own."""
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
            *((name, _arrow_type(kind)) for signal in signals for name, kind in signal.scan_columns.items()),
            *((META + name, pa.float64()) for name in meta),
        ]
    )


def _arrow_type(kind: int | str) -> pa.DataType:
    return pa.binary(kind) if isinstance(kind, int) else pa.type_for_alias(kind)


def scan_shard(shard: Shard, path: str, signals: Sequence[Signal], meta: Sequence[str] = ()) -> dict[str, Any]:
    """Read a shard and write its rows; a task of the engine.

    Args:
        shard: what to read.
        path: the Parquet file to write.
        signals: what to measure beside SHA-256 and PDQ.
        meta: columns of the data's own, of which numbers are stored for the keep policy.

    Returns:
        ``samples`` (rows), ``unreadable``, ``nbytes`` (of images); ``passed_over`` (``count`` and ``example``) where
        something is no part of a sample; ``problem`` where the shard could not be read to its end; ``retry`` there, and
        where what kept a sample from being read may pass; ``holds_none`` where it holds no images at all; and with
        ``meta``, ``numbers``: how many each of these columns has.
    """
    rows = _Rows(signals, meta)
    passed_over = PassedOver()
    problem: str | None = None
    holds_none = False
    with one_math_thread():
        try:
            for sample in shard.read(extra=meta, passed_over=passed_over):
                rows.add(sample)
        except ShardError as error:
            problem, holds_none = str(error), isinstance(error, NoImagesError)
        except DedupkitError:  # what a user can mend, such as a package that is missing
            raise
        except Exception as error:  # a reader that meets what it does not expect
            problem = f"{type(error).__name__}: {error}"
        if problem is not None:
            # The empty key stands for the rest of the shard, which nobody can list.
            rows.add(Sample(key="", error=problem))
        table = rows.table()
    write_table(Path(path), table)
    summary: dict[str, Any] = {
        "samples": table.num_rows,
        "unreadable": table.num_rows - table["error"].null_count,
        "nbytes": rows.nbytes,
    }
    if passed_over.count:
        summary["passed_over"] = {"count": passed_over.count, "example": passed_over.example}
    if holds_none:
        summary["holds_none"] = True
    if problem is not None:
        summary["problem"] = problem
    if problem is not None or rows.transient:
        summary["retry"] = True
    if meta:
        summary["numbers"] = {name: table.num_rows - table[META + name].null_count for name in meta}
    return summary


def scan_sample(sample: Sample, signals: Sequence[Signal]) -> pa.Table:
    """The row of one sample, as a table."""
    rows = _Rows(signals)
    rows.add(sample)
    return rows.table()


def _array(values: list[Any], kind: pa.DataType) -> pa.Array:
    """A column; a value of another type than the column's, which a reader let through, is made text or left out."""
    try:
        return pa.array(values, kind)
    except (pa.ArrowException, UnicodeError, OverflowError, TypeError, ValueError):
        return pa.array([_fitting(value, kind) for value in values], kind)


def _fitting(value: Any, kind: pa.DataType) -> Any:
    if pa.types.is_string(kind):
        return clean_text(value)
    try:
        pa.scalar(value, kind)
    except (pa.ArrowException, UnicodeError, OverflowError, TypeError, ValueError):
        return None
    return value


def _lacked_memory(error: BaseException) -> bool:
    return isinstance(error, MemoryError) or isinstance(error.__cause__, MemoryError)


class _Rows:
    """Collects columns; images wait until there are a few dozen, which are decoded and hashed together."""

    def __init__(self, signals: Sequence[Signal], meta: Sequence[str] = ()) -> None:
        self._signals, self._meta = signals, meta
        self._views = CROP_VIEWS if any(signal.views for signal in signals) else ()
        self._schema = sample_schema(signals, meta)
        self._columns: dict[str, list[Any]] = {name: [] for name in self._schema.names}
        self._keys: dict[str, int] = {}  # how often each came
        self._repeated: list[tuple[int, str]] = []  # rows whose key came before
        self._waiting: list[tuple[int, bytes]] = []  # rows and their images
        self._waiting_bytes = 0
        self.nbytes = 0
        self.transient = False  # whether the reason of some row may pass

    def add(self, sample: Sample) -> None:
        """One row, whatever is wrong with the sample."""
        row: dict[str, Any] = {
            "uid": sample.uid,
            "url": sample.url,
            "caption": sample.caption,
            "clip_score": sample.clip_score,
            "offset": sample.offset,
            **{META + name: number_of(sample, name) for name in self._meta},
        }
        row["key"], repeated = sample.key, self._count(sample.key)
        row["error"] = "; ".join(filter(None, (sample.error, repeated))) or None
        self.transient |= sample.transient
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
        self._name_repeated()
        return pa.table([_array(self._columns[field.name], field.type) for field in self._schema], schema=self._schema)

    def _count(self, key: str) -> str | None:
        """Source and key together name a sample, so a key that comes again is an error, and gets a number later."""
        seen = self._keys[key] = self._keys.get(key, 0) + 1
        if seen == 1:
            return None
        self._repeated.append((len(self._columns["key"]), key))
        return f"the key {key} comes again in this shard; a sample's members must be contiguous"

    def _name_repeated(self) -> None:
        """Give rows whose key came before the name KEY#2 and so on, but none that is another sample's key."""
        numbers: dict[str, int] = {}
        for row, key in self._repeated:
            number = numbers.get(key, 1) + 1
            while f"{key}#{number}" in self._keys:
                number += 1
            numbers[key] = number
            self._columns["key"][row] = name = f"{key}#{number}"
            self._keys[name] = 1
        self._repeated.clear()

    def _hash_waiting(self) -> None:
        """Fill in what the images that wait say: size, format and hashes, or what is wrong with them."""
        rows = [row for row, _ in self._waiting]
        images = [image for _, image in self._waiting]
        self._waiting.clear()
        self._waiting_bytes = 0
        try:
            self._hash_together(rows, images)
        except Exception:  # MemoryError, RecursionError, anything: one of them is at fault, the others are not
            for row, image in zip(rows, images, strict=True):
                try:
                    self._hash_together([row], [image])
                except Exception as error:
                    self._columns["error"][row] = f"{type(error).__name__}: {error}"
                    self.transient |= _lacked_memory(error)

    def _hash_together(self, rows: list[int], images: list[bytes]) -> None:
        """Decode and hash some images."""
        found: list[tuple[int, bytes, Decimated]] = []
        for row, image, decimated in zip(rows, images, decimate(images, self._views), strict=True):
            if isinstance(decimated, ImageError):
                self._columns["error"][row] = str(decimated)
                self.transient |= _lacked_memory(decimated)
            else:
                found.append((row, image, decimated))
        if found:
            self._hash(found)

    def _hash(self, images: list[tuple[int, bytes, Decimated]]) -> None:
        """Fill in PDQ, the size, and what the signals measure."""
        hashes, qualities = pdq_from_buffers(np.concatenate([image.buffers for _, _, image in images]))
        each = 1 + len(self._views)
        for place, (row, data, image) in enumerate(images):
            mine = slice(place * each, (place + 1) * each)
            values: dict[str, Any] = {"pdq": hashes[mine.start].tobytes(), "pdq_quality": int(qualities[mine.start])}
            values |= {"width": image.width, "height": image.height, "format": image.format}
            if self._signals:
                scanned = ScannedImage(data, (image.width, image.height), hashes[mine], qualities[mine])
                try:
                    for signal in self._signals:
                        values |= signal.measure(scanned)
                except ImageError as error:
                    values = {"error": str(error)}
                    self.transient |= _lacked_memory(error)
            for name, value in values.items():
                self._columns[name][row] = value
