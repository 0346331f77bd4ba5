"""groups.parquet: one row per duplicate group."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from dedupkit.clustering import Decision
from dedupkit.stages.manifest_table import DIGEST
from dedupkit.store import give_back_pages, in_blocks, write_tables

__all__ = ["GROUPS_SCHEMA", "iter_groups", "write_groups"]

GROUPS_SCHEMA = pa.schema(
    [
        ("group", pa.int64()),
        ("size", pa.int32()),
        ("kept", pa.int32()),
        ("removed", pa.int32()),
        ("samples", pa.list_(pa.int64())),
        ("kept_samples", pa.list_(pa.int64())),
        ("captions", pa.int32()),
        ("caption", pa.string()),
        ("caption_count", pa.int32()),
    ]
)

_ROW_GROUP = 1 << 18  # rows of a row group


def write_groups(path: Path, tables: Iterable[pa.Table], digest: str = "") -> tuple[int, int]:
    """Write the groups of two samples or more, in the order of their smallest sample.

    Args:
        path: The file.
        tables: The groups, as :func:`iter_groups` gives them.
        digest: Digest of rule, policy and input, kept in the file's metadata.

    Returns:
        The number of groups and the size of the largest (1 where there is none).
    """
    count, largest = 0, 1
    for table in write_tables(path, GROUPS_SCHEMA.with_metadata({DIGEST: digest}), tables):
        count, largest = count + table.num_rows, max(largest, pc.max(table["size"]).as_py() or 1)
    return count, largest


def iter_groups(
    decision: Decision, readable: NDArray[np.bool_], captions: pa.Table | None = None
) -> Iterator[pa.Table]:
    """The groups of two samples or more in the order of their smallest sample, a quarter of a million in each table.

    Args:
        decision: Decision about all samples.
        readable: (n,) bool, whether a sample took part.
        captions: Columns ``group`` (ascending), ``captions`` (distinct ones), ``caption`` (the most frequent) and
            ``caption_count``, for the groups that have any.
    """
    sizes = decision.sizes()
    groups = np.flatnonzero(sizes > 1)
    for low in range(0, max(len(groups), 1), _ROW_GROUP):
        ids = groups[low : low + _ROW_GROUP]
        first, last = (int(ids[0]), int(ids[-1])) if len(ids) else (0, -1)
        by_group = _members(decision.group, sizes, first, last)
        is_kept = (decision.witness[by_group] < 0) & readable[by_group]
        give_back_pages(decision.witness)
        yield _groups_of(ids, sizes[ids], by_group, is_kept, captions)


def _members(group: NDArray[np.int32], sizes: NDArray[np.int32], first: int, last: int) -> NDArray[np.int64]:
    """The samples of the groups of two or more from ``first`` to ``last``, in the order of their groups."""
    found, groups = [np.zeros(0, np.int32)], [np.zeros(0, np.int32)]
    for low, some in in_blocks(group[first:]):  # a group is named by its smallest sample
        mine = np.flatnonzero((some >= first) & (some <= last))
        mine = mine[sizes[some[mine]] > 1]
        found.append((first + low + mine).astype(np.int32))
        groups.append(some[mine])
    return np.concatenate(found)[np.argsort(np.concatenate(groups), kind="stable")].astype(np.int64)


def _groups_of(
    ids: NDArray[np.int64],
    counts: NDArray[np.int32],
    by_group: NDArray[np.int64],
    is_kept: NDArray[np.bool_],
    captions: pa.Table | None,
) -> pa.Table:
    """Some groups as a table, from their members in order and which of these are kept."""
    starts = np.concatenate([[0], np.cumsum(counts)])
    kept = np.add.reduceat(is_kept, starts[:-1], dtype=np.int32) if len(ids) else np.zeros(0, np.int32)
    kept_starts = np.concatenate([[0], np.cumsum(kept)])
    number, caption, often = _caption_columns(ids, captions)
    return pa.table(
        [
            pa.array(ids),
            pa.array(counts),
            pa.array(kept),
            pa.array(counts - kept),
            pa.ListArray.from_arrays(pa.array(starts.astype(np.int32)), pa.array(by_group)),
            pa.ListArray.from_arrays(pa.array(kept_starts.astype(np.int32)), pa.array(by_group[is_kept])),
            number,
            caption,
            often,
        ],
        schema=GROUPS_SCHEMA,
    )


def _caption_columns(groups: NDArray[np.int64], known: pa.Table | None) -> list[pa.Array]:
    """What is known of the captions of some groups, in their order."""
    kinds = [GROUPS_SCHEMA.field(name).type for name in ("captions", "caption", "caption_count")]
    if known is None or not known.num_rows:
        none = np.zeros(len(groups), np.int32)
        return [pa.array(none), pa.nulls(len(groups), kinds[1]), pa.array(none)]
    place = np.minimum(np.searchsorted(known["group"].to_numpy(), groups), known.num_rows - 1)
    where = pa.array(place, mask=known["group"].to_numpy()[place] != groups)
    number, caption, often = (
        known[name].combine_chunks().take(where).cast(kind)
        for name, kind in zip(("captions", "caption", "caption_count"), kinds, strict=True)
    )
    return [pc.fill_null(number, 0), caption, pc.fill_null(often, 0)]
