"""Which samples have equal fingerprints, in memory that does not grow with the fingerprints.

Rows are written into parts by their values, then each part is grouped alone: the plan of a partitioned hash aggregation
(Graefe, "Query Evaluation Techniques for Large Databases", 1993, section 4.1).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from dedupkit.signals.columns import Scanned, distinct_values
from dedupkit.signals.equal import as_values, bytes_of, first_equal, part_of
from dedupkit.startup.memory import give_back_memory
from dedupkit.store import append_rows, count_rows, read_columns

__all__ = ["equal_samples"]

_IN_MEMORY = 1_000_000  # rows that are grouped as they are read
_ROWS_A_PART = 250_000
_MOST_PARTS = 256


def equal_samples(
    scanned: Scanned, column: str, also: tuple[str, ...], usable: Callable[[pa.Table], Any]
) -> NDArray[np.int32]:
    """For each sample the smallest with the same value in a column, -1 where it has none; (n,) int32.

    Args:
        scanned: The samples.
        column: The column of fingerprints.
        also: Further columns that ``usable`` looks at.
        usable: Table of these columns to booleans, one per sample: whether its fingerprint counts.
    """
    files = [scanned.folder.samples(shard) for shard in range(scanned.shards)]
    count = len(scanned)
    parts = 1 if count < _IN_MEMORY else min(count // _ROWS_A_PART + 1, _MOST_PARTS)
    names = list(dict.fromkeys((column, *also)))
    kind = read_columns(files[0], [column]).schema.field(column).type if parts > 1 else pa.null()
    if not pa.types.is_fixed_size_binary(kind) or kind.byte_width < 8:
        return distinct_values(scanned, column, also, usable).first
    starts = np.cumsum([0, *map(count_rows, files)]).tolist()
    record = np.dtype([("row", np.int32), ("value", np.uint8, kind.byte_width)])
    label = np.full(starts[-1], -1, np.int32)
    with TemporaryDirectory(prefix="dedupkit-labels-") as home:
        places = [Path(home, f"{number:03d}") for number in range(parts)]
        for file, start in zip(files, starts, strict=False):
            _write(read_columns(file, names), column, usable, start, record, places)
        for place in places:
            if place.exists():
                rows = np.fromfile(place, record)
                label[rows["row"]] = rows["row"][first_equal(as_values(rows["value"]))]
                place.unlink()
    give_back_memory()
    return label


def _write(
    table: pa.Table, column: str, usable: Callable[[pa.Table], Any], start: int, record: Any, places: list[Path]
) -> None:
    """Append the rows of a table whose values count to the files of their parts."""
    values = table[column].combine_chunks()
    counted = pc.and_(pc.fill_null(usable(table), False), values.is_valid())
    mine = np.flatnonzero(counted.to_numpy())
    if not len(mine):
        return
    rows = np.empty(len(mine), record)
    rows["row"] = start + mine
    rows["value"] = bytes_of(values)[mine]
    append_rows(places, part_of(rows["value"], len(places)).astype(np.uint8), rows)
