"""What is there: existence, folders, names, and the state of a file."""

from __future__ import annotations

import glob as _glob
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from dedupkit.store.paths import is_remote
from dedupkit.store.remote import as_oserror, filesystem

__all__ = ["exists", "is_dir", "list_dir", "list_glob", "stamp", "walk_files"]


def exists(path: str) -> bool:
    """Whether the path exists; False where the store cannot be asked."""
    if not is_remote(path):
        return Path(path).exists()
    fs, inner, _ = filesystem(path)
    try:
        with as_oserror(path):
            return bool(fs.exists(inner))
    except OSError:
        return False


def is_dir(path: str) -> bool:
    """Whether the path is a folder."""
    if not is_remote(path):
        return Path(path).is_dir()
    if path.startswith(("http://", "https://")):  # asking costs a download there, and a URL names a file
        return path.endswith("/")
    fs, inner, _ = filesystem(path)
    with as_oserror(path):
        return bool(fs.isdir(inner))


def list_dir(folder: str) -> list[str]:
    """The names in a folder, sorted."""
    if not is_remote(folder):
        return sorted(os.listdir(folder))
    fs, inner, _ = filesystem(folder)
    with as_oserror(folder):
        return sorted(name.rstrip("/").rsplit("/", 1)[-1] for name in fs.ls(inner, detail=False))


def list_glob(pattern: str) -> list[str]:
    """The paths that match a glob pattern, sorted."""
    if not is_remote(pattern):
        return sorted(_glob.glob(pattern, recursive=True))
    fs, inner, full = filesystem(pattern)
    with as_oserror(pattern):
        return sorted(full(name) for name in fs.glob(inner))


def walk_files(folder: str, failed: Callable[[str, OSError], None] | None = None) -> Iterator[str]:
    """Every file below a folder, as paths relative to it, in sorted order.

    Args:
        folder: The folder.
        failed: Called for each folder below it that cannot be listed, and for each link to a folder, which is not
            followed; with its relative path and the reason.
    """
    if is_remote(folder):
        fs, inner, _ = filesystem(folder)
        prefix = inner.rstrip("/") + "/"
        with as_oserror(folder):
            found = fs.find(inner)
        yield from sorted(name.removeprefix(prefix) for name in found)
        return
    names = []

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


def stamp(path: str) -> list[int]:
    """Size and modification time of a local file, so that a changed shard is read again; empty where unknown."""
    if is_remote(path):
        return []
    try:
        status = Path(path).stat()
    except OSError:
        return []
    return [status.st_size, status.st_mtime_ns]
