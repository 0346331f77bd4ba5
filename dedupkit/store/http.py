"""Files behind http(s) addresses, read in one stream each, whatever the server makes of byte ranges.

fsspec's own file takes an answer for the range that was asked if it is no longer than that, and a server that ignores
ranges then yields other bytes than those at the position. Here a range counts only with status 206 and the right start;
from a server that ignores ranges the file is copied once into a temporary file. What is transient is tried again.
"""

from __future__ import annotations

import io as _io
import os
import tempfile
from collections.abc import Callable
from contextlib import suppress
from typing import IO, Any, TypeVar

from dedupkit.store.remote import patiently

__all__ = ["HttpFile"]

_NEAR = 1 << 20  # bytes that are read on rather than asked for anew
_CHUNK = 1 << 20

T = TypeVar("T")


class HttpFile(_io.RawIOBase):
    """A file behind an address as a raw stream that can seek, to be buffered.

    Args:
        fs: fsspec's file system for http.
        url: The address.

    Raises:
        OSError: it is missing or cannot be read; the message names the cause.
    """

    def __init__(self, fs: Any, url: str) -> None:
        self._fs, self._url = fs, url
        self._position = 0
        self._stream: Any = None
        self._stream_position = 0
        self._copy: IO[bytes] | None = None
        self._size: int | None = None
        self._attempt(self._connect)

    def readable(self) -> bool:
        """True."""
        return True

    def seekable(self) -> bool:
        """True: by ranges, or in a copy."""
        return True

    def tell(self) -> int:
        """The position."""
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Change the position; nothing is asked for before the next read."""
        if whence == os.SEEK_END:
            if self._size is None:
                self._attempt(self._copy_whole)
            offset += self._size or 0
        elif whence == os.SEEK_CUR:
            offset += self._position
        self._position = max(0, offset)
        return self._position

    def readinto(self, buffer: Any) -> int:
        """Read what comes next, at most as much as the buffer holds."""
        data = self._attempt(lambda: self._read(len(buffer)))
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)

    def close(self) -> None:
        """End the connection and remove the copy."""
        if not self.closed:
            self._disconnect()
            if self._copy is not None:
                self._copy.close()
        super().close()

    def _attempt(self, action: Callable[[], T]) -> T:
        """Do something; if it fails for a reason that may pass, try again with a new connection."""
        return patiently(self._url, action, self._disconnect)

    def _read(self, size: int) -> bytes:
        if self._size is not None and self._position >= self._size:
            return b""
        if self._copy is None and not 0 <= self._position - self._stream_position <= _NEAR:
            self._disconnect()
        if self._copy is None and self._stream is None:
            self._connect()
        if self._copy is not None:
            self._copy.seek(self._position)
            return self._copy.read(size)
        while self._stream_position < self._position:
            if not self._advance(min(self._position - self._stream_position, _CHUNK)):
                return b""
        return self._advance(size)

    def _advance(self, size: int) -> bytes:
        data: bytes = self._stream.read(size)
        self._stream_position += len(data)
        if not data and self._size is not None and self._stream_position < self._size:
            raise ConnectionError(f"the connection ended at byte {self._stream_position} of {self._size}")
        return data

    def _connect(self) -> None:
        """Ask for the file from the position on."""
        headers = {**self._fs.kwargs.get("headers", {}), "Accept-Encoding": "identity"}
        if self._position:
            headers["Range"] = f"bytes={self._position}-"
        stream = self._fs.open(self._url, "rb", block_size=0, size=1, headers=headers)
        reply = stream.r
        start = _range_start(reply.headers.get("Content-Range", ""))
        if self._position and (reply.status != 206 or start != self._position):
            stream.close()
            self._copy_whole()
            return
        length = reply.headers.get("Content-Length", "")
        if length.isdecimal() and not reply.headers.get("Content-Encoding"):
            self._size = self._position + int(length)
        self._stream, self._stream_position = stream, self._position

    def _copy_whole(self) -> None:
        """Copy the file, for a server that serves no ranges or names no size."""
        if self._copy is not None:
            return
        self._disconnect()
        headers = {**self._fs.kwargs.get("headers", {}), "Accept-Encoding": "identity"}
        copy = tempfile.TemporaryFile()  # noqa: SIM115 - closed with this file
        with self._fs.open(self._url, "rb", block_size=0, size=1, headers=headers) as stream:
            while data := stream.read(_CHUNK):
                copy.write(data)
        self._copy, self._size = copy, copy.tell()

    def _disconnect(self) -> None:
        if self._stream is not None:
            with suppress(Exception):  # the connection may be broken
                self._stream.close()
        self._stream = None


def _range_start(header: str) -> int | None:
    start = header.removeprefix("bytes ").partition("-")[0]
    return int(start) if start.isdecimal() else None
