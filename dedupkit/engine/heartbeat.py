"""Signs of life through what processes share, without comparing clocks."""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from types import TracebackType
from typing import Self

from dedupkit.engine.room import Note

__all__ = ["Heartbeat", "Pulse"]

_LEFT = "left"


class Heartbeat:
    """Rewrites a small text as long as this process lives; a context manager.

    Args:
        note: The text; the folder of a file must exist.
        every: Seconds between two beats.
    """

    def __init__(self, note: Note, every: float = 1.0) -> None:
        self._note, self._every = note, every
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._beat, name=f"heartbeat {note.name}", daemon=True)

    def __enter__(self) -> Self:
        self._write("0")
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()
        self._write(_LEFT)

    def _beat(self) -> None:
        count = 0
        while not self._ended.wait(self._every):
            count += 1
            self._write(str(count))

    def _write(self, text: str) -> None:
        with suppress(OSError):  # the folder is gone, or the file system pauses: the observer decides
            self._note.write_text(text)


class Pulse:
    """Whether the process behind a heartbeat lives, as seen from here.

    It lives if the text changed within a time that this process's own monotonic clock measures. Neither the clocks of
    two machines nor a clock and a file's time are compared, so that none of them needs to be right.

    Args:
        note: The heartbeat; it need not exist yet.
        timeout: Seconds without a change after which the process counts as dead.
    """

    def __init__(self, note: Note, timeout: float) -> None:
        self._note, self._timeout = note, timeout
        self._seen = self._read()
        self._since = time.monotonic()
        self._changed = False

    def alive(self) -> bool:
        """Look again; False where the process has left or nothing has changed for the whole time."""
        self._look()
        return self._seen != _LEFT and time.monotonic() - self._since < self._timeout

    def beats(self) -> bool:
        """Look again; whether it was ever seen to change, so that it is no file of a dead process."""
        self._look()
        return self._changed and self._seen != _LEFT

    def _look(self) -> None:
        seen = self._read()
        if seen != self._seen:
            self._seen, self._since, self._changed = seen, time.monotonic(), True

    def _read(self) -> str | None:
        try:
            return self._note.read_text()  # opening asks the server, where a status may come from a cache
        except OSError:
            return None
