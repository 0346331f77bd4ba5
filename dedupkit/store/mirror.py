"""A local folder that stands for one in an object store: files are worked on here, and objects put whole.

The store holds what counts. :meth:`Mirror.pull` makes the local folder like it, :meth:`Mirror.push` the other way; both
move only what differs, many at once, and a note of what was moved lies beside the folder. A file that vouches for
others is JSON: such files are put after the others, and the one that was written last is put last.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from dedupkit.store.bucket import Bucket, State
from dedupkit.store.remote import at_once
from dedupkit.store.whole import is_temporary

__all__ = ["HELD", "LOCK", "MEETING", "NOTE", "Mirror"]

HELD = ".held"
"""Folder of the objects by which a process holds a remote folder."""
MEETING = ".ranks"
"""Folder by which the processes of one command meet; of objects, if the folder is remote."""
LOCK = ".lock"
"""Name of the file that is locked on this machine."""

_LARGE, _LARGE_AT_ONCE = 4 << 20, 4  # bytes of a file
NOTE, _LOG = "remote.json", "objects.jsonl"
"""Names of files beside the local folder: what it stands for, and what was moved."""


class _Moved(NamedTuple):
    """A file and its object when one was made from the other."""

    size: int
    mtime_ns: int
    state: State


class Mirror:
    """A local folder and the remote one that it stands for.

    Args:
        home: The local folder, from :func:`local_home`.
        url: The remote one.

    Attributes:
        home: The local folder.
        bucket: The objects.
        leaves: Names of folders, at any depth, whose objects are not copied until :func:`here` asks for them.
    """

    def __init__(self, home: Path, url: str) -> None:
        self.home, self.bucket = home, Bucket(url)
        self.leaves: frozenset[str] = frozenset()
        self._left: dict[str, State] = {}
        self._moves: dict[str, _Moved] = {}
        self._read_to = 0  # byte of the note
        self._reading = threading.Lock()

    @property
    def url(self) -> str:
        """The remote folder."""
        return self.bucket.url

    def pull(self, folder: Path | None = None) -> None:
        """Make the local folder, or a folder or file in it, like the remote one, but for what it leaves there.

        Raises:
            OSError: The store cannot be read.
        """
        found = self.bucket.find("" if folder is None else self.name(folder))
        there = {name: state for name, state in found.items() if not _is_ours_alone(name)}
        local = set(self._below(folder or self.home)) if (folder or self.home).exists() else set[str]()
        missing = sorted(local - there.keys())
        known = self._known()
        moved = [name for name in missing if name in known]  # a listing may be older than they are
        there |= {name: state for name, state in zip(moved, at_once(self.bucket.state, moved), strict=True) if state}
        for name in missing:
            if name not in there:
                (self.home / name).unlink()
        self._fetch(self._leave(there))

    def bring(self, paths: Iterable[str | Path], *, all_of_them: bool = True) -> None:
        """Make some files or folders like their objects, as a task that another machine has done left them.

        Args:
            paths: The files or folders.
            all_of_them: Whether what the folder leaves in the store is copied too.
        """
        wanted = list(dict.fromkeys(map(self.name, paths)))
        there: dict[str, State] = {}
        for name, state in zip(wanted, at_once(self.bucket.state, wanted), strict=True):
            if state is not None:
                there[name] = state
            else:  # a folder is no object; those in it have its name in theirs
                there |= self.bucket.find(name)
        self._fetch(there if all_of_them else self._leave(there))

    def size_left(self, path: Path) -> int | None:
        """The size in bytes of what is left in the store; None for what is not there, or is here."""
        state = self._left.get(self.name(path))
        return None if state is None or path.exists() else state[0]

    def _leave(self, there: dict[str, State]) -> dict[str, State]:
        """What is to be copied; what is left is noted, and a copy of it that is of another time goes."""
        known = self._known()
        for name, state in there.items():
            if self._is_left(name):
                self._left[name] = state
                if not self._is_same(name, known.get(name), state):
                    (self.home / name).unlink(missing_ok=True)
        return {name: state for name, state in there.items() if not self._is_left(name)}

    def _is_left(self, name: str) -> bool:
        return not self.leaves.isdisjoint(name.split("/"))

    def push(self, paths: Iterable[str | Path] | None = None) -> None:
        """Put files into the store.

        Args:
            paths: The files, or folders of them; None for all that are not as they were when they were put or fetched
                last, then objects are removed that no file here stands for any more.

        Raises:
            OSError: The store cannot be written.
        """
        known = self._known() if paths is None else {}
        if paths is None:
            names = [name for name in self._below(self.home) if not self._is_same(name, known.get(name))]
        else:
            names = [name for path in paths for name in self._below(Path(path))]
        notes = sorted((name for name in names if name.endswith(".json")), key=self._written)
        for part in ([name for name in names if not name.endswith(".json")], notes[:-1], notes[-1:]):
            small, large = self._by_size(part)
            at_once(self._put, small)
            at_once(self._put, large, _LARGE_AT_ONCE)
        if paths is None:
            gone = [name for name in known if not (self.home / name).exists() and not self._is_left(name)]
            self.bucket.remove(gone)
            self._note([(name, None) for name in gone])

    def name(self, path: str | Path) -> str:
        """The name of an object from the local path."""
        return Path(path).relative_to(self.home).as_posix()

    def _fetch(self, there: dict[str, State]) -> None:
        known = self._known()

        def fetch(name: str) -> None:
            path = self.home / name
            for folder in path.parents:
                if folder != self.home and folder.is_file():
                    folder.unlink()
            state = self.bucket.fetch(name, path, there[name])
            if state is not None:
                self._note([(name, _moved(path, state))])

        at_once(fetch, [name for name, state in there.items() if not self._is_same(name, known.get(name), state)])

    def _written(self, name: str) -> int:
        return (self.home / name).stat().st_mtime_ns

    def _by_size(self, names: list[str]) -> tuple[list[str], list[str]]:
        """Names of small files and of large ones, which take memory while they are put."""
        large = {name for name in names if (self.home / name).stat().st_size > _LARGE}
        return [name for name in names if name not in large], sorted(large)

    def _put(self, name: str) -> None:
        before = (self.home / name).stat()
        state = self.bucket.put(name, self.home / name)
        self._note([(name, _Moved(before.st_size, before.st_mtime_ns, state))])

    def _is_same(self, name: str, moved: _Moved | None, state: State | None = None) -> bool:
        """Whether a file, and its object if its state is given, are as they were when one was made from the other."""
        if moved is None or (state is not None and moved.state != state):
            return False
        try:
            return _moved(self.home / name, moved.state) == moved
        except OSError:
            return False

    def _below(self, path: Path) -> Iterator[str]:
        if not path.is_dir():
            yield self.name(path)
            return
        for folder, folders, files in os.walk(path):
            folders[:] = [name for name in folders if not is_temporary(name)]
            names = (self.name(Path(folder, file)) for file in files if not is_temporary(file))
            yield from (name for name in names if not _is_ours_alone(name))

    def _known(self) -> dict[str, _Moved]:
        """What was moved, by name; what other processes of this machine have noted too."""
        with self._reading:
            try:
                with (self.home.parent / _LOG).open("rb") as log:
                    if log.seek(0, os.SEEK_END) < self._read_to:  # it was removed
                        self._moves, self._read_to = {}, 0
                    log.seek(self._read_to)
                    new = log.read()
            except FileNotFoundError:
                self._moves, self._read_to = {}, 0
                return {}
            whole = new[: new.rfind(b"\n") + 1]
            self._read_to += len(whole)
            for line in whole.splitlines():
                with suppress(ValueError):  # a process was killed in the middle of a line
                    name, moved = json.loads(line)
                    self._moves.pop(name, None)
                    if moved is not None:
                        self._moves[name] = _Moved(*moved)
            return dict(self._moves)

    def _note(self, moved: Iterable[tuple[str, _Moved | None]]) -> None:
        """Append to the note; in one write, so that processes do not mix their lines."""
        text = "".join(json.dumps(each) + "\n" for each in moved)
        with (self.home.parent / _LOG).open("ab", buffering=0) as log:
            log.write(text.encode())


def _moved(path: Path, state: State) -> _Moved:
    status = path.stat()
    return _Moved(status.st_size, status.st_mtime_ns, state)


def _is_ours_alone(name: str) -> bool:
    """Whether a file or object has no counterpart."""
    parts = name.split("/")
    return parts[-1] == LOCK or not {HELD, MEETING}.isdisjoint(parts)
