"""Nearest neighbours of rows by matrix products in tiles, into lists that keep the best."""

from __future__ import annotations

import numpy as np

from dedupkit.neighbors.cosine.lists import NeighborLists
from dedupkit.neighbors.cosine.rows import Floats, Ints
from dedupkit.neighbors.cosine.tiles import Sets, dots

__all__ = ["nearest_of", "nearest_tiles"]


def nearest_tiles(sets: Sets, at: Ints | None, lists: NeighborLists) -> None:
    """Offer every pair of some rows of the first set to the lists of both.

    Work: half of len(at)² d multiply-adds.

    Args:
        sets: The rows, and what multiplies them.
        at: int64 (m,), positions in the first set, ascending; None for all.
        lists: One list for each row of the first set; it is added to.
    """
    engine, rows, k = sets.engine, sets.left, lists.ids.shape[1]
    positions = np.arange(len(rows)) if at is None else at
    held = max(1, sets.keep_rows // engine.tile) * engine.tile  # whole tiles, so that diagonal tiles are squares
    for outer in range(0, len(positions), held):
        stop = min(len(positions), outer + held)
        kept = [positions[begin : min(stop, begin + engine.tile)] for begin in range(outer, stop, engine.tile)]
        blocks = [rows.take(ids) for ids in kept]
        loaded = [engine.load(x) for x in blocks]
        for column in range(outer, len(positions), engine.tile):
            others = positions[column : column + engine.tile]
            y = rows.take(others)
            y_loaded = engine.load(y)
            for ids, x, x_loaded in zip(kept, blocks, loaded, strict=True):
                if ids[0] > others[0]:
                    continue
                same = ids[0] == others[0]
                to = None if same else lists.bounds(others)
                i, j = engine.may_enter(x_loaded, y_loaded, lists.bounds(ids), to, k + same)
                if same:
                    i, j = i[i != j], j[i != j]
                score = np.empty(len(i), np.float32)
                dots(x, y, i, j, score)
                _offer(lists, ids[i], others[j], score)
                if not same:
                    _offer(lists, others[j], ids[i], score)


def nearest_of(
    sets: Sets, queries: Ints, lists: NeighborLists, places: Ints | None = None, among: Ints | None = None
) -> None:
    """Offer the rows of the other set, which may be the first itself, to the lists of some rows of the first.

    Work: len(queries) * len(among) * d multiply-adds.

    Args:
        sets: The rows, and what multiplies them.
        queries: int64 (m,), positions in the first set.
        lists: The lists; they are added to.
        places: int64 (m,), the list of each query; by default the first, the second and so on.
        among: int64 (p,), positions in the other set, ascending; None for all.
    """
    engine, other = sets.engine, sets.other
    places = np.arange(len(queries)) if places is None else places
    count = len(other) if among is None else len(among)
    for begin in range(0, len(queries), engine.tile):
        ids, mine = queries[begin : begin + engine.tile], places[begin : begin + engine.tile]
        x = sets.left.take(ids)
        x_loaded = engine.load(x)
        for column in range(0, count, engine.tile):
            part = slice(column, min(count, column + engine.tile))
            y = other.take(part if among is None else among[part])
            i, j = engine.may_enter(x_loaded, engine.load(y), lists.bounds(mine), None, lists.ids.shape[1] + sets.same)
            others = j + column if among is None else among[j + column]
            if sets.same:
                apart = ids[i] != others
                i, j, others = i[apart], j[apart], others[apart]
            score = np.empty(len(i), np.float32)
            dots(x, y, i, j, score)
            _offer(lists, mine[i], others, score)


def _offer(lists: NeighborLists, rows: Ints, others: Ints, score: Floats) -> None:
    reached = score >= lists.floor
    lists.add(rows[reached], others[reached], score[reached])
