"""The index stage: the hashes and vectors of a finished run, so that single images find their neighbours."""

from __future__ import annotations

import logging
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dedupkit.engine import Task, ThisProcess, cache_key
from dedupkit.engine.marker import read_marker
from dedupkit.engine.progress import LOGGER
from dedupkit.engine.task import done_result
from dedupkit.errors import DamagedError, DedupkitError
from dedupkit.neighbors.cosine.lookup import VectorLookup
from dedupkit.neighbors.hamming.lookup import HashLookup
from dedupkit.runfolder import RunConfig, RunFolder
from dedupkit.signals import SIGNALS
from dedupkit.signals.columns import Scanned
from dedupkit.store import HeldError, atomic_path, here, remove_tree, temporary_path

__all__ = ["HASH_ROWS", "build_index"]

HASH_ROWS = "rows.npy"
"""Name of the file with the first sample of each hash, (n,) int64."""

_FORMAT = 1
_PATIENCE, _EVERY = 3600.0, 0.25  # seconds for another process that writes into the folder, and between two looks at it


def build_index(folder: RunFolder, config: RunConfig) -> None:
    """Index the hashes and vectors of a run, as far as that is not done; another process that does so is waited for.

    Args:
        folder: Folder of a finished run.
        config: What was asked of it.

    Raises:
        DamagedError: Vectors are missing or damaged.
        DedupkitError: Another process has been writing into the folder for an hour.
    """
    until = None
    while any(done_result(task, folder.path) is None for task in _tasks(folder, config)):
        try:
            with folder.locked():
                ThisProcess().run(_tasks(folder, config), folder.path)
            return
        except HeldError as error:
            if until is None:
                until = time.monotonic() + _PATIENCE
                message = "another process writes into %s, perhaps the same look-ups; waiting for it"
                logging.getLogger(LOGGER).info(message, folder.shown)
            if time.monotonic() > until:
                raise DedupkitError(
                    f"the look-ups of {folder.shown} are missing, and another process has been writing into it for "
                    f"{_PATIENCE / 60:.0f} minutes; try again when it is done"
                ) from error
            time.sleep(_EVERY)


def _tasks(folder: RunFolder, config: RunConfig) -> list[Task]:
    shards = len(config.shards)
    scanned = folder.inputs([])
    tasks = [
        Task(
            "index",
            "pdq",
            partial(_index_hashes, str(folder.path), shards),
            cache_key([_FORMAT, scanned]),
            "hashes",
            (str(folder.index("pdq")),),
        )
    ]
    for name in config.embedders:
        call = partial(_index_vectors, str(folder.path), shards, name, config.seed)
        key = cache_key([_FORMAT, config.seed, _vector_files(folder, name, shards)])
        tasks.append(Task("index", name, call, key, f"vectors of {name}", (str(folder.index(name)),)))
    return tasks


def _vector_files(folder: RunFolder, name: str, shards: int) -> list[Any]:
    found: list[Any] = []
    for shard in range(shards):
        marker = read_marker(folder.embed_marker(name, shard))
        if marker is None:
            raise DamagedError(folder.embed_marker(name, shard), "is missing or damaged")
        found.append([marker.key, sorted(list(state) for state in marker.files.values())])
    return found


def _index_hashes(path: str, shards: int) -> dict[str, Any]:
    """Index every distinct PDQ hash; a task of the engine."""
    folder = RunFolder(path)
    distinct = SIGNALS["pdq"].distinct(Scanned(folder, shards))
    values = distinct.values if len(distinct.values) else np.zeros((0, 32), np.uint8)
    lookup = HashLookup.of(values)
    _replace(folder.index("pdq"), lookup, {HASH_ROWS: distinct.leaders})
    return {"hashes": len(lookup)}


def _index_vectors(path: str, shards: int, name: str, seed: int) -> dict[str, Any]:
    """Index every vector; a task of the engine."""
    folder = RunFolder(path)
    stored = here(folder.embeddings(name, shard) for shard in range(shards))
    files = [np.load(path, mmap_mode="r") for path in stored]
    starts = np.concatenate([[0], np.cumsum([len(file) for file in files])])
    present = [np.flatnonzero(file.any(axis=1)) for file in files]
    rows = np.concatenate([here + start for here, start in zip(present, starts[:-1], strict=True)]).astype(np.int64)
    gathered = temporary_path(folder.index(name).with_name(f"{name}.npy"))
    gathered.parent.mkdir(parents=True, exist_ok=True)
    try:
        if len(rows):
            shape = (len(rows), files[0].shape[1])
            vectors: NDArray[Any] = np.lib.format.open_memmap(gathered, "w+", np.float16, shape)
            np.concatenate([file[here] for file, here in zip(files, present, strict=True)], out=vectors)
        else:
            vectors = np.zeros((0, files[0].shape[1]), np.float16)
        _replace(folder.index(name), VectorLookup.of(vectors, rows, seed), {})
    finally:
        gathered.unlink(missing_ok=True)
    return {"vectors": len(rows)}


def _replace(target: Path, lookup: HashLookup | VectorLookup, arrays: dict[str, NDArray[Any]]) -> None:
    """Write a look-up and further arrays into a folder of their own."""
    remove_tree(target)
    target.mkdir(parents=True)
    lookup.save(target)
    for name, array in arrays.items():
        with atomic_path(target / name) as temporary, temporary.open("wb") as stream:
            np.save(stream, array)
