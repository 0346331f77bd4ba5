"""Paths, local or remote: listing, opening, and files that appear whole or not at all.

Local paths use the standard library; a path with a scheme (``s3://``, ``gs://``, ``hf://``, ``https://``, …) goes
through fsspec and needs the package that fsspec names for it.
"""

from __future__ import annotations

import glob as _glob
import io as _io
import json
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.abc import MetaPathFinder
from pathlib import Path
from typing import IO, Any

from dedupkit.errors import DedupkitError

__all__ = [
    "atomic_path", "exists", "expand_braces", "is_dir", "is_remote", "is_temporary", "join", "leave_pandas_out",
    "list_dir", "list_glob", "open_binary", "read_columns", "read_json", "refuse_inside", "remove_tree",
    "stamp", "sweep", "temporary_path", "walk_files", "write_json",
]  # fmt: skip

_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"^(\d+)\.\.(\d+)$")
_TEMPORARY = re.compile(r"\.dedupkit-\d+-[0-9a-f]{8}-.+\.tmp", re.DOTALL)


def is_remote(path: str) -> bool:
    """Whether the path has a URL scheme."""
    return "://" in path


def _filesystem(path: str) -> tuple[Any, str, Callable[[str], str]]:
    """The fsspec file system of a remote path, the path inside it, and the way back to a full URL."""
    import fsspec

    try:
        filesystem, inner = fsspec.core.url_to_fs(path)
    except (ImportError, ValueError) as error:
        raise DedupkitError(f"cannot open {path}: {error}") from error
    return filesystem, inner, filesystem.unstrip_protocol


def open_binary(path: str) -> IO[bytes]:
    """Open a path for reading bytes.

    Raises:
        OSError: it is missing or cannot be read.
        DedupkitError: a remote path whose fsspec package is missing.
    """
    if not is_remote(path):
        return open(path, "rb")  # noqa: PTH123 - Path takes a third longer, and an image a file is common
    filesystem, inner, _ = _filesystem(path)
    with _as_oserror(path):
        return _io.BufferedReader(_Remote(path, filesystem.open(inner, "rb")), 1 << 20)


@contextmanager
def _as_oserror(path: str) -> Iterator[None]:
    """Stores raise errors of their client's own kinds; here they are all errors of reading a file."""
    try:
        yield
    except (OSError, DedupkitError):
        raise
    except Exception as error:
        raise OSError(f"cannot read {path}: {type(error).__name__}: {error}") from error


class _Remote(_io.RawIOBase):
    """A file of an fsspec store as a raw stream, to be buffered: its reads may be short, its errors of any kind."""

    def __init__(self, path: str, file: Any) -> None:
        self._path, self._file = path, file

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return bool(self._file.seekable())

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        with _as_oserror(self._path):
            return int(self._file.seek(offset, whence))

    def tell(self) -> int:
        return int(self._file.tell())

    def readinto(self, buffer: Any) -> int:
        with _as_oserror(self._path):
            data = self._file.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        if not self.closed:
            self._file.close()
        super().close()


def exists(path: str) -> bool:
    """Whether the path exists; False where the store cannot be asked."""
    if not is_remote(path):
        return Path(path).exists()
    filesystem, inner, _ = _filesystem(path)
    try:
        with _as_oserror(path):
            return bool(filesystem.exists(inner))
    except OSError:
        return False


def is_dir(path: str) -> bool:
    """Whether the path is a folder."""
    if not is_remote(path):
        return Path(path).is_dir()
    if path.startswith(("http://", "https://")):  # asking costs a download there, and a URL names a file
        return path.endswith("/")
    filesystem, inner, _ = _filesystem(path)
    with _as_oserror(path):
        return bool(filesystem.isdir(inner))


def join(folder: str, *names: str) -> str:
    """Join with forward slashes, which every file system here understands."""
    return "/".join([folder.rstrip("/") or "/", *names]) if folder != "." else "/".join(names)


def list_dir(folder: str) -> list[str]:
    """The names in a folder, sorted."""
    if not is_remote(folder):
        return sorted(os.listdir(folder))
    filesystem, inner, _ = _filesystem(folder)
    with _as_oserror(folder):
        return sorted(name.rstrip("/").rsplit("/", 1)[-1] for name in filesystem.ls(inner, detail=False))


def list_glob(pattern: str) -> list[str]:
    """The paths that match a glob pattern, sorted."""
    if not is_remote(pattern):
        return sorted(_glob.glob(pattern, recursive=True))
    filesystem, inner, full = _filesystem(pattern)
    with _as_oserror(pattern):
        return sorted(full(name) for name in filesystem.glob(inner))


