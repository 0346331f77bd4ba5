"""Cosine join: every pair of vectors at or above a floor, exactly or by overlapping cells with a measured recall.

Rows that are equal byte for byte are collapsed first and written out again at the end, so an image with a thousand
copies is one vector in the search. What is left is searched by exact tiles (`tiles`) or in k-means cells
(`cells`). Both read rows as they need them: a memmap will do, and what is held besides is about 80 bytes a row,
plus 28 bytes for every cell that a row is in, plus blocks within `memory`.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from math import ceil
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dedupkit.neighbors.cosine.distinct import Distinct, check_vectors, collapse
from dedupkit.neighbors.cosine.pairs import Columns, ScoredPairs, no_rows
from dedupkit.neighbors.cosine.recall import EXACT, Recall, measured
from dedupkit.neighbors.cosine.settings import MEMORY, Settings

__all__ = ["Join", "Recall", "ScoredPairs", "batches", "cosine_pairs", "expanded", "iter_cosine_pairs", "threads"]

PAIR_BYTES = 64  # a pair takes 20 bytes, and sorting needs copies
BLOCK_PAIRS = 1 << 20
EXACT_PAIRS = 2e9  # up to here `auto` is exact: seconds


def cosine_pairs(
    vectors: NDArray[Any],
    floor: float,
    other: NDArray[Any] | None = None,
    *,
    method: str = "auto",
    target_recall: float = 0.99,
    memory: int = MEMORY,
    device: str | None = None,
    seed: int = 0,
    workers: int | None = None,
) -> ScoredPairs:
    """Find the pairs of vectors whose cosine is at least a floor.

    >>> vectors = np.array([[1, 0], [0, 2], [3, 0.1]], np.float32)
    >>> found = cosine_pairs(vectors, floor=0.9)
    >>> found.a, found.b, found.score.round(3)
    (array([0]), array([2]), array([0.999], dtype=float32))

    Args:
        vectors: (n, d) float16 or float32, of any length; a memory map is read in blocks.
        floor: Least cosine, in (-1, 1].
        other: (k, d) vectors to join with; without them, ``vectors`` is joined with itself.
        method: ``exact``, ``cells``, or ``auto``: exact where that takes seconds.
        target_recall: Share of the pairs that ``cells`` must find, in (0, 1).
        memory: Bytes for blocks, and for the result; not counting the vectors.
        device: ``cpu`` or a CUDA device of torch; by default CUDA where there is one.
        seed: Seed for the sample and for k-means.
        workers: Number of threads of torch; by default its own setting. Without torch, NumPy's setting counts.

    Returns:
        The pairs, sorted by (a, b), with the measured recall.

    Raises:
        ValueError: An array of another shape or type, two dimensions, a number out of range, or more pairs than
            ``memory`` holds: then the message proposes a floor.
        MissingExtraError: A device was named, and torch is not installed.
    """
    limit = memory // PAIR_BYTES
    settings = Settings(floor, method, target_recall, memory, device, seed, workers, max_pairs=limit)
    return Join(vectors, other, settings).pairs()


def iter_cosine_pairs(
    vectors: NDArray[Any],
    floor: float,
    other: NDArray[Any] | None = None,
    *,
    method: str = "auto",
    target_recall: float = 0.99,
    memory: int = MEMORY,
    device: str | None = None,
    seed: int = 0,
    workers: int | None = None,
    max_pairs: int | None = None,
) -> Iterator[ScoredPairs]:
    """Find the same pairs as :func:`cosine_pairs` in blocks: in no order, each once, at most about a million a block.

    Arguments are checked and recall is measured before this returns.

    The arguments are those of :func:`cosine_pairs`, and ``max_pairs``, the number of pairs that there is room for.

    Raises:
        ValueError: As in :func:`cosine_pairs`; or a sample says that there are more than ``max_pairs``, and the
            message proposes a floor.
    """
    settings = Settings(floor, method, target_recall, memory, device, seed, workers, max_pairs=max_pairs)
    return Join(vectors, other, settings).blocks()


class Join:
    """A join that is checked and planned, and can be run.

    Args:
        vectors: (n, d) float16 or float32.
        other: (k, d) vectors to join with; None to join ``vectors`` with themselves.
        settings: How far, and how.

    Raises:
        ValueError, MissingExtraError: As :func:`iter_cosine_pairs`.
    """

    def __init__(self, vectors: NDArray[Any], other: NDArray[Any] | None, settings: Settings) -> None:
        arrays = [check_vectors(vectors, "vectors")] + ([] if other is None else [check_vectors(other, "other")])
        if arrays[0].shape[1] != arrays[-1].shape[1]:
            raise ValueError(f"vectors have {arrays[0].shape[1]} dimensions, other has {arrays[-1].shape[1]}")
        from dedupkit.neighbors.cosine.overlap import make_plan
        from dedupkit.neighbors.cosine.sample import FEW, LEAST_SAMPLE, MOST_OF_FEW, take_sample
        from dedupkit.neighbors.cosine.tiles import Engine, Sets

        self.settings, self.floor, max_pairs = settings, float(np.float32(settings.floor)), settings.max_pairs
        dims = arrays[0].shape[1]
        products = len(arrays[0]) * len(arrays[-1]) / (1 if other is not None else 2)
        engine = Engine.choose(settings.device, products, dims, settings.floor)
        with threads(settings.workers):
            self.distinct = [collapse(array) for array in arrays]
            right = None if other is None else self.distinct[1].rows
            self.sets = Sets(engine, self.distinct[0].rows, right, settings.memory // (16 * dims))
            cells = settings.method == "cells" or (settings.method == "auto" and products > EXACT_PAIRS)
            need = 2 * max(1000.0, 10 / (1 - settings.target_recall)) if cells else 0
            rows = LEAST_SAMPLE if cells or (max_pairs is not None and products > max_pairs) else 0
            if max_pairs is not None and rows:  # at a floor that is far too low, a whole sample would not fit
                self.sample = take_sample(self.sets, self.floor, FEW, 0, settings.seed)
                if len(self.sample.i) > MOST_OF_FEW:
                    self._check_room(max_pairs)
            self.sample = take_sample(self.sets, self.floor, rows, need, settings.seed)
            if max_pairs is not None:
                self._check_room(max_pairs)
            self.plan = None
            if cells and len(self.sample.queries):
                target, seed = settings.target_recall, settings.seed
                self.plan = make_plan(self.sets, self.sample, target, seed, settings.overlap)
        recall = EXACT if self.plan is None else measured(self.plan.found, self.plan.i, len(self.sample.queries))
        self.facts = (recall, self.distinct[0].skipped, no_rows() if other is None else self.distinct[1].skipped)

    def pairs(self) -> ScoredPairs:
        """Run the join, and sort the pairs; ValueError where there are more than ``max_pairs``."""
        from dedupkit.neighbors.cosine.rows import Growing

        limit = self.settings.max_pairs
        columns = Growing(np.int64), Growing(np.int64), Growing(np.float32)
        for block in self.blocks():
            pieces: tuple[NDArray[Any], ...] = (block.a, block.b, block.score)
            for column, piece in zip(columns, pieces, strict=True):
                column.append(piece)
            if limit is not None and columns[0].size > limit:
                raise ValueError(f"more than {limit:,} pairs reach {self.settings.floor}: {self.advice()}")
        a, b, score = (column.filled() for column in columns)
        order = np.lexsort((b, a))
        return ScoredPairs(a[order], b[order], score[order], *self.facts)

    def weights(self) -> NDArray[np.float64]:
        """How many pairs of rows each sampled pair of distinct vectors stands for, float64 (p,)."""
        scale = len(self.sets.left) / max(1, len(self.sample.queries)) / (2 if self.sets.same else 1)
        return self.distinct[0].sizes[self.sample.i] * (self.distinct[-1].sizes[self.sample.j] * scale)

    def equal_pairs(self) -> float:
        """Number of pairs of equal rows within a set."""
        sizes = self.distinct[0].sizes.astype(np.float64)
        return float((sizes * (sizes - 1) / 2).sum()) if self.sets.same else 0.0

    def expected(self) -> float:
        """Estimate the number of pairs."""
        return float(self.weights().sum()) + self.equal_pairs()

    def _check_room(self, max_pairs: int) -> None:
        if self.expected() > max_pairs:
            raise ValueError(f"about {self.expected():,.0f} pairs reach {self.settings.floor}: {self.advice()}")

    def advice(self) -> str:
        """Propose a floor at which there should be half as many pairs as there is room for."""
        room = (self.settings.max_pairs or 0) / 2 - self.equal_pairs()
        if room <= 0:
            return f"equal rows alone make {self.equal_pairs():,.0f}; collapse them first, or give more memory"
        order = np.argsort(-self.sample.score)
        fits = int(np.searchsorted(np.cumsum(self.weights()[order]), room))
        score = 1.0 if fits == 0 or fits >= len(order) else float(self.sample.score[order[fits - 1]])
        return f"there is room for {self.settings.max_pairs:,}; try a floor of {min(1.0, ceil(score * 1000) / 1000)}"

    def blocks(self) -> Iterator[ScoredPairs]:
        """Run the join."""
        from dedupkit.neighbors.cosine.cells import join_cells
        from dedupkit.neighbors.cosine.tiles import join_tiles

        with threads(self.settings.workers):
            if self.plan is None:
                sets = self.sets
                found = join_tiles(sets.engine, sets.left, None, sets.right, None, self.floor, sets.keep_rows)
            else:
                found = join_cells(self.sets, self.plan, self.floor)
            for columns in batches(found):
                yield from self.expand(*columns)
            if self.sets.same:
                twins = np.flatnonzero(self.distinct[0].sizes > 1)
                yield from self.expand(twins, twins, np.ones(len(twins), np.float32))

    def expand(self, i: NDArray[np.int64], j: NDArray[np.int64], score: NDArray[np.float32]) -> Iterator[ScoredPairs]:
        """Turn pairs of distinct vectors into pairs of rows: all of the one kind with all of the other."""
        for columns in expanded(self.distinct[0], self.distinct[-1], self.sets.same, i, j, score):
            yield ScoredPairs(*columns, *self.facts)


def expanded(
    one: Distinct, two: Distinct, same: bool, i: NDArray[np.int64], j: NDArray[np.int64], score: NDArray[np.float32]
) -> Iterator[Columns]:
    """Turn pairs of distinct vectors into pairs of rows, in blocks; with ``same`` of one set, then a < b."""
    width = two.sizes[j]
    ends = np.cumsum(one.sizes[i] * width)
    for begin in range(0, int(ends[-1]) if len(ends) else 0, BLOCK_PAIRS):
        flat = np.arange(begin, min(int(ends[-1]), begin + BLOCK_PAIRS))
        pair = np.searchsorted(ends, flat, side="right")
        row, column = np.divmod(flat - (ends - one.sizes[i] * width)[pair], width[pair])
        a, b = one.members[one.starts[i[pair]] + row], two.members[two.starts[j[pair]] + column]
        scores = score[pair]
        if same:
            kept = (i[pair] != j[pair]) | (a < b)
            a, b, scores = np.minimum(a, b)[kept], np.maximum(a, b)[kept], scores[kept]
        yield a, b, scores


def batches(blocks: Iterable[Columns]) -> Iterator[Columns]:
    """Join small blocks, so that a reader is not handed thousands of them."""
    waiting: list[Columns] = []
    for block in blocks:
        waiting.append(block)
        if sum(len(columns[0]) for columns in waiting) >= BLOCK_PAIRS // 4 or len(waiting) >= 256:
            yield tuple(np.concatenate(column) for column in zip(*waiting, strict=True))  # type: ignore[misc]
            waiting = []
    if waiting:
        yield tuple(np.concatenate(column) for column in zip(*waiting, strict=True))  # type: ignore[misc]


@contextmanager
def threads(workers: int | None) -> Iterator[None]:
    """Let torch, if it is in use, have so many threads, and give it back its own number afterwards."""
    torch = sys.modules.get("torch")
    if workers is None or torch is None:
        yield
        return
    before = torch.get_num_threads()
    torch.set_num_threads(workers)
    try:
        yield
    finally:
        torch.set_num_threads(before)
