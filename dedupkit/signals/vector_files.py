"""Stored vectors of a run: which are joined, gathered into one file; those of given samples."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dedupkit.neighbors.cosine.distinct import collapse
from dedupkit.neighbors.cosine.normalise import unit_rows
from dedupkit.signals.columns import Scanned
from dedupkit.store import here

__all__ = ["Gathered", "gather", "gather_joined", "leaders_of", "vectors_of", "with_vector"]


class Gathered(NamedTuple):
    """The vectors that are joined.

    Attributes:
        vectors: (k, d) float16, mapped.
        leaders: (k,) int64, the first sample that has each.
        first: (n,) int32, for each sample the leader that stands for it, -1 where it has no vector.
    """

    vectors: NDArray[np.float16]
    leaders: NDArray[np.int64]
    first: NDArray[np.int32]


def vectors_of(scanned: Scanned, name: str, samples: NDArray[np.int64]) -> NDArray[np.float32]:
    """The vectors of some samples, ascending, at unit length; zeros where one has none."""
    parts: list[NDArray[np.float16]] = []
    start = 0
    for path in _stored(scanned, name):
        vectors = np.load(path, mmap_mode="r")
        low, high = np.searchsorted(samples, [start, start + len(vectors)])
        parts.append(vectors[samples[low:high] - start])
        start += len(vectors)
    return unit_rows(np.concatenate(parts))


def leaders_of(scanned: Scanned, name: str, first: NDArray[np.int32]) -> NDArray[np.int64]:
    """The samples whose vectors are joined: the first of each content that has one."""
    chosen: list[NDArray[np.int64]] = [np.zeros(0, np.int64)]
    start = 0
    for path in _stored(scanned, name):
        vectors = np.load(path, mmap_mode="r")
        rows = np.arange(start, start + len(vectors))
        chosen.append(rows[(first[rows] == rows) & vectors.any(axis=1)])
        start += len(vectors)
    return np.concatenate(chosen)


def with_vector(first: NDArray[np.int32], leaders: NDArray[np.int64]) -> NDArray[np.int32]:
    """The labels of those whose first sample has a vector, -1 for the others."""
    has_vector = np.zeros(len(first), bool)
    has_vector[leaders] = True
    return np.where((first >= 0) & has_vector[np.maximum(first, 0)], first, -1).astype(np.int32)


def gather(scanned: Scanned, name: str, leaders: NDArray[np.int64], path: Path) -> NDArray[np.float16]:
    """Copy the chosen vectors into one file, which the join maps."""
    gathered: NDArray[np.float16] | None = None
    start = filled = 0
    for part in _stored(scanned, name):
        vectors = np.load(part, mmap_mode="r")
        if gathered is None:
            shape = (len(leaders), vectors.shape[1])
            gathered = np.lib.format.open_memmap(path, mode="w+", dtype=np.float16, shape=shape)
        low, high = np.searchsorted(leaders, [start, start + len(vectors)])
        gathered[filled : filled + high - low] = vectors[leaders[low:high] - start]
        filled, start = filled + int(high - low), start + len(vectors)
    return np.zeros((0, 1), np.float16) if gathered is None else gathered


def gather_joined(scanned: Scanned, name: str, path: Path, first: NDArray[np.int32], *, distinct: bool) -> Gathered:
    """Gather the vector of the first sample of each content; with ``distinct`` each vector once.

    Args:
        scanned: All samples; their vectors are there.
        name: The embedder.
        path: The file.
        first: (n,) int32, for each sample the first with the same bytes.
        distinct: Whether the first sample of a vector stands for all that have it.
    """
    leaders = leaders_of(scanned, name, first)
    vectors, first = gather(scanned, name, leaders, path), with_vector(first, leaders)
    if not distinct:
        return Gathered(vectors, leaders, first)
    found = collapse(vectors)
    stands = np.arange(len(first), dtype=np.int32)
    stands[leaders[found.members]] = np.repeat(leaders[found.rows.ids], found.sizes)
    first = np.where(first >= 0, stands[first], -1).astype(np.int32)
    once = leaders[stands[leaders] == leaders]
    if len(once) < len(leaders):
        vectors = gather(scanned, name, once, path)
    return Gathered(vectors, once, first)


def _stored(scanned: Scanned, name: str) -> list[Path]:
    """The files of an embedder's vectors, shard by shard."""
    return here(scanned.folder.embeddings(name, shard) for shard in range(scanned.shards))
