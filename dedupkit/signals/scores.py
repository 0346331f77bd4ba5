"""The fingerprints of some samples, and how far apart those of given pairs are."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from dedupkit.hashing.pdq import CROP_VIEWS, PDQ_BYTES
from dedupkit.neighbors.cosine.normalise import unit_rows
from dedupkit.neighbors.hamming.dihedral import POPCOUNT, dihedral_distance
from dedupkit.runfolder.folder import RunFolder
from dedupkit.signals.columns import hash_column
from dedupkit.signals.table import SIGNALS
from dedupkit.stages.scan import HASH_BYTES

__all__ = ["BITS", "VIEWS", "pair_scores", "rows_of"]

VIEWS = 1 + len(CROP_VIEWS)
"""Hashes in a fingerprint of ``crops``."""

BITS = {
    "pdq": 8 * PDQ_BYTES,
    "crops": 8 * PDQ_BYTES,
    **{name: 8 * size for name, size in HASH_BYTES.items() if name not in ("pixels", "crops")},
}
"""Bits that a distance counts, by signal."""


def rows_of(
    folder: RunFolder, shards: int, signal: str, samples: NDArray[np.int64]
) -> tuple[NDArray[np.bool_], NDArray[Any]]:
    """The fingerprints of some samples.

    Args:
        folder: of a run.
        shards: number of its shards.
        signal: a hash or an embedder.
        samples: (k,) int64, ascending.

    Returns:
        Which of them have one, (k,) bool; and those of these, (p, bytes) uint8 or (p, d) float32.
    """
    if SIGNALS.get(signal) is None:  # an embedder
        vectors = _vectors(folder, shards, signal, samples)
        present: NDArray[np.bool_] = np.any(vectors, axis=1)
        return present, vectors[present]
    first, distinct = hash_column(folder, shards, signal)
    leaders = np.flatnonzero(first == np.arange(len(first)))
    mine = first[samples]
    return mine >= 0, distinct[np.searchsorted(leaders, mine[mine >= 0])]


def pair_scores(
    folder: RunFolder, shards: int, signal: str, a: NDArray[np.int64], b: NDArray[np.int64]
) -> NDArray[np.float32]:
    """The scores of given pairs of samples.

    Args:
        folder: of a run.
        shards: number of its shards.
        signal: any but ``verified``.
        a: (m,) int64 samples.
        b: (m,) int64 samples.

    Returns:
        (m,) float32: bits that differ, or the cosine; for ``exact`` and ``pixels`` 1 where they are equal, else 0.
        NaN where one of the two has no such fingerprint.
    """
    if SIGNALS.get(signal) == "identity":
        first, _ = hash_column(folder, shards, signal)
        known = (first[a] >= 0) & (first[b] >= 0)
        return np.where(known, first[a] == first[b], np.nan).astype(np.float32)
    samples, place = np.unique(np.concatenate([a, b]), return_inverse=True)
    present, rows = rows_of(folder, shards, signal, samples)
    row = np.cumsum(present) - 1
    left, right = place[: len(a)], place[len(a) :]
    known = present[left] & present[right]
    score = np.full(len(a), np.nan, np.float32)
    score[known] = _compare(signal, rows[row[left[known]]], rows[row[right[known]]])
    return score


def _compare(signal: str, left: NDArray[Any], right: NDArray[Any]) -> NDArray[np.float32]:
    if left.dtype != np.uint8:
        cosine: NDArray[np.float32] = np.einsum("ij,ij->i", left, right)
        return cosine
    if signal == "pdq":
        return dihedral_distance(left, right).astype(np.float32)
    if signal != "crops":
        distance: NDArray[np.float32] = POPCOUNT[left ^ right].sum(axis=1).astype(np.float32)
        return distance
    one, other = (np.split(side, VIEWS, axis=1) for side in (left, right))
    best = np.full(len(left), 8 * PDQ_BYTES, np.float32)
    for x, y in [(one[0], view) for view in other] + [(view, other[0]) for view in one[1:]]:
        seen = np.any(x, axis=1) & np.any(y, axis=1)
        bits = dihedral_distance(np.ascontiguousarray(x), np.ascontiguousarray(y))
        best[seen] = np.minimum(best, bits)[seen]
    return best


def _vectors(folder: RunFolder, shards: int, signal: str, samples: NDArray[np.int64]) -> NDArray[np.float32]:
    """The vectors of some samples at unit length; zeros where one has none."""
    parts: list[NDArray[np.float16]] = []
    start = 0
    for shard in range(shards):
        vectors = np.load(folder.embeddings(signal, shard), mmap_mode="r")
        low, high = np.searchsorted(samples, [start, start + len(vectors)])
        parts.append(vectors[samples[low:high] - start])
        start += len(vectors)
    return unit_rows(np.concatenate(parts))
