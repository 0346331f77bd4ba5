"""Clustered cosine join: k-means cells that overlap, so that pairs split by a border are found, at a known recall.

A vector belongs to its nearest cell and to every other cell whose centre is within `margin` of the nearest's cosine,
to at most `cap` cells. A pair is found if its vectors share a cell; within a cell the tiles are exact, and the pair
is emitted by the smallest cell number that it shares, so no set of pairs is kept. One cell per vector (cap 1) is what
SemDeDup does (Abbas et al., arXiv 2303.09540, section 3); searching the union of several clusterings is what OpenAI
did for DALL·E 2. The margin spends the overlap where borders are near, and for the same recall costs a fraction of a
fixed number of cells.

How much overlap is measured, not guessed. The true pairs of a random sample of vectors, found by exact search, say
for every cap which margin lets the wanted share of them meet. Other random vectors say what that costs, as the
number of pairs that share a cell. The cheapest choice is taken; half of the sample chooses and the other half measures.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numba import njit

from dedupkit.neighbors.cosine.kmeans import Cells, block_rows
from dedupkit.neighbors.cosine.overlap import Plan
from dedupkit.neighbors.cosine.rows import Floats, Growing, Ints, Rows
from dedupkit.neighbors.cosine.tiles import Engine, Sets, join_tiles

__all__ = ["Lists", "assign", "first_shared", "join_cells", "members"]


class Lists(NamedTuple):
    """The cells of every vector: cells[starts[i]:starts[i + 1]], ascending; int64 (n + 1,) and int32 (m,)."""

    starts: Ints
    cells: Cells


@njit(cache=True, nogil=True)
def first_shared(starts: Ints, cells: Cells, others: Ints, other_cells: Cells, i: Ints, j: Ints, out: Ints) -> None:
    """Write the smallest cell that i[p] and j[p] share, or -1, to out, int64 (p,); lists are merged, being sorted."""
    for p in range(len(i)):
        a, a_end = starts[i[p]], starts[i[p] + 1]
        b, b_end = others[j[p]], others[j[p] + 1]
        out[p] = -1
        while a < a_end and b < b_end:
            if cells[a] == other_cells[b]:
                out[p] = cells[a]
                break
            if cells[a] < other_cells[b]:
                a += 1
            else:
                b += 1


def assign(engine: Engine, rows: Rows, plan: Plan) -> Lists:
    """Find the cells of every vector. Work: n * k * d multiply-adds; memory: 8 bytes a vector and 4 a membership."""
    loaded = engine.load(plan.centres)
    counts, cells = np.zeros(len(rows) + 1, np.int64), Growing(np.int32)
    step = block_rows(len(plan.centres))
    for at in range(0, len(rows), step):
        cosine = engine.product(engine.load(rows.take(slice(at, at + step))), loaded)
        bound = engine.best(cosine)[0] - np.float32(plan.overlap.margin)
        row, cell = np.divmod(engine.at_least(cosine, bound), cosine.shape[1])
        size = np.bincount(row, minlength=len(cosine))
        if size.max() > plan.overlap.cap:
            order = np.lexsort((cell, -cosine[row, cell], row))
            rank = np.arange(len(row)) - np.repeat(np.cumsum(size) - size, size)
            kept = np.sort(order[rank < plan.overlap.cap])
            row, cell = row[kept], cell[kept]
        counts[at + 1 : at + 1 + len(cosine)] = np.bincount(row, minlength=len(cosine))
        cells.append(cell)
    return Lists(np.cumsum(counts), cells.filled())


def members(lists: Lists, count: int) -> tuple[Ints, Ints]:
    """Turn lists around: where each of `count` cells starts, (count + 1,), and positions by cell, ascending in each."""
    starts = np.append(0, np.cumsum(np.bincount(lists.cells, minlength=count)))
    owner = np.repeat(np.arange(len(lists.starts) - 1), np.diff(lists.starts))
    return starts, owner[np.argsort(lists.cells, kind="stable")]


def join_cells(sets: Sets, plan: Plan, floor: float) -> Iterator[tuple[Ints, Ints, Floats]]:
    """Yield all pairs that share a cell and reach the floor, each once, one cell after the other; as `join_tiles`."""
    lists = [assign(sets.engine, side, plan) for side in sets.sides]
    turned = [members(side, len(plan.centres)) for side in lists]
    for cell in range(len(plan.centres)):
        inside = [owner[starts[cell] : starts[cell + 1]] for starts, owner in turned]
        if any(len(positions) == 0 for positions in inside):
            continue
        to = None if sets.same else inside[1]
        for i, j, score in join_tiles(sets.engine, sets.left, inside[0], sets.right, to, floor, sets.keep_rows):
            shared = np.empty(len(i), np.int64)
            first_shared(*lists[0], *lists[-1], i, j, shared)
            mine = shared == cell
            if mine.any():
                yield i[mine], j[mine], score[mine]
