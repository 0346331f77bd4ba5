"""The clustered join of one set of vectors in pieces, from files: planned once, then rows and cells in ranges.

The method is that of :mod:`dedupkit.neighbors.cosine.cells`. A pair is emitted by the smallest cell that both its
vectors belong to, so pieces need nothing of one another, and together they find what the join in memory does. The
nearest neighbours of a vector are the best of what its cells hold, so pieces find those of each cell, and others join
them (:mod:`dedupkit.neighbors.cosine.list_pieces`).

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
from dedupkit.neighbors.cosine.expanded import nearest_entries
from dedupkit.neighbors.cosine.join import batches, expanded, threads
from dedupkit.neighbors.cosine.kmeans import block_rows
from dedupkit.neighbors.cosine.lists import NeighborLists
from dedupkit.neighbors.cosine.nearest import nearest_tiles
from dedupkit.neighbors.cosine.overlap import Overlap, Plan
from dedupkit.neighbors.cosine.pairs import NO_PAIRS, Columns, no_rows
from dedupkit.neighbors.cosine.rows import Ints, Rows
from dedupkit.neighbors.cosine.settings import Settings
from dedupkit.neighbors.cosine.tiles import Engine, Sets, join_tiles

__all__ = ["ASSIGNED", "PLANNED", "Pieces", "Planned", "assigned", "mapped", "planned", "stored_vectors"]

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
        return self.spans() if self.cells else []

    def spans(self) -> list[tuple[int, int]]:
        """The same ranges, and in an exact search ranges as long; one at least, which may be empty."""
        step = block_rows(max(1, self.cells))
        step *= max(1, _ROWS // step)
        return [(begin, min(begin + step, self.rows)) for begin in range(0, max(1, self.rows), step)]


def planned(distinct: Distinct, plan: Plan | None) -> tuple[Planned, list[NDArray[Any]]]:
    """A plan for the distinct vectors of one set, and the arrays of :data:`PLANNED`."""
    rows = distinct.rows
    centres = np.zeros((0, rows.dims), np.float32) if plan is None else plan.centres
    facts = Planned(len(rows), len(centres), *(() if plan is None else plan.overlap))
    return facts, [np.asarray(rows.ids), rows.scale, distinct.starts, distinct.members, centres]


def assigned(lists: Lists, cells: int) -> list[NDArray[Any]]:
    """The arrays of :data:`ASSIGNED` for a range of rows."""
    begins, owners = members(lists, cells)
    return [lists.starts, lists.cells, begins, owners.astype(np.int32)]


def stored_vectors(vectors: Path, arrays: Sequence[Path]) -> Distinct:
    """The distinct vectors of a plan, mapped; arguments as for :class:`Pieces`, which loads what multiplies besides."""
    ids, scale, starts, members_of, _ = map(mapped, arrays)
    return Distinct(Rows(np.load(vectors, mmap_mode="r"), ids, scale), starts, members_of, no_rows())


class Pieces:
    """A planned join that is done piece by piece.

    Args:
        vectors: The file of the vectors.
        arrays: Files of the arrays of :data:`PLANNED`.
        facts: What else is known of the plan.
        settings: Those of the join.
    """

    def __init__(self, vectors: Path, arrays: Sequence[Path], facts: Planned, settings: Settings) -> None:
        self._facts, self._floor = facts, float(np.float32(settings.floor))
        self._distinct = stored_vectors(vectors, arrays)
        rows, centres = self._distinct.rows, np.array(mapped(arrays[PLANNED.index("centres")]))
        engine = Engine.choose(settings.device, len(rows.array) * len(rows.array) / 2, rows.dims, settings.floor)
        self._sets = Sets(engine, rows, None, settings.memory // (16 * rows.dims))
        self._plan = Plan(centres, Overlap(facts.cap, facts.margin), no_rows(), np.zeros(0, np.bool_))

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

    def nearest(self, k: int, cells: range, ranges: Sequence[Sequence[Path]]) -> Columns:
        """The k nearest of each distinct vector among those of its cells, of some cells or in an exact search.

        Args:
            k: Number of neighbours of a vector in a cell.
            cells: Numbers of the cells.
            ranges: As for :meth:`join`.

        Returns:
            Vectors, ascending, their neighbours and the cosines; k of a vector at most, none twice.
        """
        rows, found = self._distinct.rows, [NO_PAIRS]
        with threads(1):
            if not self._facts.cells:
                return self._lists(rows, k)
            for _, inside, _ in self._inside(cells, ranges):
                row, other, score = self._lists(Rows(rows.array, rows.ids[inside], rows.scale[inside]), k)
                found.append((inside[row], inside[other], score))
        row, other, score = (np.concatenate(column) for column in zip(*found, strict=True))
        _, first = np.unique(row * len(self._distinct.sizes) + other, return_index=True)  # they may share several cells
        return nearest_entries(row[first], other[first], score[first], k)[:3]

    def _tiles(self, at: Ints | None) -> Iterator[Columns]:
        return join_tiles(self._sets.engine, self._sets.left, at, None, None, self._floor, self._sets.keep_rows)

    def _lists(self, rows: Rows, k: int) -> Columns:
        lists = NeighborLists(len(rows), k, self._floor)
        nearest_tiles(Sets(self._sets.engine, rows, None, self._sets.keep_rows), None, lists)
        return lists.pairs()

    def _inside(self, cells: range, ranges: Sequence[Sequence[Path]]) -> Iterator[tuple[int, Ints, Lists]]:
        """Each of some cells that holds more than one vector, these, and the cells of these."""
        parts = [tuple(map(mapped, files)) for files in ranges]
        begins = [begin for begin, _ in self._facts.ranges()]
        for cell in cells:
            inside, lists = _inside(cell, parts, begins)
            if len(inside) > 1:
                yield cell, inside, lists

    def _cells(self, cells: range, ranges: Sequence[Sequence[Path]]) -> Iterator[Columns]:
        for cell, inside, lists in self._inside(cells, ranges):
            for i, j, score in self._tiles(inside):
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


def mapped(path: Path) -> NDArray[Any]:
    """A mapped array; an array that kernels may be given, which are compiled for those that could be written to."""
    return np.asarray(np.load(path, mmap_mode="c"))
