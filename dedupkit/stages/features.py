"""Features of images for verification: computed once for each image, kept in files until all its pairs are done."""

from __future__ import annotations

import os
import shutil
import struct
from collections.abc import Iterable, Sequence
from contextlib import suppress
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dedupkit.engine import Engine, Progress, Task, cache_key
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

__all__ = ["FEATURES_FORMAT", "FeatureFiles", "Record", "features_at", "write_features"]

MOST_BYTES, _SHARE_FREE = 64 << 30, 3
"""Features that are kept at a time, on disk: so much, but no more than one part in so many of what is free there."""

_EXPECTED = 90_000  # bytes of an image's features, until some are known
_IMAGES_PER_TASK = 128
_MIN_SIDE = 320
FEATURES_FORMAT = 5  # raise it when features change
_HEAD = struct.Struct("<5I4d")
_PLACE = np.dtype([("file", "<i4"), ("offset", "<i8"), ("nbytes", "<i4")])
_UNREAD, _GONE = -1, -2  # in place of a file: the image could not be read again; its shard was gone already


class Record(NamedTuple):
    """Where the features of an image lie; no bytes where there is nothing to find them in."""

    path: str
    offset: int
    nbytes: int


class FeatureFiles:
    """The features of a run's images, computed when they are first asked for.

    Args:
        folder: Folder of the run.
        shards: Its shards; images of one that is None have no features.
        home: Folder for the files.
        out: Where the tasks leave their markers.
        key: Digest of what the images depend on.
        engine: Where they are computed.
    """

    def __init__(
        self,
        folder: RunFolder,
        shards: Sequence[Shard | None],
        home: Path,
        out: Path,
        *,
        key: str,
        engine: Engine,
    ) -> None:
        self._folder, self._shards, self._home, self._out = folder, shards, home, out
        self._key, self._engine = key, engine
        self._index = RowIndex(folder, len(shards))
        self._most = min(MOST_BYTES, shutil.disk_usage(out).free // _SHARE_FREE)
        self._samples, self._files = np.empty(0, np.int64), list[str]()  # samples ascend
        self._places = np.empty(0, _PLACE)

    @property
    def room(self) -> int:
        """The number of images whose features may be there together, by what they have taken so far."""
        known = self._places["nbytes"]
        return self._most // (max(int(known.sum()) // len(known), 1) if len(known) else _EXPECTED)

    def ensure(self, samples: NDArray[np.integer]) -> None:
        """Compute the features of those samples that have none yet; each shard is read once, in its order."""
        samples = np.unique(samples)
        new = np.setdiff1d(samples, self._samples, assume_unique=True)
        if len(self._samples) + len(new) > self.room:
            self.clear()
            new = samples
        tasks = []
        found = np.zeros(len(new), _PLACE)
        found["file"] = _UNREAD
        for number, here in self._index.by_shard(new):
            shard, start = self._shards[number], int(self._index.starts[number])
            if shard is None:  # of an earlier run
                found["file"][np.searchsorted(new, here)] = _GONE
                continue
            for first in range(0, len(here), _IMAGES_PER_TASK):
                some = here[first : first + _IMAGES_PER_TASK].tolist()
                name = f"{some[0]:010d}-{some[-1]:010d}"
                asked = cache_key([FEATURES_FORMAT, self._key, some])
                path = self._home / f"{name}-{asked}.bin"  # processes remember what they read by its path
                scanned = str(self._folder.samples(number))
                call = partial(write_features, str(path), shard, scanned, start, some)
                label = f"features of {len(some)} images"
                tasks.append(Task("features", name, call, asked, label, (str(path),), (scanned,)))
        results = self._run(tasks) if tasks else []
        for task, result in zip(tasks, results, strict=True):
            if result["records"]:
                sample, offset, nbytes = np.array(result["records"], np.int64).T
                at = np.searchsorted(new, sample)
                found["file"][at], found["offset"][at], found["nbytes"][at] = len(self._files), offset, nbytes
            self._files.append(task.outputs[0])
        known, places = np.concatenate([self._samples, new]), np.concatenate([self._places, found])
        order = np.argsort(known)
        self._samples, self._places = known[order], places[order]

    def records(self, samples: Iterable[int]) -> dict[int, Record]:
        """Where the features of some samples lie; those whose image should be there and was not are left out."""
        wanted = np.unique(np.fromiter(samples, np.int64))
        at = np.searchsorted(self._samples, wanted)
        at[at == len(self._samples)] = 0
        known = np.flatnonzero(self._samples[at] == wanted) if len(self._samples) else wanted[:0]
        found = zip(wanted[known].tolist(), self._places[at[known]].tolist(), strict=True)
        return {
            sample: Record(self._files[file] if size else "", offset, size)
            for sample, (file, offset, size) in found
            if file != _UNREAD
        }

    def clear(self) -> None:
        """Remove the files and what the tasks left."""
        self._samples, self._places, self._files = np.empty(0, np.int64), np.empty(0, _PLACE), []
        remove_tree(self._home)
        remove_tree(done_folder(self._out) / "features")

    def _run(self, tasks: Sequence[Task]) -> list[dict[str, Any]]:
        with Progress("features", len(tasks), "img") as progress:
            return self._engine.run(tasks, self._out, on_done=lambda _, result: progress.advance(result["images"]))


def write_features(path: str, shard: Shard, file: str, start: int, samples: Sequence[int]) -> dict[str, Any]:
    """Write the features of some images of one shard; a task of the engine.

    Args:
        path: The file to write.
        shard: The shard.
        file: What the scan wrote of it.
        start: Its first sample.
        samples: Samples of this shard.

    Returns:
        ``images`` asked for; ``records``: sample, offset and number of bytes of each that could be read again, no bytes
        where it could not be decoded.
    """
    records: list[tuple[int, int, int]] = []
    places = places_of(Path(file), 0, start, samples)
    with atomic_path(Path(path)) as temporary, temporary.open("wb") as stream, one_math_thread():
        for place, data in read_images({0: shard}, places, failed=lambda _place, _error: None):
            packed = b""
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
