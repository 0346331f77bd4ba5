"""The training samples nearest to many stored images, by hash and by vector."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from dedupkit.memorization.guard import MAX_DISTANCE
from dedupkit.memorization.neighbours import Neighbours
from dedupkit.runfolder import RunFolder
from dedupkit.runfolder.index import RowIndex
from dedupkit.signals.pdq import MIN_PDQ_QUALITY
from dedupkit.startup.cores import worker_count
from dedupkit.store import here, read_columns

__all__ = ["Nearest", "nearest_of", "read_vectors"]

_QUERIES = 256
_COLUMNS = ("key", "source", "caption", "sha256", "pdq", "pdq_quality", "width", "height", "verdict", "reason")


@dataclass(frozen=True, slots=True)
class Nearest:
    """For each image of a run the nearest samples of another one.

    Attributes:
        images: What the first run knows of its images, a row each.
        readable: (n,) bool.
        hash_sample: (n,) int64, the sample nearest by hash within 31 bits; -1 where there is none.
        bits: (n,) float32, its distance; NaN where there is none.
        vector_sample: (n,) int64, the sample nearest by vector; -1 where there is none.
        cosine: (n,) float32, its cosine; NaN where there is none.
        flat: Number of readable images that are too flat for a hash.
    """

    images: pa.Table
    readable: NDArray[np.bool_]
    hash_sample: NDArray[np.int64]
    bits: NDArray[np.float32]
    vector_sample: NDArray[np.int64]
    cosine: NDArray[np.float32]
    flat: int

    @property
    def sample(self) -> NDArray[np.int64]:
        """(n,) The sample nearest by hash, or else by vector; -1 where there is neither."""
        return np.where(self.hash_sample >= 0, self.hash_sample, self.vector_sample)


def nearest_of(images: RunFolder, near: Neighbours, name: str | None) -> Nearest:
    """Search for every image of a finished run.

    Args:
        images: The run whose images are searched for.
        near: The samples that are searched.
        name: The embedder whose vectors are compared; None for hashes only.

    Raises:
        DedupkitError: The vectors of the two runs have different lengths.
    """
    table = read_columns(images.manifest, _COLUMNS)
    readable = np.array([verdict != "unreadable" for verdict in table["verdict"].to_pylist()], bool)
    count = table.num_rows
    hash_sample, bits = np.full(count, -1, np.int64), np.full(count, np.nan, np.float32)
    quality = table["pdq_quality"].fill_null(0).to_numpy()
    hashed = np.flatnonzero(readable & (quality >= MIN_PDQ_QUALITY))
    codes = [table["pdq"][row].as_py() for row in hashed.tolist()]

    def look_up(code: bytes) -> tuple[int, float]:
        found = near.by_hash(np.frombuffer(code, np.uint8), MAX_DISTANCE)
        return found[0] if found else (-1, np.nan)

    with ThreadPoolExecutor(worker_count(None)) as pool:  # the loops of the look-up run without the GIL
        for row, (sample, distance) in zip(hashed.tolist(), pool.map(look_up, codes, chunksize=64), strict=True):
            hash_sample[row], bits[row] = sample, distance
    vector_sample, cosine = np.full(count, -1, np.int64), np.full(count, np.nan, np.float32)
    if name is not None:
        vectors = read_vectors(images, name, count)
        with_vector = np.flatnonzero(vectors.any(axis=1) & readable)
        if len(with_vector):
            near.refuse_other_length(name, vectors.shape[1])
        for start in range(0, len(with_vector), _QUERIES):
            rows = with_vector[start : start + _QUERIES]
            samples, scores = near.nearest(name, vectors[rows].astype(np.float32), 1)
            found = samples[:, 0] >= 0
            vector_sample[rows], cosine[rows] = samples[:, 0], np.where(found, np.minimum(scores[:, 0], 1), np.nan)
    return Nearest(table, readable, hash_sample, bits, vector_sample, cosine, int(readable.sum()) - len(hashed))


def read_vectors(folder: RunFolder, name: str, count: int) -> NDArray[np.float16]:
    """The vectors of a run's samples, (n, d) float16; zeros where a sample has none."""
    shards = len(folder.read_config().shards)
    starts = RowIndex(folder, shards).starts
    stored = here(folder.embeddings(name, shard) for shard in range(shards))
    files = [np.load(path, mmap_mode="r") for path in stored]
    vectors = np.zeros((count, files[0].shape[1]), np.float16)
    for file, start in zip(files, starts[:-1].tolist(), strict=True):
        vectors[start : start + len(file)] = file
    return vectors
