"""Files opened for reading, local or remote."""

from __future__ import annotations

import errno
import io as _io
import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from stat import S_ISREG
from typing import IO, Any

from dedupkit.store.paths import is_http, local_path
from dedupkit.store.remote import as_oserror, at_once, filesystem, is_beyond_end, patiently

__all__ = ["open_binary", "read_ranges"]

_RANGES_AT_ONCE = 16


def open_binary(path: str) -> IO[bytes]:
    """Open a path for reading bytes.

    Raises:
        OSError: it is missing or cannot be read.
        DedupkitError: a remote path whose fsspec package is missing.
    """
    local = local_path(path)
    if local is not None:
        return _open_regular(local)
    fs, inner, _ = filesystem(path)
    if is_http(path):
        from dedupkit.store.http import HttpFile

        return _io.BufferedReader(HttpFile(fs, inner), 1 << 20)
    return _io.BufferedReader(_Remote(path, patiently(path, lambda: fs.open(inner, "rb"))), 1 << 20)


def read_ranges(path: str, ranges: Sequence[tuple[int, int]]) -> Iterator[bytes]:
    """Read parts of a file, offset and number of bytes each; shorter ones where the file ends.

    Of an object several are read at once, and nothing around them.

    Raises:
        OSError: it is missing or cannot be read.
    """
    if local_path(path) is not None or is_http(path):
        with open_binary(path) as stream:
            for offset, nbytes in ranges:
                stream.seek(offset)
                yield stream.read(nbytes)
        return
    fs, inner, _ = filesystem(path)

    def read(part: tuple[int, int]) -> bytes:
        start, nbytes = part
        if not nbytes:
            return b""
        try:
            data: bytes = patiently(path, lambda: fs.cat_file(inner, start=start, end=start + nbytes))
        except OSError as error:
            if is_beyond_end(error):
                return b""
            raise
        return data

    for first in range(0, len(ranges), _RANGES_AT_ONCE):
        yield from at_once(read, ranges[first : first + _RANGES_AT_ONCE])


def _open_regular(path: str) -> IO[bytes]:
    """Open a regular file; a pipe or a device would block, or never end."""
    stream = open(path, "rb", opener=_without_waiting)  # noqa: SIM115 - the caller closes it
    if not S_ISREG(os.fstat(stream.fileno()).st_mode):
        stream.close()
        raise OSError(errno.EINVAL, "not a regular file", path)
    return stream


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)


class _Remote(_io.RawIOBase):
    """A file of an fsspec store as a raw stream, to be buffered: its reads may be short, its errors of any kind."""

    def __init__(self, path: str, file: Any) -> None:
        self._path, self._file = path, file

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return bool(self._file.seekable())

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        with as_oserror(self._path):
            return int(self._file.seek(offset, whence))

    def tell(self) -> int:
        return int(self._file.tell())

    def readinto(self, buffer: Any) -> int:
        here = self._file.tell()

        def back() -> None:
            with suppress(Exception):
                self._file.seek(here)

        data: bytes = patiently(self._path, lambda: self._file.read(len(buffer)), back)
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        if not self.closed:
            self._file.close()
        super().close()
