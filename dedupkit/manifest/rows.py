"""Rows of a manifest by sample, from the file or from a table in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from dedupkit.store import read_columns

__all__ = ["FileRows", "Rows", "TableRows", "taken_rows"]

Row = dict[str, Any]


class Rows(Protocol):
    """A manifest of which parts can be read."""

    def table(self, columns: Sequence[str] | None = None, verdict: str | None = None) -> pa.Table:
        """Some columns (all by default) of all samples, or of those with one verdict."""

    def rows(self, samples: Iterable[int]) -> dict[int, Row]:
        """The rows of some samples, by sample."""


class TableRows:
    """A manifest in memory.

    Args:
        build: Gives all rows, in the order of ``sample``; called once, when rows are first asked for.
    """

    def __init__(self, build: Callable[[], pa.Table]) -> None:
        self._build = build

    @cached_property
    def _table(self) -> pa.Table:
        return self._build()

    def table(self, columns: Sequence[str] | None = None, verdict: str | None = None) -> pa.Table:
        """Some columns (all by default) of all samples, or of those with one verdict."""
        table = self._table if verdict is None else self._table.filter(pc.field("verdict") == verdict)
        return table if columns is None else table.select(list(columns))

    def rows(self, samples: Iterable[int]) -> dict[int, Row]:
        """The rows of some samples, by sample."""
        taken = self._table.take(pa.array(_distinct(samples)))
        return {row["sample"]: row for row in taken.to_pylist()}


class FileRows:
    """A manifest file, of which only the row groups are read that hold what is asked for.

    Args:
        path: ``manifest.parquet``. Row number and ``sample`` are the same there.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def table(self, columns: Sequence[str] | None = None, verdict: str | None = None) -> pa.Table:
        """Some columns (all by default) of all samples, or of those with one verdict."""
        return read_columns(self._path, columns, None if verdict is None else [("verdict", "=", verdict)])

    def rows(self, samples: Iterable[int]) -> dict[int, Row]:
        """The rows of some samples, by sample."""
        found: dict[int, Row] = {}
        with pq.ParquetFile(self._path) as file:
            for table in taken_rows(file, _distinct(samples)):
                found |= {row["sample"]: row for row in table.to_pylist()}
        return found


def taken_rows(file: pq.ParquetFile, samples: NDArray[np.int64], columns: Sequence[str] | None = None) -> Iterator[Any]:
    """The rows of some samples, one table for each row group that holds any.

    Args:
        file: A manifest.
        samples: (k,) int64, ascending.
        columns: Names of the columns to read; all by default.
    """
    sizes = [file.metadata.row_group(group).num_rows for group in range(file.metadata.num_row_groups)]
    starts = np.cumsum([0, *sizes])
    bounds = np.searchsorted(samples, starts)
    for group, (low, high) in enumerate(pairwise(bounds.tolist())):
        if high > low:
            table = file.read_row_group(group, None if columns is None else list(columns))
            yield table.take(pa.array(samples[low:high] - starts[group]))


def _distinct(samples: Iterable[int]) -> NDArray[np.int64]:
    return np.unique(np.fromiter(samples, np.int64))
