"""What is there: existence, folders, names, and the state of a file."""

from __future__ import annotations

import glob as _glob
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from dedupkit.errors import DedupkitError
from dedupkit.store.paths import is_remote, local_path
from dedupkit.store.remote import at_once, filesystem, patiently

__all__ = [
    "exists", "forget_listings", "is_dir", "list_dir", "list_glob", "stamp", "stamps", "state_of", "walk_files",
]  # fmt: skip


def forget_listings(paths: Iterable[str]) -> None:
    """Let the stores of some paths be asked anew: clients answer from the listings that this process has seen."""
    for path in paths:
        if is_remote(path):
            with suppress(DedupkitError):  # reading it will say that it cannot be opened
                filesystem(path)[0].invalidate_cache()


def exists(path: str) -> bool:
    """Whether the path exists.

    Raises:
        OSError: a store cannot be asked; the message names the cause.
    """
    local = local_path(path)
    if local is not None:
        return Path(local).exists()
    try:
        _info(path)
    except FileNotFoundError:
        return False
    return True


def _info(path: str) -> dict[str, Any]:
    """What a store knows of a path; what is transient is tried again."""
    fs, inner, _ = filesystem(path)
    found: dict[str, Any] = patiently(path, lambda: fs.info(inner))
    return found


def is_dir(path: str) -> bool:
    """Whether the path is a folder."""
    local = local_path(path)
    if local is not None:
        return Path(local).is_dir()
    if path.startswith(("http://", "https://")):  # asking costs a download there, and a URL names a file
        return path.endswith("/")
    fs, inner, _ = filesystem(path)
    return bool(patiently(path, lambda: fs.isdir(inner)))


def list_dir(folder: str) -> list[str]:
    """The names in a folder, sorted; without the folder's own marker, an empty object that some clients put."""
    local = local_path(folder)
    if local is not None:
        return sorted(os.listdir(local))
    fs, inner, _ = filesystem(folder)
    names = [name.rstrip("/") for name in patiently(folder, lambda: fs.ls(inner, detail=False))]
    return sorted(name.rsplit("/", 1)[-1] for name in names if name != inner.rstrip("/"))


def list_glob(pattern: str) -> list[str]:
    """The paths that match a glob pattern, sorted."""
    local = local_path(pattern)
    if local is not None:
        return sorted(_glob.glob(local, recursive=True))
    fs, inner, full = filesystem(pattern)
    return sorted(full(name) for name in patiently(pattern, lambda: fs.glob(inner)))


def walk_files(
    folder: str,
    failed: Callable[[str, OSError], None] | None = None,
    states: dict[str, list[Any]] | None = None,
) -> Iterator[str]:
    """Every file below a folder, as paths relative to it, in sorted order; markers of folders are no files.

    Args:
        folder: The folder.
        failed: Called for each folder below it that cannot be listed, and for each link to a folder, which is not
            followed; with its relative path and the reason.
        states: Filled with the state of each remote file, which the listing gives for nothing; see :func:`stamp`.
    """
    local = local_path(folder)
    if local is None:
        fs, inner, _ = filesystem(folder)
        prefix = inner.rstrip("/") + "/"
        listed = patiently(folder, lambda: fs.find(inner, detail=True))
        found = {name: info for name, info in listed.items() if not name.endswith("/")}
        if states is not None:
            states |= {name.removeprefix(prefix): state_of(info) for name, info in found.items()}
        yield from sorted(name.removeprefix(prefix) for name in found)
        return
    folder, names = local, []

    def not_listed(error: OSError) -> None:
        if failed is not None:
            failed(os.path.relpath(error.filename, folder).replace(os.sep, "/"), error)

    for parent, folders, files in os.walk(folder, onerror=not_listed):
        relative = os.path.relpath(parent, folder).replace(os.sep, "/")
        names += [file if relative == "." else f"{relative}/{file}" for file in files]
        for link in (name for name in folders if (Path(parent) / name).is_symlink()):
            if failed is not None:
                failed(link if relative == "." else f"{relative}/{link}", OSError("a link to a folder, not followed"))
    yield from sorted(names)


def stamp(path: str) -> list[Any]:
    """What changes with a file: size and time of modification, or the tag that a store gives; empty where unknown."""
    local = local_path(path)
    if local is None:
        try:
            return state_of(_info(path))
        except OSError:
            return []
    try:
        status = Path(local).stat()
    except OSError:
        return []
    return [status.st_size, status.st_mtime_ns]


def stamps(paths: Sequence[str]) -> list[list[Any]]:
    """:func:`stamp` of each path; stores are asked for many at once."""
    if not any(map(is_remote, paths)):
        return [stamp(path) for path in paths]
    return at_once(stamp, paths)


def state_of(info: Mapping[str, Any]) -> list[Any]:
    """Size and tag, or time of modification, in what a store says of an object."""
    tags = (info.get(name) for name in ("ETag", "etag", "md5Hash", "Content-MD5", "Digest"))
    times = (
        info.get(name) for name in ("Last-Modified", "LastModified", "last_modified", "updated", "mtime", "created")
    )
    tag = next((value for value in (*tags, *times) if value is not None), None)
    return [info.get("size"), None if tag is None else str(tag)]
