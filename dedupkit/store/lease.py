"""Who may write into a remote folder: one process, which shows that it lives.

Below ``.held`` each holder has an object of its own, numbered: the one with the highest number holds the folder. A
number is taken by putting its object where there is none, so of two processes that try at once one succeeds, also where
both take over from one that died. No clocks are compared: a holder lives if its object changes while it is watched.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import socket
import threading
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from dedupkit.errors import DedupkitError
from dedupkit.store.bucket import Bucket
from dedupkit.store.mirror import HELD

__all__ = ["HeldError", "Lease"]

EVERY = 5.0
"""Seconds between two signs of life."""
PATIENCE = 30.0
"""Seconds without one after which a holder counts as dead."""


class HeldError(DedupkitError):
    """A folder into which another process is writing."""


class Lease:
    """Holds a remote folder alone; a context manager.

    Args:
        bucket: The folder.
        folder: Folder below it for the objects that say so.

    Raises:
        DedupkitError: Another process holds it, the bucket is not there, or may not be written.
    """

    def __init__(self, bucket: Bucket, folder: str = HELD) -> None:
        self._bucket, self._folder = bucket, folder
        self._number = 0
        self._mine = {"token": secrets.token_hex(8), "host": _host(), "process": os.getpid(), "beat": 0}
        self._ended = threading.Event()
        self._lost = False
        self._thread = threading.Thread(target=self._beat, name="lease", daemon=True)

    @staticmethod
    def refuse_held(bucket: Bucket, folder: str = HELD) -> None:
        """Refuse a folder that another process holds.

        Raises:
            DedupkitError: Another process holds it.
        """
        lease = Lease(bucket, folder)
        last = max(lease._numbers(), default=0)
        if last and lease._lives(last):
            raise lease._in_use()

    def check(self) -> None:
        """Refuse to go on where another process has taken the folder, because this one gave no sign of life.

        Raises:
            DedupkitError: It has.
        """
        if self._lost:
            raise DedupkitError(
                f"another process has taken {self._bucket.url}, because this one could not reach the store for "
                f"{PATIENCE:.0f} s; what was done is kept"
            )

    def __enter__(self) -> Self:
        self._bucket.refuse_absent()
        before = self._numbers()
        last = max(before, default=0)
        while True:
            if last and self._lives(last):
                raise self._in_use()
            self._number = last + 1
            if self._bucket.create(self._name(self._number), self._said()):
                break
            before.append(last)
            last = self._number  # another process was faster, or the listing was old
        self._bucket.remove(map(self._name, {*before, last} - {0}))
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()
        if not self._lost:
            with suppress(OSError):  # the next process waits for a sign of life
                self._bucket.put(self._name(self._number), b"{}")

    def _beat(self) -> None:
        while not self._ended.wait(EVERY):
            with suppress(OSError):
                if max(self._numbers(), default=0) > self._number:
                    self._lost = True
                    return
                self._mine["beat"] += 1  # type: ignore[operator]
                self._bucket.put(self._name(self._number), self._said())

    def _lives(self, number: int) -> bool:
        """Whether the holder of a number lives; its object is watched where that is not known."""
        first = self._bucket.read(self._name(number))
        said = _parsed(first)
        if "token" not in said:
            return False  # it let go
        if said.get("host") == self._mine["host"] and not _runs(said):
            return False
        began = time.monotonic()
        while time.monotonic() - began < PATIENCE:
            time.sleep(min(1.0, PATIENCE / 10))
            if self._bucket.read(self._name(number)) != first:
                return True
        return False

    def _numbers(self) -> list[int]:
        names = (name.rpartition("/")[2] for name in self._bucket.find(self._folder))
        return [int(name) for name in names if name.isdecimal()]

    def _name(self, number: int) -> str:
        return f"{self._folder}/{number:08d}"

    def _said(self) -> bytes:
        return json.dumps(self._mine).encode()

    def _in_use(self) -> HeldError:
        return HeldError(f"another run is writing into {self._bucket.url}; wait for it or choose another folder")


def _host() -> str:
    """What tells the processes that this one sees from those of other machines and containers."""
    space = Path("/proc/self/ns/pid")
    boot = Path("/proc/sys/kernel/random/boot_id")
    parts = [socket.gethostname(), str(space.readlink()) if space.is_symlink() else "", _text(boot)]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def _runs(said: dict[str, Any]) -> bool:
    try:
        os.kill(int(said["process"]), 0)
    except (ProcessLookupError, KeyError, ValueError):
        return False
    except PermissionError:
        return True
    return True


def _parsed(data: bytes | None) -> dict[str, Any]:
    try:
        said = json.loads(data or b"{}")
    except ValueError:
        return {}
    return said if isinstance(said, dict) else {}
