"""Where a run folder lies, on this machine or in an object store, and who holds it."""

from __future__ import annotations

import fcntl
import logging
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from os import PathLike, fspath
from pathlib import Path
from typing import BinaryIO

from dedupkit.engine.progress import LOGGER
from dedupkit.runfolder.layout import VECTORS, Layout
from dedupkit.store import HeldError, Lease, is_remote, mirror_of, retried

__all__ = ["Placed"]

_PATIENCE = 5.0  # seconds for what another command on this machine writes, when a copy is to be made
_TURN = "copying.lock"  # beside the copy; locked by the process of this machine that makes it


class Placed(Layout):
    """A run folder where it lies.

    Args:
        path: The folder, or the URL of one in an object store; it need not exist. What lies in the store is copied to
            this machine first, but for vectors, which are copied when they are read.
            Other processes of this machine wait while one makes that copy.
        whole: Whether all of it is; else nothing, and only what was asked of the run is known.

    Raises:
        DedupkitError: The store cannot be used, or another process of this machine writes into the folder.

    Attributes:
        remote: The folder in an object store that the one on this machine stands for, if any.
        shown: The folder as messages name it.
    """

    def __init__(self, path: str | PathLike[str], *, whole: bool = True) -> None:
        super().__init__(path)
        mirror = mirror_of(self.path)
        self.remote = mirror if mirror is not None and mirror.home == self.path else None
        self.shown = str(self.path) if self.remote is None else self.remote.url
        self._lease: Lease | None = None
        self._unpulled: bytes | None = None  # run.json as it lies in the store, where no copy is made
        if self.remote is not None:
            self.remote.leaves = frozenset([VECTORS])
        if self.remote is not None and is_remote(fspath(path)):
            self.remote.bucket.refuse_absent()
            if whole:
                with self._turn(), self.lock.open("ab") as lock:
                    self._take(lock, alone=True, patience=_PATIENCE)
                    self.remote.pull()
            else:  # a process of this machine may be writing into the copy
                self._unpulled = self.remote.bucket.read(self.config.name) or b""

    def push(self, paths: Iterable[Path] | None = None) -> None:
        """Put files into the store of a remote run folder, by default all that differ; for a local one do nothing."""
        if self.remote is not None:
            if self._lease is not None:
                self._lease.check()
            self.remote.push(paths)

    @contextmanager
    def shared(self) -> Iterator[None]:
        """Hold the folder while reading from it, together with others, so that nobody decides again meanwhile.

        Other machines are not kept from a folder in an object store: what is read is the copy on this one.

        Raises:
            DedupkitError: Another process is writing into it.
        """
        with self._held(alone=False):
            if self.remote is not None:
                Lease.refuse_held(self.remote.bucket)
            yield

    @contextmanager
    def _held(self, *, alone: bool) -> Iterator[None]:
        """Hold this machine's lock."""
        with self.lock.open("ab") as lock:
            with self._turn():  # whoever makes the copy holds the lock too
                self._take(lock, alone=alone)
            yield

    def _take(self, lock: BinaryIO, *, alone: bool, patience: float = 0.0) -> None:
        """Lock a file; another process is waited for as many seconds as there is patience."""
        until = time.monotonic() + patience
        while True:
            try:
                fcntl.flock(lock, (fcntl.LOCK_EX if alone else fcntl.LOCK_SH) | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                if time.monotonic() < until:
                    time.sleep(0.1)
                    continue
                other, hint = ("run", " or choose another --out") if alone else ("process", "")
                raise HeldError(f"another {other} is writing into {self.shown}; wait for it{hint}") from None

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """Wait, as long as it takes, until no other process of this machine makes the copy."""
        if self.remote is None:
            yield
            return
        with (self.remote.home.parent / _TURN).open("ab") as turn:
            try:
                fcntl.flock(turn, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                message = "%s is being copied by another process of this machine; waiting for it"
                logging.getLogger(LOGGER).info(message, self.shown)
                fcntl.flock(turn, fcntl.LOCK_EX)
            yield

    @contextmanager
    def _leased(self) -> Iterator[None]:
        """Hold the folder in its store alone, if it lies in one, and have here what lies there."""
        if self.remote is None:
            yield
            return
        before = retried()
        with Lease(self.remote.bucket) as self._lease:
            self.remote.pull()
            try:
                yield
            finally:
                self._lease = None
                if again := retried() - before:
                    logging.getLogger(LOGGER).info("%s: this process asked again %s times", self.shown, f"{again:,}")
