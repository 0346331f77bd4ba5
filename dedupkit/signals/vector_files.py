"""Stored vectors of a run: which are joined, gathered into one file; those of given samples.

A sample without a vector has that of the first other one with the same bytes that has one: vectors made elsewhere may
cover only some of the files of an image.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dedupkit.neighbors.cosine.distinct import collapse
from dedupkit.neighbors.cosine.normalise import unit_or_zero_rows
from dedupkit.signals.columns import Scanned
from dedupkit.signals.identity import Exact
from dedupkit.signals.matches import leading
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
    """The vectors of some samples, ascending, at unit length; zeros where none with the same bytes has one."""
    parts: list[NDArray[np.float16]] = []
    start = 0
    for path in _stored(scanned, name):
        vectors = np.load(path, mmap_mode="r")
        low, high = np.searchsorted(samples, [start, start + len(vectors)])
        parts.append(vectors[samples[low:high] - start])
        start += len(vectors)
    found = np.concatenate(parts)
    _fill(scanned, name, samples, found, np.flatnonzero(~found.any(axis=1)))
    return unit_or_zero_rows(found)


def leaders_of(scanned: Scanned, name: str, contents: NDArray[np.int32], first: NDArray[np.int32]) -> NDArray[np.int64]:
    """The samples whose vectors are joined: the first of each content that has one.

    Args:
        scanned: All samples; their vectors are there.
        name: The embedder.
        contents: (n,) int32, for each sample the first with the same bytes.
        first: The same among those that take part, -1 for the others.
    """
    has_vector = np.zeros(len(contents), bool)
    start = 0
    for path in _stored(scanned, name):
        vectors = np.load(path, mmap_mode="r")
        mine = contents[start : start + len(vectors)]
        has_vector[mine[vectors.any(axis=1) & (mine >= 0)]] = True
        start += len(vectors)
    leaders = leading(first)
    return leaders[has_vector[contents[leaders]]]


def with_vector(first: NDArray[np.int32], leaders: NDArray[np.int64]) -> NDArray[np.int32]:
    """The labels of those whose first sample is a leader, -1 for the others."""
    has_vector = np.zeros(len(first), bool)
    has_vector[leaders] = True
    return np.where((first >= 0) & has_vector[np.maximum(first, 0)], first, -1).astype(np.int32)


def gather(scanned: Scanned, name: str, leaders: NDArray[np.int64], path: Path) -> NDArray[np.float16]:
    """Copy the chosen vectors into one file, which the join maps."""
    gathered: NDArray[np.float16] | None = None
    missing = [np.zeros(0, np.int64)]
    start = filled = 0
    for part in _stored(scanned, name):
        vectors = np.load(part, mmap_mode="r")
        if gathered is None:
            shape = (len(leaders), vectors.shape[1])
            gathered = np.lib.format.open_memmap(path, mode="w+", dtype=np.float16, shape=shape)
        low, high = np.searchsorted(leaders, [start, start + len(vectors)])
        some = vectors[leaders[low:high] - start]
        gathered[filled : filled + high - low] = some
        missing.append(filled + np.flatnonzero(~some.any(axis=1)))
        filled, start = filled + int(high - low), start + len(vectors)
    if gathered is None:
        return np.zeros((0, 1), np.float16)
    _fill(scanned, name, leaders, gathered, np.concatenate(missing))
    return gathered


def gather_joined(scanned: Scanned, name: str, path: Path, first: NDArray[np.int32], *, distinct: bool) -> Gathered:
    """Gather the vector of the first sample of each content; with ``distinct`` each vector once.

    Args:
        scanned: All samples; their vectors are there.
        name: The embedder.
        path: The file.
        first: (n,) int32, for each sample the first with the same bytes.
        distinct: Whether the first sample of a vector stands for all that have it.
    """
    leaders = leaders_of(scanned, name, first, first)
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


def _fill(
    scanned: Scanned,
    name: str,
    samples: NDArray[np.int64],
    vectors: NDArray[np.float16],
    missing: NDArray[np.int64],
) -> None:
    """Give those of some samples that have no vector that of the first other one with the same bytes.

    Args:
        scanned: All samples.
        name: The embedder.
        samples: (m,) samples.
        vectors: (m, d), in and out.
        missing: Places of those that have none.
    """
    if not len(missing):
        return
    contents = Exact("exact").labels(scanned)
    missing = missing[contents[samples[missing]] >= 0]
    wanted, start = np.unique(contents[samples[missing]]), 0
    others = np.flatnonzero(np.isin(contents, wanted))
    found = np.zeros((len(wanted), vectors.shape[1]), np.float16)
    for path in _stored(scanned, name):
        stored = np.load(path, mmap_mode="r")
        low, high = np.searchsorted(others, [start, start + len(stored)])
        mine = others[low:high][::-1]
        some = stored[mine - start]
        place = np.searchsorted(wanted, contents[mine])
        new = np.flatnonzero(some.any(axis=1) & ~found[place].any(axis=1))
        found[place[new]] = some[new]  # the last write is the first sample
        start += len(stored)
    vectors[missing] = found[np.searchsorted(wanted, contents[samples[missing]])]


def _stored(scanned: Scanned, name: str) -> list[Path]:
    """The files of an embedder's vectors, shard by shard."""
    return here(scanned.folder.embeddings(name, shard) for shard in range(scanned.shards))
