"""Files that appear whole or not at all, and stay when the power fails."""

from __future__ import annotations

import errno
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["atomic_path", "is_temporary", "remove_tree", "sweep", "temporary_path"]

_TEMPORARY = re.compile(r"\.dedupkit-\d+-[0-9a-f]{8}-.+\.tmp", re.DOTALL)


def temporary_path(path: Path) -> Path:
    """A name beside ``path`` for a file that is not finished; see :func:`is_temporary`.

    No two calls give the same name, so that two threads, processes or machines may write one file at once.
    """
    return path.with_name(f".dedupkit-{os.getpid()}-{os.urandom(4).hex()}-{path.name}.tmp")


def is_temporary(name: str) -> bool:
    """Whether a file name is one that :func:`temporary_path` gives.

    >>> is_temporary(temporary_path(Path("runs/manifest.parquet")).name), is_temporary(".notes.tmp")
    (True, False)
    """
    return _TEMPORARY.fullmatch(name) is not None


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary name beside ``path``, renamed onto it when the block ends and removed when it fails.

    The file is on the disk before it has its name, and its name is before this returns: when the power fails, there is
    the old file or the new one. A folder that lies in the way is replaced.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_path(path)
    try:
        yield temporary
        _to_disk(temporary)
        try:
            temporary.replace(path)
        except IsADirectoryError:
            remove_tree(path)
            temporary.replace(path)
        _to_disk(path.parent)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _to_disk(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk; a file system that cannot say so is believed."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)


def sweep(folder: Path, *, recursive: bool = False) -> None:
    """Remove what a killed process left unfinished in a folder: entries with a name of :func:`temporary_path`.

    Args:
        folder: A folder of dedupkit's own; it need not exist.
        recursive: Whether to look into its subfolders too; links are not followed.
    """
    for parent, folders, files in os.walk(folder):
        for name in filter(is_temporary, files):
            Path(parent, name).unlink(missing_ok=True)
        for name in filter(is_temporary, folders):
            shutil.rmtree(Path(parent, name), ignore_errors=True)
        if not recursive:
            return
        folders[:] = [name for name in folders if not is_temporary(name)]


def remove_tree(folder: Path) -> None:
    """Remove a folder whole or not at all: it gets a temporary name first, which :func:`sweep` knows.

    Args:
        folder: A folder, or a file, of dedupkit's own; it need not exist.
    """
    if not folder.is_dir() or folder.is_symlink():
        folder.unlink(missing_ok=True)
        return
    doomed = temporary_path(folder)
    try:
        folder.rename(doomed)
    except FileNotFoundError:
        return
    shutil.rmtree(doomed, ignore_errors=True)
