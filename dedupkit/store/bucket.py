"""Objects below the URL of a folder, read and put whole."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from dedupkit.errors import DedupkitError
from dedupkit.store.listing import state_of
from dedupkit.store.paths import join
from dedupkit.store.remote import at_once, filesystem, patiently
from dedupkit.store.whole import atomic_path

__all__ = ["Bucket", "State"]

State = list[Any]
"""Size in bytes of an object and the tag that its store gives it, which changes with its content."""

_IN_ONE = 64 << 20  # bytes that are put in one request
_OUTSIDE = frozenset(["", ".", ".."])  # parts of a name that may lead out of the local folder


class Bucket:
    """Objects below a URL, by their names relative to it; what is transient is tried again.

    Args:
        url: Such as ``s3://bucket/runs/first``.

    Raises:
        DedupkitError: The package for this kind of URL is not installed.
    """

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        self._fs, root, _ = filesystem(self.url)
        self._root = root.rstrip("/")

    def find(self, folder: str = "") -> dict[str, State]:
        """Every object below a folder, by name; empty where there is none. Markers of folders are left out.

        Raises:
            DedupkitError: An object has a name that is no path below the folder; a copy of it would lie elsewhere.
            OSError: The store cannot be asked, or there is no such bucket.
        """
        inner, prefix = join(self._root, folder) if folder else self._root, f"{self._root}/"

        def listed() -> dict[str, Any]:
            self._fs.invalidate_cache()  # what other machines have put is not in it
            try:
                found: dict[str, Any] = self._fs.find(inner, detail=True)
            except FileNotFoundError as error:
                if "bucket" in str(error).lower():
                    raise
                return {}  # no such folder, where folders exist
            return found

        found = patiently(self.url, listed)
        objects = {
            name.removeprefix(prefix): state_of(info)
            for name, info in found.items()
            if info.get("type") != "directory" and not name.endswith("/")
        }
        for name in objects:
            if not _OUTSIDE.isdisjoint(name.split("/")):
                raise DedupkitError(
                    f"{self._named(name)} is no path below {self.url}; remove it or name another folder"
                )
        return objects

    def state(self, name: str) -> State | None:
        """The state of an object; None where there is none."""
        try:
            info = patiently(self._named(name), lambda: self._fs.info(self._inner(name), refresh=True))
        except FileNotFoundError:
            return None
        return None if info.get("type") == "directory" else state_of(info)

    def read(self, name: str) -> bytes | None:
        """The content of an object; None where there is none."""
        try:
            data: bytes = patiently(self._named(name), lambda: self._fs.cat_file(self._inner(name)))
        except FileNotFoundError:
            return None
        return data

    def fetch(self, name: str, path: Path, state: State) -> State | None:
        """Copy an object to a local file, whole or not at all.

        Args:
            name: The object.
            path: The file.
            state: What a listing says of the object, which may have changed since.

        Returns:
            The state of what was copied; None where the object is gone.
        """
        found = [state]

        def copy() -> None:
            self._fs.get_file(self._inner(name), str(temporary))
            if found[0][0] is not None and temporary.stat().st_size != found[0][0]:
                found[0] = self.state(name) or state
                raise ConnectionError(f"{temporary.stat().st_size} of {found[0][0]} bytes came")

        try:
            with atomic_path(path) as temporary:
                patiently(self._named(name), copy)
        except FileNotFoundError:
            return None
        return found[0]

    def put(self, name: str, content: bytes | Path) -> State:
        """Put an object whole, in place of one that is there; returns its state."""
        if isinstance(content, Path) and content.stat().st_size <= _IN_ONE:
            content = content.read_bytes()
        if isinstance(content, Path):
            local = str(content)
            patiently(self._named(name), lambda: self._fs.put_file(local, self._inner(name)))
        else:
            data = content
            said = patiently(self._named(name), lambda: self._fs.pipe_file(self._inner(name), data))
            if isinstance(said, dict) and "ETag" in said:
                return [len(data), str(said["ETag"])]
        state = self.state(name)
        if state is None:
            raise OSError(f"cannot write {self._named(name)}: it is not there after it was put")
        return state

    def create(self, name: str, data: bytes) -> bool:
        """Put an object unless there is one of this name; whether it was put.

        The store is asked before whether there is one. Where it has no such request, or ignores the condition, that
        leaves a moment in which two may put it. Give data that no other process gives: an answer that was lost is made
        out by it.
        """
        if self.state(name) is not None:
            return False

        def attempt() -> None:
            try:
                self._fs.pipe_file(self._inner(name), data, mode="create")
            except (NotImplementedError, TypeError):
                if self._fs.exists(self._inner(name)):
                    raise FileExistsError(name) from None
                self._fs.pipe_file(self._inner(name), data)

        try:
            patiently(self._named(name), attempt)
        except FileNotFoundError:
            raise
        except OSError as error:
            if not _is_taken(error):
                raise
        return self.read(name) == data

    def remove(self, names: Iterable[str]) -> None:
        """Remove objects, those that are there."""
        at_once(self._remove, names)

    def _remove(self, name: str) -> None:
        try:
            patiently(self._named(name), lambda: self._fs.rm_file(self._inner(name)))
        except FileNotFoundError:
            return

    def _inner(self, name: str) -> str:
        return f"{self._root}/{name}"

    def _named(self, name: str) -> str:
        return f"{self.url}/{name}"

    def refuse_absent(self) -> None:
        """Refuse a bucket that is not there or may not be used, before anything is done for it.

        Raises:
            DedupkitError: It is not there, credentials are missing, or they are not accepted.
        """
        try:
            self.find(".held")
        except FileNotFoundError as error:
            raise DedupkitError(f"{self.url}: {error}; make the bucket first, or name another") from None
        except OSError as error:
            raise DedupkitError(f"{self.url} cannot be used: {' '.join(str(error).split())}") from error


def _is_taken(error: OSError) -> bool:
    """Whether a store refused to put an object because there is one."""
    causes: list[BaseException] = [error]
    while causes[-1].__cause__ is not None and len(causes) < 10:
        causes.append(causes[-1].__cause__)
    responses = [getattr(cause, "response", None) for cause in causes]
    codes = [said.get("Error", {}).get("Code") for said in responses if isinstance(said, dict)]
    return isinstance(error, FileExistsError) or bool({"PreconditionFailed", "ConditionalRequestConflict"} & {*codes})
