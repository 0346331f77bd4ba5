"""Folded captions of samples as keys of 128 bits: which are equal, and how often each occurs."""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import blake2b
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from dedupkit.captions.folding import Folding
from dedupkit.metadata.keys import Keys, caption_keys
from dedupkit.signals.columns import Scanned
from dedupkit.store import read_columns, rows_by_file

__all__ = ["CaptionCounts", "CaptionKeys", "captions_of_samples", "count_captions", "keys_of_column", "keys_of_samples"]

_FEW = 50_000  # samples

Ints = NDArray[np.int64]


class CaptionKeys(NamedTuple):
    """Folded captions of some samples as keys, (n, 2) uint64, and which have any."""

    hashes: NDArray[np.uint64]
    present: NDArray[np.bool_]


class CaptionCounts(NamedTuple):
    """Captions by group, the most frequent first, then that of the first sample: group, a sample that has it, uses."""

    group: Ints
    row: Ints
    uses: Ints


def count_captions(group: NDArray[np.integer], keys: CaptionKeys, rows: Ints) -> CaptionCounts:
    """Count equal captions within groups; arguments have an entry for each sample."""
    mine = keys.present
    group, high, low, rows = group[mine], keys.hashes[mine, 0], keys.hashes[mine, 1], rows[mine]
    order = np.lexsort((rows, low, high, group))
    fresh = np.zeros(len(order), bool)
    fresh[:1] = True
    fresh[1:] |= np.diff(group[order]) != 0
    for half in (high[order], low[order]):
        fresh[1:] |= half[1:] != half[:-1]
    starts = np.flatnonzero(fresh)
    groups, first, size = group[order[starts]], rows[order[starts]], np.diff(np.append(starts, len(order)))
    best = np.lexsort((first, -size, groups))
    return CaptionCounts(groups[best].astype(np.int64), first[best], size[best])


def keys_of_samples(scanned: Scanned, rows: Ints, samples: int) -> CaptionKeys:
    """Keys of the captions of some of a run's samples, ascending; ``samples`` as for :func:`keys_of_column`."""
    hashes, present = np.zeros((len(rows), 2), np.uint64), np.zeros(len(rows), bool)
    for low, high, column in _parts(scanned, rows):
        hashes[low:high], present[low:high] = keys_of_column(column, samples)
    return CaptionKeys(hashes, present)


def keys_of_column(column: pa.Array, samples: int) -> CaptionKeys:
    """Keys of captions; only those that were made for the same number of samples can be compared."""
    keys = _few_keys(column, Folding()) if samples < _FEW else caption_keys(column, Folding())
    return CaptionKeys(keys.hashes, keys.state.astype(bool))


def _few_keys(column: pa.Array, folding: Folding) -> Keys:
    """Keys without compiled code, whose loading takes longer than a short run."""
    folded = [folding(text) if text else "" for text in column.to_pylist()]
    digests = (blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest() for text in folded)
    hashes = np.frombuffer(b"".join(digests), np.uint64).reshape(-1, 2)
    return Keys(hashes, np.array([bool(text) for text in folded], np.uint8))


def captions_of_samples(scanned: Scanned, rows: Ints) -> pa.Array:
    """The captions of some samples, in any order."""
    order = np.argsort(rows, kind="stable")
    found = pa.concat_arrays([pa.array([], pa.large_string()), *(part for _, _, part in _parts(scanned, rows[order]))])
    back = np.empty(len(rows), np.int64)
    back[order] = np.arange(len(rows))
    return found.take(pa.array(back))


def _parts(scanned: Scanned, rows: Ints) -> Iterator[tuple[int, int, pa.Array]]:
    """The captions of some samples, ascending, one shard in memory at a time; and which of the rows they are."""
    for path, low, high, mine in rows_by_file(map(scanned.folder.samples, range(scanned.shards)), rows):
        column = read_columns(path, ["caption"])["caption"]
        yield low, high, column.take(pa.array(mine)).combine_chunks().cast(pa.large_string())
