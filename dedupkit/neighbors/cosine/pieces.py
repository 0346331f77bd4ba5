"""The clustered join of one set of vectors in pieces, from files: planned once, then rows and cells in ranges.

The method is that of :mod:`dedupkit.neighbors.cosine.cells`. A pair is emitted by the smallest cell that both its
vectors belong to, so pieces need nothing of one another, and together they find what the join in memory does.

A piece holds its rows' cosines to the centres (64 MiB), or the vectors of one cell and the cells of these.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dedupkit.neighbors.cosine.cells import Lists, assign, first_shared, members
from dedupkit.neighbors.cosine.distinct import Distinct
from dedupkit.neighbors.cosine.join import Join, batches, expanded, threads
from dedupkit.neighbors.cosine.kmeans import block_rows
from dedupkit.neighbors.cosine.overlap import Overlap, Plan
from dedupkit.neighbors.cosine.pairs import Columns, no_rows
from dedupkit.neighbors.cosine.rows import Ints, Rows
from dedupkit.neighbors.cosine.settings import Settings
from dedupkit.neighbors.cosine.tiles import Engine, Sets, join_tiles

__all__ = ["ASSIGNED", "PLANNED", "Pieces", "Planned", "assigned", "planned"]

PLANNED = ("ids", "scale", "starts", "members", "centres")
"""Names of the arrays of a plan: a set of distinct vectors (``Distinct``), and centres; none, for an exact search."""

ASSIGNED = ("lists", "cells", "begins", "owners")
"""Names of the arrays of a range of rows: the cells of each (``Lists``), and the rows of each cell."""

_ROWS = 1 << 20  # of a piece, about


class Planned(NamedTuple):
    """What is known of a plan, beside its arrays.

    Attributes:
        rows: Number of distinct vectors.
        cells: Number of cells; 0 where the search is exact.
        cap: The overlap: cells that a vector may belong to.
        margin: How far below the best cosine their centres may be.
    """

    rows: int
    cells: int
    cap: int = 0
    margin: float = 0.0

    def ranges(self) -> list[tuple[int, int]]:
        """Ranges of rows whose cells are found alone; they begin where the join in memory begins a block."""
        if not self.cells:
            return []
        step = block_rows(self.cells)
        step *= max(1, _ROWS // step)
        return [(begin, min(begin + step, self.rows)) for begin in range(0, self.rows, step)]


def planned(join: Join) -> tuple[Planned, list[NDArray[Any]]]:
    """The plan of a join of one set, and the arrays of :data:`PLANNED`."""
    one, plan = join.distinct[0], join.plan
    centres = np.zeros((0, one.rows.dims), np.float32) if plan is None else plan.centres
    facts = Planned(len(one.rows), len(centres), *(() if plan is None else plan.overlap))
    return facts, [np.asarray(one.rows.ids), one.rows.scale, one.starts, one.members, centres]


def assigned(lists: Lists, cells: int) -> list[NDArray[Any]]:
    """The arrays of :data:`ASSIGNED` for a range of rows."""
    begins, owners = members(lists, cells)
    return [lists.starts, lists.cells, begins, owners.astype(np.int32)]


class Pieces:
    """A planned join that is done piece by piece.

    Args:
        vectors: The file of the vectors.
        arrays: Files of the arrays of :data:`PLANNED`.
        facts: What else is known of the plan.
        settings: Those of the join.
    """

    def __init__(self, vectors: Path, arrays: Sequence[Path], facts: Planned, settings: Settings) -> None:
        array, (ids, scale, starts, of, centres) = np.load(vectors, mmap_mode="r"), map(_mapped, arrays)
        self._facts, self._floor = facts, float(np.float32(settings.floor))
        self._distinct = Distinct(Rows(array, ids, scale), starts, of, no_rows())
        engine = Engine.choose(settings.device, len(array) * len(array) / 2, array.shape[1], settings.floor)
        self._sets = Sets(engine, self._distinct.rows, None, settings.memory // (16 * array.shape[1]))
        self._plan = Plan(np.array(centres), Overlap(facts.cap, facts.margin), no_rows(), np.zeros(0, np.bool_))

    def assign(self, begin: int, end: int) -> Lists:
        """Find the cells of the rows of one of :meth:`Planned.ranges`."""
        rows = self._sets.left
        part = Rows(rows.array, rows.ids[begin:end], rows.scale[begin:end])
        with threads(1):
            return assign(self._sets.engine, part, self._plan)

    def join(self, cells: range, ranges: Sequence[Sequence[Path]]) -> Iterator[Columns]:
        """The pairs of some cells, as rows of the vectors; with cell 0, or in an exact search, those of equal vectors.

        Args:
            cells: Numbers of the cells.
            ranges: Files of the arrays of :data:`ASSIGNED`, for each of :meth:`Planned.ranges`.

        Yields:
            a, b and score, a < b.
        """
        with threads(1):
            found = self._cells(cells, ranges) if self._facts.cells else self._tiles(None)
            for i, j, score in batches(found):
                yield from expanded(self._distinct, self._distinct, True, i, j, score)
            if cells.start == 0:
                twins = np.flatnonzero(self._distinct.sizes > 1)
                yield from expanded(self._distinct, self._distinct, True, twins, twins, np.ones(len(twins), np.float32))

    def _tiles(self, at: Ints | None) -> Iterator[Columns]:
        return join_tiles(self._sets.engine, self._sets.left, at, None, None, self._floor, self._sets.keep_rows)

    def _cells(self, cells: range, ranges: Sequence[Sequence[Path]]) -> Iterator[Columns]:
        parts = [tuple(map(_mapped, files)) for files in ranges]
        begins = [begin for begin, _ in self._facts.ranges()]
        for cell in cells:
            inside, lists = _inside(cell, parts, begins)
            for i, j, score in self._tiles(inside) if len(inside) > 1 else ():
                shared = np.empty(len(i), np.int64)
                first_shared(*lists, *lists, np.searchsorted(inside, i), np.searchsorted(inside, j), shared)
                mine = shared == cell
                if mine.any():
                    yield i[mine], j[mine], score[mine]


def _inside(cell: int, parts: Sequence[tuple[NDArray[Any], ...]], begins: Sequence[int]) -> tuple[Ints, Lists]:
    """The rows of a cell, ascending, and the cells of these."""
    rows, sizes, found = [no_rows()], [no_rows()], [np.zeros(0, np.int32)]
    for begin, (starts, cells, cell_begins, owners) in zip(begins, parts, strict=True):
        own = np.array(owners[cell_begins[cell] : cell_begins[cell + 1]], np.int64)
        first, size = starts[own], starts[own + 1] - starts[own]
        places = np.arange(size.sum()) + np.repeat(first - np.cumsum(size) + size, size)
        rows.append(own + begin)
        sizes.append(size)
        found.append(cells[places])
    ends = np.cumsum(np.concatenate(sizes))
    return np.concatenate(rows), Lists(np.append(0, ends).astype(np.int64), np.concatenate(found))


def _mapped(path: Path) -> NDArray[Any]:
    """A mapped array; an array that kernels may be given, which are compiled for those that could be written to."""
    return np.asarray(np.load(path, mmap_mode="c"))
