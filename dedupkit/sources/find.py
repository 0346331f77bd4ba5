"""From what a user names (patterns, globs, folders, files, lists) to an ordered list of shards."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TypeVar

from dedupkit import store
from dedupkit.errors import DedupkitError
from dedupkit.sources.captions import is_caption_table
from dedupkit.sources.files import folder_shards, img2dataset_files
from dedupkit.sources.parquet import ParquetShard
from dedupkit.sources.sample import NOTHING, Shard
from dedupkit.sources.webdataset import TarShard

__all__ = ["find_shards", "listed_shards"]

_TAR = (".tar", ".tar.gz", ".tgz")
_AT_ONCE = 32

T = TypeVar("T")


def find_shards(sources: str | Path | Sequence[str | Path]) -> list[Shard]:
    """Resolve sources to shards, in the order given; within a pattern or folder, in name order.

    Args:
        sources: one or several of: a tar, a Parquet file, a folder (of tars, of Parquet files, img2dataset output in
            any of its three formats, or images), with braces (``{00000..00099}``) and globs, local or remote.

    Returns:
        Shards; one that is named twice, also in another spelling of its path, is read once, under its first name. A
        shard of a brace pattern that is missing is kept, so that the manifest reports it.

    Raises:
        DedupkitError: a source matches nothing at all, or is of no kind that can be read.
    """
    listed = [sources] if isinstance(sources, str | Path) else list(sources)
    if not listed:
        raise DedupkitError("no source given: name tars, Parquet files or folders")
    store.forget_listings(map(str, listed))
    return listed_shards(listed)


def listed_shards(listed: Sequence[str | Path]) -> list[Shard]:
    """:func:`find_shards` of several sources, where stores may have been listed a moment ago."""
    shards: dict[tuple[str, ...], Shard] = {}
    absolute = _Absolute()
    for source in listed:
        named = str(source)
        for shard in _expand(store.local_path(named) or named):  # file:///data is the folder /data
            shards.setdefault((absolute(shard.source), *map(absolute, shard.paths)), shard)
    return list(shards.values())


class _Absolute:
    """Paths of this machine as absolute ones; a folder is resolved once, for all of its files."""

    def __init__(self) -> None:
        self._folders: dict[str, str] = {}

    def __call__(self, path: str) -> str:
        if store.is_remote(path):
            return path
        folder, name = os.path.split(path)
        if folder not in self._folders:
            self._folders[folder] = os.path.abspath(folder)  # noqa: PTH100 - resolve() follows links
        return f"{self._folders[folder]}/{name}"


def _expand(source: str) -> Iterable[Shard]:
    try:
        names = [name for pattern in store.expand_braces(source) for name in _globbed(pattern)]
    except OSError as error:
        raise DedupkitError(f"{source} cannot be listed: {error}") from error
    found = _each(_exists, names)
    if True not in found:
        refused = next((answer for answer in found if isinstance(answer, OSError)), None)
        if refused is not None:
            raise DedupkitError(f"{source} cannot be read: {refused}") from refused
        raise DedupkitError(f"no such source: {source} (looked for {_looked_for(source)})")
    shards = [shard for opened in _each(_open, names) for shard in opened]
    if not shards:
        raise DedupkitError(
            f"nothing to read in {source}: no tar, no Parquet file with images, no file with an image's suffix"
        )
    return shards


def _each(action: Callable[[str], T], names: Sequence[str]) -> list[T]:
    """An action on each name in order; a store is asked for many at once."""
    if not any(map(store.is_remote, names)):
        return [action(name) for name in names]
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        return list(pool.map(action, names))


def _exists(name: str) -> bool | OSError:
    """Whether there is something, or why that cannot be asked."""
    try:
        return store.exists(name)
    except OSError as error:
        return error


def _globbed(pattern: str) -> list[str]:
    if any(character in pattern for character in "*?[") and _exists(pattern) is not True:
        return store.list_glob(pattern)
    return [pattern]


def _looked_for(source: str) -> str:
    first = store.expand_braces(source)[0]
    return first if store.is_remote(first) else str(Path(first).absolute())


def _open(path: str) -> list[Shard]:
    if path.endswith(_TAR):
        return [TarShard(path, _metadata_beside(path))]
    # Spark and Dask call a folder of such files so; a store is not asked, which takes long for many
    if path.endswith(".parquet") and (store.is_remote(path) or not store.is_dir(path)):
        return [ParquetShard(path)]
    if store.is_dir(path):
        return _open_folder(path if path == "/" else path.rstrip("/"))
    if _exists(path) is not True:
        return [TarShard(path)]  # reading it will say that it is gone, or why it cannot be read
    raise DedupkitError(f"{path} is no shard: expected .tar, .tar.gz, .tgz, .parquet or a folder")


def _open_folder(folder: str) -> list[Shard]:
    names = store.list_dir(folder)
    tars = [name for name in names if name.endswith(_TAR)]
    tables = [name for name in names if name.endswith(".parquet")]
    if tars:
        tables_of_tars = {_stem(name) + ".parquet" for name in tars}
        left = _left_out(names)
        return [
            TarShard(
                store.join(folder, name),
                store.join(folder, _stem(name) + ".parquet") if _stem(name) + ".parquet" in tables else None,
                left if name == tars[0] else NOTHING,
            )
            for name in tars
        ] + [ParquetShard(store.join(folder, name)) for name in tables if name not in tables_of_tars]
    if tables and not all(map(is_caption_table, tables)):
        subfolders = {name for name in names if name + ".parquet" in tables and store.is_dir(store.join(folder, name))}
        if subfolders:
            return [img2dataset_files(folder, _stem(name)) for name in tables]
        left = _left_out(names)
        return [ParquetShard(store.join(folder, name), left if name == tables[0] else NOTHING) for name in tables]
    return list(folder_shards(folder)) or [ParquetShard(store.join(folder, name)) for name in tables]


def _left_out(names: Sequence[str]) -> tuple[int, str]:
    """How many entries of a folder of shards are no shards and say nothing about one, and the name of the first."""
    others = [name for name in names if not name.endswith((*_TAR, ".parquet", "_stats.json")) and name[0] != "."]
    others = [name for name in others if name not in ("sizes.json", "README.md")]
    return (len(others), others[0]) if others else NOTHING


def _stem(name: str) -> str:
    return next((name.removesuffix(end) for end in (*_TAR, ".parquet") if name.endswith(end)), name)


def _metadata_beside(path: str) -> str | None:
    candidate = _stem(path) + ".parquet"
    answer = _exists(candidate)
    if isinstance(answer, OSError):  # some stores refuse what does not exist
        return None if store.is_refused(answer) else candidate
    return candidate if answer else None
