"""The files that ``apply`` writes, in a folder of this machine or in an object store."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from dedupkit.store import HELD, Lease, Mirror, mirror_of

__all__ = ["Files", "files_in"]


class Files(Protocol):
    """Files in one folder, by name; they are written into a local folder first, and then kept."""

    shown: str
    """The folder as messages name it."""

    def look(self) -> None:
        """Have on this machine what the folder says of its files."""

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold the folder alone, beyond this machine's lock; DedupkitError where another process holds it."""

    def check(self) -> None:
        """Refuse to go on in a process that held the folder and has lost it to another; what changes it does so too."""

    def names(self) -> set[str]:
        """The names in the folder."""

    def keep(self, name: str) -> dict[str, Any]:
        """Keep a file that was just written; returns what it is known by: size, digest, and a store's tag."""

    def holds(self, name: str, facts: dict[str, Any]) -> bool:
        """Whether a file is as :meth:`keep` saw it."""

    def remove(self, name: str) -> None:
        """Remove a file, if it is there."""

    def keep_state(self, path: Path) -> None:
        """Keep a small file that says something of the others, or its removal."""

    def clear(self, folder: Path) -> None:
        """Remove a folder of such files."""


def files_in(path: Path, state: Path) -> Files:
    """The files of a folder, or of the remote one that it stands for.

    Args:
        path: The folder on this machine.
        state: The folder in it that says what is known of the files.
    """
    mirror = mirror_of(path)
    return _Local(path) if mirror is None else _Remote(mirror, state)


class _Local:
    """Files that stay where they are written."""

    def __init__(self, path: Path) -> None:
        self._path, self.shown = path, str(path)

    def look(self) -> None: ...

    @contextmanager
    def held(self) -> Iterator[None]:
        yield

    def check(self) -> None: ...

    def names(self) -> set[str]:
        return {entry.name for entry in self._path.iterdir()} if self._path.exists() else set()

    def keep(self, name: str) -> dict[str, Any]:
        return _facts(self._path / name)

    def holds(self, name: str, facts: dict[str, Any]) -> bool:
        path = self._path / name
        if path.is_symlink() or not path.is_file() or path.stat().st_size != facts.get("size"):
            return False
        return _facts(path) == facts

    def remove(self, name: str) -> None:
        (self._path / name).unlink(missing_ok=True)

    def keep_state(self, path: Path) -> None: ...

    def clear(self, folder: Path) -> None:
        shutil.rmtree(folder, ignore_errors=True)


class _Remote:
    """Objects: a file is put whole as soon as it is written, and leaves this machine."""

    def __init__(self, mirror: Mirror, state: Path) -> None:
        self._mirror, self._state = mirror, state
        self._lease: Lease | None = None  # in the process that holds the folder; others write for it
        self.shown = mirror.url

    def look(self) -> None:
        self._mirror.bucket.refuse_absent()
        self._mirror.pull(self._state)

    @contextmanager
    def held(self) -> Iterator[None]:
        with Lease(self._mirror.bucket, f"{self._mirror.name(self._state)}/{HELD}") as self._lease:
            yield

    def names(self) -> set[str]:
        return {name.partition("/")[0] for name in self._mirror.bucket.find()}

    def keep(self, name: str) -> dict[str, Any]:
        self.check()
        path = self._mirror.home / name
        facts = _facts(path) | {"state": self._mirror.bucket.put(name, path)}
        path.unlink()
        return facts

    def holds(self, name: str, facts: dict[str, Any]) -> bool:
        return "state" in facts and self._mirror.bucket.state(name) == facts["state"]

    def remove(self, name: str) -> None:
        self.check()
        self._mirror.bucket.remove([name])

    def keep_state(self, path: Path) -> None:
        self.check()
        if path.exists():
            self._mirror.push([path])
        else:
            self._mirror.bucket.remove([self._mirror.name(path)])

    def clear(self, folder: Path) -> None:
        self.check()
        shutil.rmtree(folder, ignore_errors=True)
        self._mirror.bucket.remove(self._mirror.bucket.find(self._mirror.name(folder)))

    def check(self) -> None:
        if self._lease is not None:
            self._lease.check()


def _facts(path: Path) -> dict[str, Any]:
    with path.open("rb") as stream:
        return {"size": path.stat().st_size, "sha256": hashlib.file_digest(stream, "sha256").hexdigest()}
