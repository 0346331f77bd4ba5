"""Features of images for verification: computed once for each image, kept in files until all its pairs are done."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable, Sequence
from contextlib import suppress
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from dedupkit.engine import Engine, Progress, Task, cache_key, run_tasks
from dedupkit.engine.marker import done_folder
from dedupkit.hashing.pdq import one_math_thread
from dedupkit.images import ImageError, decode_luma
from dedupkit.runfolder.folder import RunFolder
from dedupkit.runfolder.index import RowIndex
from dedupkit.sources import Shard
from dedupkit.sources.reread import places_of, read_images
from dedupkit.store import atomic_path, remove_tree
from dedupkit.verification.corners import BITS, Corners
from dedupkit.verification.features import Features, local_features

__all__ = ["FeatureFiles", "Record", "features_at", "write_features"]

MOST_IMAGES = 100_000
"""Images whose features are kept at a time: about 90 KB each on disk."""

_IMAGES_PER_TASK = 128
_MIN_SIDE = 320
_FORMAT = 3  # raise it when features change
_HEAD = struct.Struct("<5I4d")


class Record(NamedTuple):
    """Where the features of an image lie."""

    path: str
    offset: int
    nbytes: int


class FeatureFiles:
    """The features of a run's images, computed when they are first asked for.

    Args:
        folder: Folder of the run.
        shards: Its shards; those of the images asked for must be there.
        home: Folder for the files.
        out: Where the tasks leave their markers.
        key: Digest of what the images depend on.
        workers: Number of processes.
    """

    def __init__(
        self,
        folder: RunFolder,
        shards: Sequence[Shard | None],
        home: Path,
        out: Path,
        *,
        key: str,
        workers: int | Engine,
    ) -> None:
        self._folder, self._shards, self._home, self._out = folder, shards, home, out
        self._key, self._workers = key, workers
        self._index = RowIndex(folder, len(shards))
        self._records: dict[int, Record | None] = {}

    def ensure(self, samples: Iterable[int]) -> None:
        """Compute the features of those samples that have none yet; each shard is read once, in its order."""
        new = sorted(set(samples) - self._records.keys())
        if len(self._records) + len(new) > MOST_IMAGES:
            self.clear()
            new = sorted(set(samples))
        tasks = []
        for number, here in self._index.by_shard(new):
            start = int(self._index.starts[number])
            for first in range(0, len(here), _IMAGES_PER_TASK):
                some = here[first : first + _IMAGES_PER_TASK].tolist()
                name = f"{some[0]:010d}-{some[-1]:010d}"
                path = self._home / f"{name}.bin"
                shard = self._shards[number]
                if shard is None:
                    raise ValueError(f"shard {number} is needed for samples {some[0]} to {some[-1]}")
                scanned = str(self._folder.samples(number))
                call = partial(write_features, str(path), shard, scanned, start, some)
                asked = cache_key([_FORMAT, self._key, some])
                label = f"features of {len(some)} images"
                tasks.append(Task("features", name, call, asked, label, (str(path),), (scanned,)))
        if not tasks:
            return
        with Progress("features", len(tasks), "img") as progress:
            results = run_tasks(
                tasks, self._out, workers=self._workers, on_done=lambda _, result: progress.advance(result["images"])
            )
        self._records |= dict.fromkeys(new)
        for task, result in zip(tasks, results, strict=True):
            self._records |= {
                sample: Record(task.outputs[0], offset, nbytes) for sample, offset, nbytes in result["records"]
            }

    def records(self, samples: Iterable[int]) -> dict[int, Record]:
        """Where the features of some samples lie; those whose image could not be read again are left out."""
        found = ((sample, self._records.get(sample)) for sample in samples)
        return {sample: record for sample, record in found if record is not None}

    def clear(self) -> None:
        """Remove the files and what the tasks left."""
        self._records = {}
        remove_tree(self._home)
        remove_tree(done_folder(self._out) / "features")


def write_features(path: str, shard: Shard, file: str, start: int, samples: Sequence[int]) -> dict[str, Any]:
    """Write the features of some images of one shard; a task of the engine.

    Args:
        path: The file to write.
        shard: The shard.
        file: What the scan wrote of it.
        start: Its first sample.
        samples: Samples of this shard.

    Returns:
        ``images`` asked for; ``records``: sample, offset and number of bytes of each that could be read again.
    """
    records: list[tuple[int, int, int]] = []
    places = places_of(Path(file), 0, start, samples)
    with atomic_path(Path(path)) as temporary, temporary.open("wb") as stream, one_math_thread():
        for place, data in read_images({0: shard}, places, failed=lambda _place, _error: None):
            with suppress(ImageError, OSError):
                luma = decode_luma(data, min_side=_MIN_SIDE)
                packed = _pack(local_features(luma.plane, size=(luma.width, luma.height)))
                records.append((place.sample, stream.tell(), len(packed)))
                stream.write(packed)
    return {"images": len(samples), "records": sorted(records)}


@lru_cache(maxsize=512)
def features_at(record: Record) -> Features:
    """The features of one image; some, about 100 MB, are kept for the next pairs of the same images, SIFT's too."""
    file = os.open(record.path, os.O_RDONLY)
    try:
        return _unpack(os.pread(file, record.nbytes, record.offset))
    finally:
        os.close(file)


def _pack(features: Features) -> bytes:
    rows, columns = features.plane.shape
    head = _HEAD.pack(features.width, features.height, len(features.corners), rows, columns, *features.content)
    corners = features.corners
    arrays = (corners.points.astype("<f4", copy=False), corners.codes, corners.turns, corners.levels, features.plane)
    return b"".join([head, *(np.ascontiguousarray(array).tobytes() for array in arrays)])


def _unpack(data: bytes) -> Features:
    width, height, count, rows, columns, left, top, right, bottom = _HEAD.unpack_from(data)
    at, code = _HEAD.size, BITS // 8
    points = np.frombuffer(data, "<f4", 2 * count, at).reshape(count, 2)
    codes = np.frombuffer(data, np.uint8, code * count, at + 8 * count).reshape(count, code)
    at += (8 + code) * count
    turns, levels = (np.frombuffer(data, np.uint8, count, at + side * count) for side in (0, 1))
    plane = np.frombuffer(data, np.uint8, rows * columns, at + 2 * count).reshape(rows, columns)
    return Features(width, height, Corners(points, codes, turns, levels), plane, (left, top, right, bottom))
