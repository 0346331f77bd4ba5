"""The captions of each group, counted in parts that lie in files: all captions of a part, and never all keys at once.

A shard's captions become records of group, sample and key, which go into files by group; each file is counted alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from dedupkit.signals.columns import Scanned
from dedupkit.stages.caption_keys import CaptionKeys, count_captions, keys_of_column
from dedupkit.startup.memory import give_back_memory
from dedupkit.store import append_rows, count_rows, in_blocks, read_columns

__all__ = ["GroupCaptions", "captions_of_groups", "in_groups"]

_AT_ONCE = 500_000  # samples whose captions are counted together, about
_RECORD = np.dtype([("group", np.int32), ("row", np.int32), ("key", np.uint64, 2)])

Ints = NDArray[np.int64]


class GroupCaptions(NamedTuple):
    """What is known of the captions of groups that have any: an entry for each of them, ascending.

    Attributes:
        group: (m,) int64.
        captions: (m,) int32, how many different ones.
        row: (m,) int64, the first sample that has the most frequent one.
        uses: (m,) int32, how many have it.
    """

    group: Ints
    captions: NDArray[np.int32]
    row: Ints
    uses: NDArray[np.int32]


def in_groups(group: NDArray[np.int32], active: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """(n,) bool, which samples of a mask are of a group of two or more; groups are named by their smallest sample."""
    shared = np.zeros(len(group), bool)
    for low, some in in_blocks(group, _AT_ONCE):
        shared[some[some != np.arange(low, low + len(some))]] = True
    found = active.copy()
    for low, some in in_blocks(group, _AT_ONCE):
        found[low : low + len(some)] &= shared[some]
    return found


def captions_of_groups(scanned: Scanned, group: NDArray[np.int32], mine: NDArray[np.bool_]) -> GroupCaptions:
    """Count the captions of groups.

    Args:
        scanned: All samples.
        group: (n,) int32, the group of each.
        mine: (n,) bool, which samples count.
    """
    parts = int(np.count_nonzero(mine)) // _AT_ONCE + 1
    if parts == 1:
        return _counted(np.concatenate([np.zeros(0, _RECORD), *_records(scanned, group, mine)]))
    with TemporaryDirectory(prefix="dedupkit-captions-") as home:
        files = [Path(home, f"{number:05d}") for number in range(parts)]
        for records in _records(scanned, group, mine):
            append_rows(files, records["group"].astype(np.int64) * parts // len(group), records)
        found = [_counted(np.fromfile(file, _RECORD)) for file in files if file.exists()]
    give_back_memory()
    return GroupCaptions(*map(np.concatenate, zip(*found, strict=True))) if found else _counted(np.zeros(0, _RECORD))


def _records(scanned: Scanned, group: NDArray[np.int32], mine: NDArray[np.bool_]) -> Iterator[NDArray[Any]]:
    """The captions of some samples, one shard after the other."""
    stop, left = 0, int(np.count_nonzero(mine))
    for shard in range(scanned.shards):
        if not left:
            return
        path = scanned.folder.samples(shard)
        start, stop = stop, stop + count_rows(path)
        rows = np.flatnonzero(mine[start:stop])
        left -= len(rows)
        if len(rows):
            column = read_columns(path, ["caption"])["caption"].take(pa.array(rows)).combine_chunks()
            keys = keys_of_column(column.cast(pa.large_string()), len(mine))
            records = np.zeros(len(rows), _RECORD)
            records["row"], records["group"], records["key"] = start + rows, group[start + rows], keys.hashes
            yield records[keys.present]


def _counted(records: NDArray[Any]) -> GroupCaptions:
    keys = CaptionKeys(records["key"], np.ones(len(records), bool))
    counts = count_captions(records["group"], keys, records["row"].astype(np.int64))
    ids, starts, captions = np.unique(counts.group, return_index=True, return_counts=True)
    return GroupCaptions(ids, captions.astype(np.int32), counts.row[starts], counts.uses[starts].astype(np.int32))
