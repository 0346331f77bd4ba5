"""Hostile Parquet: values of any type in every column, and damaged files, through the whole scan of a shard."""

from __future__ import annotations

import datetime
import decimal
from pathlib import Path
from random import Random
from typing import Any

import hostile_jpeg
import pyarrow as pa
import pyarrow.parquet as pq

from dedupkit.hashing.exact import stored_hash
from dedupkit.sources.parquet import ParquetShard
from dedupkit.stages.scan import scan_shard
from hostile.changes import damaged
from hostile.section import Section, Tally

_COLUMNS = (
    "caption",
    "TEXT",
    "url",
    "uid",
    "id",
    "clip_score",
    "similarity",
    "key",
    "status",
    "error_message",
    "other",
)
_TEXTS = ("", "a", "é", "\U0010ffff", "\0", "../x", "x" * 5000, "\u202e", "success", "failed_to_download", "a#2", "a")


class ParquetSection(Section):
    """Files with dates, time zones, nanoseconds, decimals, structs, lists, dictionaries, invalid text and nulls in
    columns that should hold text; row groups and pages of any size; half of them damaged."""

    name = "parquet"
    oracle = "pyarrow: as many rows as it reads, with the same images; a break is told"
    volume = 40_000

    def open(self, folder: Path) -> None:
        """Where the files are written."""
        self._in, self._out = folder / "0.parquet", folder / "rows.parquet"
        self._images = hostile_jpeg.originals()[:8]

    def attempt(self, draw: Random, number: int) -> Tally:
        """One file."""
        tally, rows = Tally(), draw.choice((1, 2, 5, 17))
        images = [None if draw.random() < 0.1 else draw.choice(self._images) for _ in range(rows)]
        columns: dict[str, Any] = {draw.choice(("image", "jpg", "bytes", "odd")): _stored(images, draw)}
        for name in draw.sample(_COLUMNS, draw.randrange(6)):
            columns[name] = _values(rows, draw)
        table = pa.table(columns)
        try:
            pq.write_table(
                table, self._in, row_group_size=draw.choice((1, 3, 1000)), data_page_size=draw.choice((64, 1 << 20)),
                compression=draw.choice(("none", "snappy", "zstd")), use_dictionary=draw.random() < 0.5,
                data_page_version=draw.choice(("1.0", "2.0")), store_schema=draw.random() < 0.7,
                write_page_checksum=draw.random() < 0.2,
            )  # fmt: skip
        except pa.ArrowException:  # a type that Parquet does not have
            return tally
        is_sound = draw.random() < 0.5
        if not is_sound:
            self._in.write_bytes(damaged(draw, self._in.read_bytes()))
        summary = scan_shard(ParquetShard(str(self._in)), str(self._out), ())
        found = pq.read_table(self._out).to_pylist()
        read = [row for row in found if row["key"] or row["offset"] is not None]
        problem = summary.get("problem")
        tally.check(all(row["sha256"] or row["error"] for row in found), "a row without an image and without a reason")
        if is_sound:
            self._compare(read, images, columns, problem, tally)
        elif problem is None:
            expected = _by_pyarrow(self._in)
            if expected is not None and len(read) < len(expected):
                tally.lose(f"{len(expected) - len(read)} rows without a word", len(expected) - len(read))
            elif expected is not None:
                hashes = [stored_hash(image) if image is not None else None for image in expected]
                ours = [row["sha256"] for row in read]
                same = all(mine in (None, theirs) for mine, theirs in zip(ours, hashes, strict=False))
                tally.check(same, "an image has other bytes than pyarrow reads")
        return tally

    def _compare(
        self, read: list[dict[str, Any]], images: list[bytes | None], columns: dict[str, Any], problem: str | None,
        tally: Tally,
    ) -> None:  # fmt: skip
        """A sound file: every row, and every image that is there and not marked as failed."""
        if next(iter(columns)) == "odd" and problem is not None and "no column of images" in problem:
            return  # two columns may be images and neither has a name for one
        tally.check(problem is None, f"a sound file: {problem}")
        if len(read) < len(images):
            tally.lose(f"{len(images) - len(read)} of {len(images)} rows", len(images) - len(read))
        if "status" in columns or next(iter(columns)) == "odd":
            return
        for row, image in zip(read, images, strict=False):
            wanted = None if image is None else stored_hash(image)
            tally.check(row["sha256"] == wanted, f"row {row['key']}: another image")


