"""The kept samples as lists: URLs for img2dataset, a DataComp subset, plain keys."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from dedupkit.errors import DedupkitError
from dedupkit.manifest.captions import captions_in
from dedupkit.store import atomic_path

__all__ = ["LISTS", "escape", "read_keys", "unescape", "write_datacomp", "write_keys", "write_urls"]

_UID = re.compile(r"[0-9a-fA-F]{32}")
_ESCAPES = {"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"}
_TEXTS = {escaped: text for text, escaped in _ESCAPES.items()}
_UNSAFE = re.compile(r"[\\\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_ESCAPED = re.compile(r"\\(?:u([0-9A-F]{4})|[tnr\\])")


def write_urls(manifest: Path, to: Path, caption_seed: int | None = None) -> int:
    """``urls.parquet`` (url, caption, uid) as img2dataset takes it: ``--input_format parquet --url_col url``.

    Args:
        manifest: Path of ``manifest.parquet``.
        to: Folder of the list.
        caption_seed: Seed for drawing one of the captions that a sample carries; None to keep its own.

    Returns:
        The number of rows; samples without a URL cannot be listed.

    Raises:
        DedupkitError: no kept sample has a URL.
    """
    count = 0
    schema = pa.schema([("url", pa.string()), ("caption", pa.string()), ("uid", pa.string())])
    with atomic_path(to / "urls.parquet") as temporary:
        with pq.ParquetWriter(temporary, schema, compression="zstd") as writer:
            for table in _kept(manifest, *schema.names, "sample", "captions"):
                listed = table.filter(pc.is_valid(table["url"]))
                writer.write_table(_captioned(listed, caption_seed).select(schema.names))
                count += listed.num_rows
        if count == 0:
            raise DedupkitError("no kept sample has a URL; choose another --format")
    return count


def _captioned(table: pa.Table, seed: int | None) -> pa.Table:
    """With the captions that cleaned shards have: none where the run blanks them, one that is drawn where asked."""
    written = {sample: carried.text for sample, carried in captions_in(table, seed).items() if carried.text is not None}
    samples, own = table["sample"].to_pylist(), table["caption"].to_pylist()
    captions = [written.get(sample, caption) for sample, caption in zip(samples, own, strict=True)]
    return table.set_column(
        table.schema.get_field_index("caption"), "caption", pa.array(captions, table.schema.field("caption").type)
    )


def write_datacomp(manifest: Path, to: Path) -> int:
    """``subset.npy``, DataComp's subset format: (n,) of dtype ``u8,u8``, high and low 64 bits of each uid, sorted.

    Raises:
        DedupkitError: a kept sample has no uid of 32 hexadecimal digits.
    """
    halves: list[np.ndarray[Any, Any]] = []
    count = without = 0
    example = ""
    for table in _kept(manifest, "uid", "source", "key"):
        uids = table["uid"].to_pylist()
        bad = [row for row, uid in enumerate(uids) if uid is None or not _UID.fullmatch(uid)]
        if bad and not without:
            example = f"{table['key'][bad[0]]} of {table['source'][bad[0]]}"
        count, without = count + len(uids), without + len(bad)
        if not without:
            halves.append(_uid_halves(uids))
    if without:
        raise DedupkitError(
            f"{without:,} of {count:,} kept samples have no uid of 32 hexadecimal digits, such as {example}; a "
            "DataComp subset needs them"
        )
    empty = np.zeros(0, np.dtype("u8,u8"))
    subset = np.sort(np.concatenate([empty, *halves]))
    with atomic_path(to / "subset.npy") as temporary, temporary.open("wb") as stream:
        np.save(stream, subset)
    return len(subset)


def write_keys(manifest: Path, to: Path) -> int:
    r"""``keys.tsv``: source and key of each kept sample, one a line, in the order of the manifest.

    A tab, a line break or a backslash in one of them is written as ``\t``, ``\n``, ``\r`` or ``\\``, as PostgreSQL's
    COPY has it, and any other control character or line separator as ``\uXXXX``; :func:`read_keys` undoes it.
    """
    count = 0
    with atomic_path(to / "keys.tsv") as temporary, temporary.open("w", encoding="utf-8", newline="\n") as stream:
        for table in _kept(manifest, "source", "key"):
            rows = zip(table["source"].to_pylist(), table["key"].to_pylist(), strict=True)
            stream.writelines(f"{escape(source)}\t{escape(key)}\n" for source, key in rows)
            count += table.num_rows
    return count


def read_keys(path: str | Path) -> Iterator[tuple[str, str]]:
    """Source and key of each line of a ``keys.tsv``.

    Raises:
        DedupkitError: A line is not two fields.
        OSError: The file cannot be read.
    """
    with Path(path).open(encoding="utf-8", newline="\n") as stream:
        for number, line in enumerate(stream, 1):
            fields = line.removesuffix("\n").split("\t")
            if len(fields) != 2:
                raise DedupkitError(f"{path}, line {number}: expected source and key with one tab between them")
            yield unescape(fields[0]), unescape(fields[1])


def escape(text: str) -> str:
    r"""Text as one field of a line.

    >>> print(escape("a\tb\n"), unescape(escape("a\tb\n")) == "a\tb\n")
    a\tb\n True
    """
    return _UNSAFE.sub(lambda match: _ESCAPES.get(match[0]) or f"\\u{ord(match[0]):04X}", text)


def unescape(field: str) -> str:
    """The text of a field; the inverse of :func:`escape`."""
    return _ESCAPED.sub(lambda match: chr(int(match[1], 16)) if match[1] else _TEXTS[match[0]], field)


LISTS: dict[str, tuple[Callable[[Path, Path], int], str]] = {
    "urls": (write_urls, "urls.parquet"),
    "datacomp": (write_datacomp, "subset.npy"),
    "keys": (write_keys, "keys.tsv"),
}
"""Formats of lists: a function from manifest and folder to the number of samples, and the file that it writes."""


def _kept(manifest: Path, *columns: str) -> Iterator[pa.Table]:
    """Columns of the kept samples, a batch at a time."""
    with pq.ParquetFile(manifest) as file:
        for batch in file.iter_batches(columns=[*columns, "verdict"]):
            table = pa.Table.from_batches([batch])
            yield table.filter(pc.equal(table["verdict"], "keep")).select(list(columns))


def _uid_halves(uids: list[str]) -> np.ndarray[Any, Any]:
    numbers = [int(uid, 16) for uid in uids]
    mask = 2**64 - 1
    return np.array([(number >> 64, number & mask) for number in numbers], np.dtype("u8,u8"))