def walk_files(folder: str) -> Iterator[str]:
    """Every file below a folder, as paths relative to it, in sorted order; links to folders are not followed."""
    if is_remote(folder):
        filesystem, inner, _ = _filesystem(folder)
        prefix = inner.rstrip("/") + "/"
        with _as_oserror(folder):
            found = filesystem.find(inner)
        yield from sorted(name.removeprefix(prefix) for name in found)
        return
    names = []
    for parent, _, files in os.walk(folder):
        relative = os.path.relpath(parent, folder).replace(os.sep, "/")
        names += [file if relative == "." else f"{relative}/{file}" for file in files]
    yield from sorted(names)


def expand_braces(pattern: str) -> list[str]:
    """Expand ``{00000..00099}`` and ``{a,b}`` as a shell does; numbers keep their leading zeros."""
    match = _BRACES.search(pattern)
    if match is None:
        return [pattern]
    span = _RANGE.match(match[1])
    if span:
        first, last = int(span[1]), int(span[2])
        width = len(span[1]) if span[1].startswith("0") else 0
        step = 1 if last >= first else -1
        choices = [f"{number:0{width}d}" for number in range(first, last + step, step)]
    else:
        choices = match[1].split(",")
    before, after = pattern[: match.start()], pattern[match.end() :]
    return [before + choice + tail for choice in choices for tail in expand_braces(after)]


def stamp(path: str) -> list[int]:
    """Size and modification time of a local file, so that a changed shard is read again; empty where unknown."""
    if is_remote(path):
        return []
    try:
        status = Path(path).stat()
    except OSError:
        return []
    return [status.st_size, status.st_mtime_ns]


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
    """A temporary name beside ``path``, renamed onto it when the block ends and removed when it fails."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_path(path)
    try:
        yield temporary
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


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
        folder: A folder of dedupkit's own; it need not exist.
    """
    doomed = temporary_path(folder)
    try:
        folder.rename(doomed)
    except FileNotFoundError:
        return
    shutil.rmtree(doomed, ignore_errors=True)


def write_json(path: Path, value: Any) -> None:
    """Write JSON, whole or not at all, with sorted keys."""
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False) + "\n", "utf-8")


def read_json(path: Path) -> Any:
    """Read JSON; None where the file is missing or is no JSON."""
    try:
        return json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return None


def read_columns(path: Path, columns: Sequence[str] | None = None, where: Any = None) -> Any:
    """Read a local Parquet file, or some of its columns or rows, as a pyarrow table.

    Args:
        path: of one file.
        columns: their names; all of them by default.
        where: rows to keep, as pyarrow's ``filters``.
    """
    import pyarrow.parquet as pq

    names = None if columns is None else list(columns)
    if where is not None:
        # A folder that is called a=b is no partition here.
        return pq.read_table(path, columns=names, filters=where, partitioning=None)
    with pq.ParquetFile(path) as file:  # read_table first loads the dataset module, a tenth of a short job
        return file.read(columns=names)


class _NoPandas(MetaPathFinder):
    """An import hook that finds pandas missing when pyarrow looks for it on behalf of dedupkit."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
        if name != "pandas":
            return
        frame = sys._getframe(1)
        while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith("importlib."):
            frame = frame.f_back
        # pyarrow is compiled and has no frame: whoever called it is the one that asks.
        if frame.f_globals.get("__name__", "").partition(".")[0] in ("dedupkit", "pyarrow"):
            raise ModuleNotFoundError(name, name=name)


def leave_pandas_out() -> None:
    """Keep pyarrow from loading pandas in this process, for processes that are dedupkit's own.

    Where pandas is installed, pyarrow imports it as soon as it converts a Python value: a third of a second in each
    process of a run, and nothing here uses it. pyarrow remembers that it found none; others can import it still.
    """
    sys.meta_path.insert(0, _NoPandas())


def refuse_inside(path: Path, sources: Sequence[str]) -> None:
    """Nothing is ever written into a source, so what is written cannot lie in a folder that is read.

    Args:
        path: what is to be written.
        sources: paths as the user named them, with braces, and the shards found.

    Raises:
        DedupkitError: the path is one of these folders or below one.
    """
    target = path.resolve()
    for name in dict.fromkeys(name for source in sources for name in expand_braces(source)):
        root = Path(name)
        if root.is_dir() and root.resolve() in (target, *target.parents):
            raise DedupkitError(f"{path} lies inside the source {name}; choose a folder outside")
