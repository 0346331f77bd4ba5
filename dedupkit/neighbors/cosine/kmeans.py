"""Spherical k-means on the engine of the join, and the nearest centres of vectors."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from dedupkit.neighbors.cosine.rows import Floats, Ints
from dedupkit.neighbors.cosine.tiles import Engine, Sets

__all__ = ["Cells", "block_rows", "nearest", "train"]

Cells = NDArray[np.int32]

TRAIN_PER_CELL, TRAIN_ROUNDS = 32, 3
COST_ROWS = 16384  # rows that the cost of an overlap is estimated from


@njit(cache=True, nogil=True)
def add_rows(x: Floats, to: Ints, sums: Floats) -> None:
    """Add each row of x, float32 (m, d), to the row of sums, float32 (k, d), that `to` names."""
    for row in range(len(x)):
        for c in range(x.shape[1]):
            sums[to[row], c] += x[row, c]


def train(sets: Sets, count: int, seed: int) -> tuple[Floats, Floats]:
    """Run spherical k-means (Dhillon and Modha, Machine Learning 42, 2001, section 3) on a sample of both sets.

    It multiplies as the tiles do, on the same device: a fifth of the time that `faiss.Kmeans` takes beside torch.

    Returns:
        Unit centres, float32 (count, d), and other random rows, float32 (s, d), to estimate the cost with: training
        rows would not do, because k-means has moved its centres to them.
    """
    rng = np.random.default_rng([seed, 1])
    engine, sides = sets.engine, sets.sides
    total = sum(map(len, sides))
    apart = min(COST_ROWS, total // 4)
    wanted = min(total, apart + max(4 * count, min(sets.keep_rows, TRAIN_PER_CELL * count)))
    parts = [
        side.take(np.sort(rng.choice(len(side), min(len(side), -(-wanted * len(side) // total)), replace=False)))
        for side in sides
    ]
    shuffled = rng.permutation(np.concatenate(parts))
    others, training = shuffled[:apart], shuffled[apart:]
    centres = training[:count].copy()
    for _ in range(TRAIN_ROUNDS):
        loaded, sums = engine.load(centres), np.zeros_like(centres)
        step = block_rows(len(centres))
        for at in range(0, len(training), step):
            x = training[at : at + step]
            add_rows(x, engine.best(engine.product(engine.load(x), loaded))[1], sums)
        length = np.linalg.norm(sums, axis=1)
        used = length > 0  # an empty cell stays where it is
        centres[used] = sums[used] / length[used, None]
    return centres, others


def nearest(engine: Engine, x: Floats, centres: Floats, cap: int) -> tuple[Cells, Floats]:
    """The `cap` nearest cells of each vector, int32 (m, cap), nearest first, and how far below the best they are."""
    loaded = engine.load(centres)
    cells, gaps = np.empty((len(x), cap), np.int32), np.empty((len(x), cap), np.float32)
    step = block_rows(len(centres))
    for at in range(0, len(x), step):
        part = slice(at, at + step)
        cosine = engine.product(engine.load(x[part]), loaded)
        top = np.argpartition(-cosine, cap - 1, axis=1)[:, :cap]
        values = np.take_along_axis(cosine, top, axis=1)
        order = np.argsort(-values, axis=1, kind="stable")
        cells[part] = np.take_along_axis(top, order, axis=1)
        ordered = np.take_along_axis(values, order, axis=1)
        gaps[part] = ordered[:, :1] - ordered
    return cells, gaps


def block_rows(count: int) -> int:
    """Rows to compare with so many centres at a time: their cosines take 64 MiB or less."""
    return max(1, min(8192, 2**24 // count))