def _by_pyarrow(path: Path) -> list[bytes | None] | None:
    """The images as pyarrow reads them; None where it reads no table or finds no such column."""
    try:
        file = pq.ParquetFile(path)
        name = next((name for name in ("image", "jpg", "bytes") if name in file.schema_arrow.names), None)
        if name is None:
            return None
        values = file.read(columns=[name])[name].to_pylist()
    except Exception:  # the file is too damaged for the oracle
        return None
    cells = [value.get("bytes") if isinstance(value, dict) else value for value in values]
    return cells if all(cell is None or isinstance(cell, bytes) for cell in cells) else None


def _stored(images: list[bytes | None], draw: Random) -> pa.Array:
    form = draw.randrange(5)
    if form == 0:
        return pa.array(images, pa.binary())
    if form == 1:
        return pa.array(images, pa.large_binary())
    if form == 2:
        return pa.array(images, pa.binary()).dictionary_encode()
    path = draw.choice((pa.string(), pa.int64(), pa.timestamp("ns"), pa.binary()))
    rows = [{"bytes": image, "path": None} for image in images]
    return pa.array(rows, pa.struct([("bytes", pa.binary()), ("path", path)]))


def _values(rows: int, draw: Random) -> pa.Array:
    """A column of some type, with values at its edges."""
    integers = (0, 1, -1, 2**31 - 1, 2**62, -(2**63), 2**63 - 1, 10**7)
    kind = draw.randrange(16)
    numbers = [None if draw.random() < 0.2 else draw.choice(integers) for _ in range(rows)]
    texts = [None if draw.random() < 0.2 else draw.choice(_TEXTS) for _ in range(rows)]
    small = [None if n is None else n % 2**31 for n in numbers]
    if kind < 4:
        return pa.array(texts, draw.choice((pa.string(), pa.large_string())))
    if kind == 4:
        raw = pa.array([draw.choice((b"caf\xe9", b"caf\xe8", b"\xff", b"\xed\xa0\x80", b"fine")) for _ in range(rows)])
        return raw.view(pa.string())
    if kind == 5:
        zone = draw.choice((None, "UTC", "Mars/Olympus", "+25:99", ""))
        return pa.array(numbers, pa.int64()).view(pa.timestamp(draw.choice(("s", "ms", "us", "ns")), tz=zone))
    if kind == 6:
        return pa.array(small, pa.int32()).view(pa.date32())
    if kind == 7:
        return pa.array(numbers, pa.int64()).view(pa.duration(draw.choice(("s", "ns"))))
    if kind == 8:
        return pa.array([None if t is None else [t, None, t] for t in texts], pa.list_(pa.string()))
    if kind == 9:
        return pa.array([{"a": t, "b": [n]} for t, n in zip(texts, numbers, strict=True)])
    if kind == 10:
        return pa.array(texts).dictionary_encode()
    if kind == 11:
        return pa.array([None if n is None else decimal.Decimal(n).scaleb(-9) for n in numbers], pa.decimal256(60, 9))
    if kind == 12:
        return pa.array([draw.choice((0.0, float("nan"), float("inf"), 1e308, 5e-324)) for _ in range(rows)])
    if kind == 13:
        return pa.array([datetime.time(1, 2, 3) for _ in range(rows)], pa.time64("ns"))
    if kind == 14:
        return pa.array([[(t or "", n)] for t, n in zip(texts, numbers, strict=True)], pa.map_("string", "int64"))
    return pa.array(numbers, pa.int64()) if draw.random() < 0.7 else pa.nulls(rows)
