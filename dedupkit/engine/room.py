"""Where processes leave things for one another: a folder that all of them see, or objects in a store."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

from dedupkit.errors import DedupkitError
from dedupkit.store import MEETING, Bucket, at_once, atomic_path, mirror_of, read_sealed, remove_tree, write_sealed

__all__ = ["FolderRoom", "Note", "ObjectRoom", "Room", "room_of"]


class Note(Protocol):
    """A small text that one process rewrites and others read, as a :class:`pathlib.Path` does it."""

    @property
    def name(self) -> str:
        """Its name."""

    def write_text(self, text: str, /) -> object:
        """Replace the text."""

    def read_text(self) -> str:
        """The text; ``OSError`` where there is none."""


class Room(Protocol):
    """Things by name, in which ``/`` separates folders.

    Attributes:
        every: Seconds between two signs of life of a process.
        pause: Seconds at least between two looks for something new.
    """

    every: float
    pause: float

    def note(self, name: str) -> Note:
        """A small text, there or not."""

    def write(self, name: str, data: bytes) -> None:
        """Leave something, whole or not at all."""

    def read(self, name: str, like: str) -> bytes | None:
        """What was left; None where nothing was.

        Args:
            name: Its name.
            like: A note of this process's own.

        Raises:
            DedupkitError: Another user left it.
        """

    def write_record(self, name: str, value: dict[str, Any]) -> None:
        """Leave a JSON object."""

    def read_record(self, name: str) -> dict[str, Any] | None:
        """The JSON object that was left; None where nothing was, or not as it was written."""

    def take(self, names: str, name: str, who: str) -> bool:
        """Take a name in a folder that was made; False where another process has, or the folder is gone."""

    def make(self, folder: str) -> None:
        """Make a folder."""

    def say(self, folder: str, who: str, line: str) -> None:
        """Add a line to what a process says in a folder; nothing where the folder is gone."""

    def heard(self, folder: str) -> Iterator[str]:
        """The lines that processes have added in a folder since this was last called."""

    def leave(self, folder: str) -> None:
        """Remove a folder."""

    def clear(self) -> None:
        """Remove all folders."""


def room_of(out: Path) -> Room:
    """Where the processes of a command meet, by the folder that they work on."""
    mirror = mirror_of(out)
    return FolderRoom(out / MEETING) if mirror is None else ObjectRoom(mirror.bucket, mirror.name(out / MEETING))


class FolderRoom:
    """A :class:`Room` in a folder.

    Args:
        path: The folder, which all processes see.
    """

    every, pause = 1.0, 0.0

    def __init__(self, path: Path) -> None:
        self._path = path
        self._heard: dict[Path, int] = {}  # bytes read, by file

    def note(self, name: str) -> Note:
        """See :meth:`Room.note`."""
        return self._path / name

    def write(self, name: str, data: bytes) -> None:
        """See :meth:`Room.write`."""
        with atomic_path(self._path / name) as temporary:
            temporary.write_bytes(data)

    def read(self, name: str, like: str) -> bytes | None:
        """See :meth:`Room.read`."""
        path = self._path / name
        try:
            if path.stat().st_uid != (self._path / like).stat().st_uid:
                raise DedupkitError(f"{path} belongs to another user; all ranks must run as the same one")
            return path.read_bytes()
        except FileNotFoundError:
            return None

    def write_record(self, name: str, value: dict[str, Any]) -> None:
        """See :meth:`Room.write_record`."""
        write_sealed(self._path / name, value)

    def read_record(self, name: str) -> dict[str, Any] | None:
        """See :meth:`Room.read_record`."""
        return read_sealed(self._path / name)

    def take(self, names: str, name: str, who: str) -> bool:
        """See :meth:`Room.take`."""
        try:
            descriptor = os.open(self._path / names / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        except (FileExistsError, FileNotFoundError):
            return False
        with os.fdopen(descriptor, "w") as stream:
            stream.write(who)
        return True

    def make(self, folder: str) -> None:
        """See :meth:`Room.make`."""
        (self._path / folder).mkdir(parents=True)

    def say(self, folder: str, who: str, line: str) -> None:
        """See :meth:`Room.say`; the file is closed at once, so that other machines see it."""
        with suppress(FileNotFoundError), (self._path / folder / who).open("a") as stream:
            stream.write(f"{line}\n")

    def heard(self, folder: str) -> Iterator[str]:
        """See :meth:`Room.heard`."""
        for path in sorted((self._path / folder).iterdir()):
            with path.open("rb") as stream:
                stream.seek(self._heard.get(path, 0))
                text = stream.read()
            whole = text[: text.rfind(b"\n") + 1]
            self._heard[path] = self._heard.get(path, 0) + len(whole)
            yield from whole.decode().splitlines()

    def leave(self, folder: str) -> None:
        """See :meth:`Room.leave`."""
        remove_tree(self._path / folder)

    def clear(self) -> None:
        """See :meth:`Room.clear`."""
        self._path.mkdir(parents=True, exist_ok=True)
        for folder in self._path.iterdir():
            if folder.is_dir():
                remove_tree(folder)


class ObjectRoom:
    """A :class:`Room` of objects in a store; a name is taken by putting its object where there is none.

    A store has no folders, so an object in each says that it is there. It is the first to be removed, and whoever puts
    something looks for it afterwards: what comes too late is removed by the process that put it.

    Args:
        bucket: Where the objects are.
        folder: Folder below it for them.
    """

    every, pause = 5.0, 1.0

    def __init__(self, bucket: Bucket, folder: str) -> None:
        self._bucket, self._folder = bucket, folder
        self._said = 0
        self._heard: set[str] = set()

    def note(self, name: str) -> Note:
        """See :meth:`Room.note`."""
        return _ObjectNote(self._named(name), self._bucket, self._stays)

    def write(self, name: str, data: bytes) -> None:
        """See :meth:`Room.write`."""
        self._bucket.put(self._named(name), data)

    def read(self, name: str, like: str) -> bytes | None:
        """See :meth:`Room.read`; who may put objects is the store's business."""
        return self._bucket.read(self._named(name))

    def write_record(self, name: str, value: dict[str, Any]) -> None:
        """See :meth:`Room.write_record`."""
        self.write(name, json.dumps(value).encode())

    def read_record(self, name: str) -> dict[str, Any] | None:
        """See :meth:`Room.read_record`."""
        try:
            value = json.loads(self._bucket.read(self._named(name)) or b"null")
        except ValueError:
            return None
        return value if isinstance(value, dict) else None

    def take(self, names: str, name: str, who: str) -> bool:
        """See :meth:`Room.take`."""
        taken = self._named(f"{names}/{name}")
        return self._bucket.create(taken, who.encode()) and self._stays(taken)

    def make(self, folder: str) -> None:
        """See :meth:`Room.make`."""
        self._bucket.put(self._named(f"{folder}/{_MADE}"), b"")

    def say(self, folder: str, who: str, line: str) -> None:
        """See :meth:`Room.say`; each line is an object."""
        self._said += 1
        name = self._named(f"{folder}/{who}-{self._said:08d}")
        self._bucket.put(name, line.encode())
        self._stays(name)

    def heard(self, folder: str) -> Iterator[str]:
        """See :meth:`Room.heard`."""
        new = sorted(self._bucket.find(self._named(folder)).keys() - self._heard - {self._named(f"{folder}/{_MADE}")})
        for name, line in zip(new, at_once(self._bucket.read, new), strict=True):
            if line is not None:
                self._heard.add(name)
                yield line.decode()

    def leave(self, folder: str) -> None:
        """See :meth:`Room.leave`; what was put before the folders went is in the second list."""
        self._bucket.remove(name for name in self._find(folder) if name.endswith(f"/{_MADE}"))
        self._bucket.remove(self._find(folder))

    def clear(self) -> None:
        """See :meth:`Room.clear`."""
        inner = (name[len(self._folder) + 1 :] for name in self._bucket.find(self._folder))
        folders = {name.partition("/")[0] for name in inner if "/" in name}
        for folder in folders:
            self.leave(folder)

    def _stays(self, name: str) -> bool:
        """Whether the folder of an object that was just put is there; where it is gone, the object is removed."""
        there = self._bucket.state(f"{name.rpartition('/')[0]}/{_MADE}") is not None
        if not there:
            self._bucket.remove([name])
        return there

    def _find(self, folder: str) -> list[str]:
        return list(self._bucket.find(self._named(folder)))

    def _named(self, name: str) -> str:
        return f"{self._folder}/{name}"


_MADE = "made"


class _ObjectNote:
    def __init__(self, name: str, bucket: Bucket, stays: Callable[[str], bool]) -> None:
        self.name, self._bucket, self._stays = name, bucket, stays

    def write_text(self, text: str, /) -> object:
        self._bucket.put(self.name, text.encode())
        if not self._stays(self.name):
            raise FileNotFoundError(f"the folder of {self.name} is gone")
        return None

    def read_text(self) -> str:
        data = self._bucket.read(self.name)
        if data is None:
            raise FileNotFoundError(self.name)
        return data.decode()
