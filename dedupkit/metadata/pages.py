"""How large the pages of a Parquet file are, by their headers, before anything is decompressed.

A page is what a reader holds in memory at least: one caption of a gigabyte is a page of a gigabyte. Headers are structs
of Thrift's compact protocol; of each only the first three fields matter (parquet.thrift, ``PageHeader``).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

__all__ = ["MAX_PAGE_BYTES", "oversized_column"]

MAX_PAGE_BYTES = int(os.environ.get("DEDUPKIT_MAX_PAGE_BYTES", str(256 << 20)))
"""Uncompressed size of the largest page that is read; the environment variable changes it."""

_HEADER_BYTES = (1 << 12, 1 << 24)  # tried one after the other: headers can hold the least and the largest value
_TRUE, _FALSE, _BYTE, _DOUBLE, _BINARY, _LIST, _SET, _MAP, _STRUCT = 1, 2, 3, 7, 8, 9, 10, 11, 12


def oversized_column(path: Path, group: Any, limit: int) -> str | None:
    """The column of a row group with a page of more than some bytes, and how large it is; None where there is none.

    Args:
        path: The Parquet file.
        group: The metadata of the row group, as pyarrow gives it.
        limit: bytes.

    Raises:
        ValueError: A page header cannot be read.
        OSError: The file cannot be read.
    """
    chunks = [group.column(number) for number in range(group.num_columns)]
    large = [chunk for chunk in chunks if chunk.total_uncompressed_size > limit]
    if not large:
        return None
    with path.open("rb") as stream:
        for chunk in large:
            size = max(_page_sizes(stream, chunk), default=0)
            if size > limit:
                return f"column {chunk.path_in_schema} has a page of {size:,} bytes"
    return None


def _page_sizes(stream: BinaryIO, chunk: Any) -> Iterator[int]:
    """The uncompressed sizes of a column chunk's pages."""
    at = chunk.dictionary_page_offset if chunk.has_dictionary_page else None
    at = chunk.data_page_offset if at is None else min(at, chunk.data_page_offset)
    end = at + chunk.total_compressed_size
    while at < end:
        length, uncompressed, compressed = _header(stream, at)
        yield uncompressed
        at += length + compressed


def _header(stream: BinaryIO, at: int) -> tuple[int, int, int]:
    """The length of a page header, and the sizes of its page with and without compression."""
    for most in _HEADER_BYTES:
        stream.seek(at)
        reader = _Compact(stream.read(most))
        try:
            sizes = reader.integers()
            return reader.at, sizes[2], max(0, sizes[3])
        except (IndexError, KeyError, RecursionError):
            continue
    raise ValueError(f"no page header at byte {at:,}")


class _Compact:
    """Enough of Thrift's compact protocol to step over any struct."""

    def __init__(self, data: bytes) -> None:
        self._data, self.at = data, 0

    def integers(self) -> dict[int, int]:
        """The integers of a struct by field; everything else in it is stepped over."""
        found: dict[int, int] = {}
        field = 0
        while kind := self._take():
            delta, kind = kind >> 4, kind & 15
            field = field + delta if delta else self._integer()
            if _BYTE < kind < _DOUBLE:
                found[field] = self._integer()
            else:
                self._skip(kind, alone=False)
        return found

    def _take(self) -> int:
        self.at += 1
        return self._data[self.at - 1]

    def _varint(self) -> int:
        value = shift = 0
        while True:
            byte = self._take()
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    def _integer(self) -> int:
        value = self._varint()
        return value >> 1 ^ -(value & 1)

    def _skip(self, kind: int, *, alone: bool) -> None:
        """Step over a value; a Boolean has a byte of its own only in a list or map."""
        if kind in (_TRUE, _FALSE):
            self.at += alone
        elif kind == _BYTE:
            self.at += 1
        elif kind < _DOUBLE:
            self._varint()
        elif kind == _DOUBLE:
            self.at += 8
        elif kind == _BINARY:
            size = self._varint()
            self.at += size
        elif kind in (_LIST, _SET):
            size = self._take()
            count = size >> 4 if size >> 4 < 15 else self._varint()
            self._skip_all([size & 15], count)
        elif kind == _MAP:
            count = self._varint()
            kinds = self._take() if count else 0
            self._skip_all([kinds >> 4, kinds & 15], count)
        elif kind == _STRUCT:
            self.integers()
        else:
            raise IndexError(f"no type {kind}")

    def _skip_all(self, kinds: list[int], count: int) -> None:
        for _ in range(min(count, len(self._data))):
            for kind in kinds:
                self._skip(kind, alone=True)
