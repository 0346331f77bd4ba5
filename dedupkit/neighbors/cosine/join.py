"""Cosine join: every pair of vectors at or above a floor, exactly or by overlapping cells with a measured recall.

Rows that are equal byte for byte are collapsed first and written out again at the end, so a picture with a thousand
copies is one vector in the search. What is left is searched by exact tiles (`tiles`) or in k-means cells
(`cells`). Both read rows as they need them: a memmap will do, and what is held besides is about 80 bytes a row,
plus 28 bytes for every cell that a row is in, plus blocks within `memory`.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import ceil
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dedupkit.neighbors.cosine.recall import EXACT, Recall, measured

if TYPE_CHECKING:
    from dedupkit.neighbors.cosine.cells import Overlap, Sample
    from dedupkit.neighbors.cosine.tiles import Engine, Rows

__all__ = ["Recall", "ScoredPairs", "cosine_pairs", "iter_cosine_pairs"]

METHODS = ("auto", "exact", "cells")
MEMORY = 2 * 2**30
PAIR_BYTES = 64  # a pair takes 20 bytes, and sorting needs copies
BLOCK_PAIRS = 1 << 20
SCAN_BYTES = 2**24
EXACT_PAIRS = 2e9  # up to here `auto` is exact: seconds
SAMPLE_SHARE, LEAST_SAMPLE = 1 / 200, 1024  # of the rows, for measuring recall
SHORTEST, LONGEST = 1e-37, 1e37  # lengths whose inverse float32 can hold


def no_rows() -> NDArray[np.int64]:
    """Return an empty list of rows."""
    return np.empty(0, np.int64)


@dataclass(frozen=True, slots=True)
class ScoredPairs:
    """Pairs of rows with their cosine.

    Attributes:
        a: int64 (m,), row in the first set.
        b: int64 (m,), row in the second set; a < b where a set was joined with itself.
        score: float32 (m,), cosine, at or above the floor.
        recall: share of all such pairs that was found.
        skipped: int64, rows of the first set that are zero or not finite, and match nothing.
        skipped_other: int64, those of the second set.
    """

    a: NDArray[np.int64]
    b: NDArray[np.int64]
    score: NDArray[np.float32]
    recall: Recall = EXACT
    skipped: NDArray[np.int64] = field(default_factory=no_rows)
    skipped_other: NDArray[np.int64] = field(default_factory=no_rows)

    def __len__(self) -> int:
        return len(self.a)


class Distinct(NamedTuple):
    """A set of vectors with equal rows collapsed.

    Attributes:
        rows: the distinct vectors, each the first of its kind.
        starts: int64 (u + 1,), where in `members` the rows equal to each begin.
        members: int64, all usable rows by distinct vector.
        skipped: int64, the others.
    """

    rows: Rows
    starts: NDArray[np.int64]
    members: NDArray[np.int64]
    skipped: NDArray[np.int64]

    @property
    def sizes(self) -> NDArray[np.int64]:
        """How often each distinct vector occurs, int64 (u,)."""
        return np.diff(self.starts)


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
    _overlap: Overlap | None = None,
) -> ScoredPairs:
    """Find the pairs of vectors whose cosine is at least `floor`.

    Args:
        vectors: (n, d) float16 or float32, of any length; a memmap is read in blocks.
        floor: least cosine, in (-1, 1].
        other: (k, d) to join with; without it, `vectors` is joined with itself.
        method: "exact", "cells", or "auto": exact where that takes seconds.
        target_recall: for cells: share of the pairs to find, in (0, 1).
        memory: bytes for blocks, and for the result; not counting the vectors.
        device: "cpu" or a CUDA device of torch; by default CUDA where there is one.
        seed: of the sample and of k-means.
        workers: threads of torch; by default its own setting. Without torch, NumPy's setting counts.
        _overlap: for tests and comparisons: use this instead of choosing one.

    Returns:
        The pairs, sorted by (a, b), with the measured recall.

    Raises:
        ValueError: an array of another shape or type, two dimensions, a number out of range, or more pairs than
            `memory` holds: then the message proposes a floor.
        MissingExtraError: a device was named, and torch is not installed.
    """
    from dedupkit.neighbors.cosine.tiles import Growing

    limit = memory // PAIR_BYTES
    join = Join(vectors, floor, other, method, target_recall, memory, device, seed, workers, limit, _overlap)
    columns = Growing(np.int64), Growing(np.int64), Growing(np.float32)
    for block in join.blocks():
        pieces: tuple[NDArray[Any], ...] = (block.a, block.b, block.score)
        for column, piece in zip(columns, pieces, strict=True):
            column.append(piece)
        if columns[0].size > limit:
            raise ValueError(f"more than {limit:,} pairs reach {floor}: {join.advice()}")
    a, b, score = (column.filled() for column in columns)
    order = np.lexsort((b, a))
    return ScoredPairs(a[order], b[order], score[order], *join.facts)


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
    _overlap: Overlap | None = None,
) -> Iterator[ScoredPairs]:
    """As `cosine_pairs`, but in blocks: in no order, each pair once, at most about a million a block.

    Arguments are checked and recall is measured before this returns. `max_pairs` is what the reader has room for; if
    a sample says that there are more, ValueError proposes a floor.
    """
    return Join(
        vectors, floor, other, method, target_recall, memory, device, seed, workers, max_pairs, _overlap
    ).blocks()


class Join:
    """A join that is checked and planned, and can be run; arguments as in `iter_cosine_pairs`."""

    def __init__(
        self,
        vectors: NDArray[Any],
        floor: float,
        other: NDArray[Any] | None,
        method: str,
        target: float,
        memory: int,
        device: str | None,
        seed: int,
        workers: int | None,
        max_pairs: int | None,
        overlap: Overlap | None,
    ) -> None:
        arrays = [check_vectors(vectors, "vectors")] + ([] if other is None else [check_vectors(other, "other")])
        if arrays[0].shape[1] != arrays[-1].shape[1]:
            raise ValueError(f"vectors have {arrays[0].shape[1]} dimensions, other has {arrays[-1].shape[1]}")
        if not -1 < floor <= 1:
            raise ValueError(f"floor must be a cosine in (-1, 1], not {floor}")
        if method not in METHODS or not 0 < target < 1:
            raise ValueError(f"method must be one of {METHODS}, not {method!r}; target_recall in (0, 1), not {target}")
        if memory < 1 or (workers is not None and workers < 1):
            raise ValueError(f"memory ({memory} bytes) and workers ({workers}) must be at least 1")
        from dedupkit.neighbors.cosine.cells import make_plan
        from dedupkit.neighbors.cosine.tiles import Engine

        self.floor, self.workers, self.max_pairs = float(np.float32(floor)), workers, max_pairs
        dims = arrays[0].shape[1]
        products = len(arrays[0]) * len(arrays[-1]) / (1 if other is not None else 2)
        self.engine = Engine.choose(device, products, dims, floor)
        self.keep_rows = memory // (16 * dims)
        with threads(workers):
            self.sets = [collapse(array) for array in arrays]
            self.left, self.right = self.sets[0].rows, None if other is None else self.sets[1].rows
            cells = method == "cells" or (method == "auto" and products > EXACT_PAIRS)
            need = 2 * max(1000.0, 10 / (1 - target)) if cells else 0
            rows = LEAST_SAMPLE if cells or (max_pairs is not None and products > max_pairs) else 0
            self.sample = take_sample(self.engine, self.left, self.right, self.floor, rows, need, self.keep_rows, seed)
            if max_pairs is not None and self.expected() > max_pairs:
                raise ValueError(f"about {self.expected():,.0f} pairs reach {floor}: {self.advice()}")
            arguments = (self.engine, self.left, self.right, self.sample, target, self.keep_rows, seed, overlap)
            self.plan = make_plan(*arguments) if cells and len(self.sample.queries) else None
        recall = EXACT if self.plan is None else measured(self.plan.found, self.plan.i, len(self.sample.queries))
        self.facts = (recall, self.sets[0].skipped, self.sets[1].skipped if other is not None else no_rows())

    def weights(self) -> NDArray[np.float64]:
        """How many pairs of rows each sampled pair of distinct vectors stands for, float64 (p,)."""
        scale = len(self.left) / max(1, len(self.sample.queries)) / (2 if self.right is None else 1)
        return self.sets[0].sizes[self.sample.i] * (self.sets[-1].sizes[self.sample.j] * scale)

    def equal_pairs(self) -> float:
        """Number of pairs of equal rows within a set."""
        sizes = self.sets[0].sizes.astype(np.float64)
        return float((sizes * (sizes - 1) / 2).sum()) if self.right is None else 0.0

    def expected(self) -> float:
        """Estimate the number of pairs."""
        return float(self.weights().sum()) + self.equal_pairs()

    def advice(self) -> str:
        """Propose a floor at which there should be half as many pairs as there is room for."""
        room = (self.max_pairs or 0) / 2 - self.equal_pairs()
        if room <= 0:
            return f"equal rows alone make {self.equal_pairs():,.0f}; collapse them first, or give more memory"
        order = np.argsort(-self.sample.score)
        fits = int(np.searchsorted(np.cumsum(self.weights()[order]), room))
        score = 1.0 if fits == 0 or fits >= len(order) else float(self.sample.score[order[fits - 1]])
        return f"there is room for {self.max_pairs:,}; try a floor of {min(1.0, ceil(score * 1000) / 1000)}"

    def blocks(self) -> Iterator[ScoredPairs]:
        """Run the join."""
        from dedupkit.neighbors.cosine.cells import join_cells
        from dedupkit.neighbors.cosine.tiles import join_tiles

        with threads(self.workers):
            if self.plan is None:
                found = join_tiles(self.engine, self.left, None, self.right, None, self.floor, self.keep_rows)
            else:
                found = join_cells(self.engine, self.left, self.right, self.plan, self.floor, self.keep_rows)
            for columns in batches(found):
                yield from self.expand(*columns)
            if self.right is None:
                twins = np.flatnonzero(self.sets[0].sizes > 1)
                yield from self.expand(twins, twins, np.ones(len(twins), np.float32))

    def expand(self, i: NDArray[np.int64], j: NDArray[np.int64], score: NDArray[np.float32]) -> Iterator[ScoredPairs]:
        """Turn pairs of distinct vectors into pairs of rows: all of the one kind with all of the other."""
        one, two = self.sets[0], self.sets[-1]
        width = two.sizes[j]
        ends = np.cumsum(one.sizes[i] * width)
        for begin in range(0, int(ends[-1]) if len(ends) else 0, BLOCK_PAIRS):
            flat = np.arange(begin, min(int(ends[-1]), begin + BLOCK_PAIRS))
            pair = np.searchsorted(ends, flat, side="right")
            row, column = np.divmod(flat - (ends - one.sizes[i] * width)[pair], width[pair])
            a, b = one.members[one.starts[i[pair]] + row], two.members[two.starts[j[pair]] + column]
            scores = score[pair]
            if self.right is None:
                kept = (i[pair] != j[pair]) | (a < b)
                a, b, scores = np.minimum(a, b)[kept], np.maximum(a, b)[kept], scores[kept]
            yield ScoredPairs(a, b, scores, *self.facts)


NO_PAIRS = (no_rows(), no_rows(), np.empty(0, np.float32))
Columns = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]


def check_vectors(array: Any, name: str) -> NDArray[Any]:
    """Return the array, which stays on disk if it is a memmap; ValueError unless it is float16 or float32 (n, d)."""
    checked: NDArray[Any] = np.asanyarray(array)
    if checked.ndim != 2 or checked.shape[1] == 0 or checked.dtype not in (np.float16, np.float32):
        raise ValueError(f"{name} must be float16 or float32 of shape (n, d), not {checked.dtype} {checked.shape}")
    return checked


def collapse(array: NDArray[Any]) -> Distinct:
    """Measure the rows and find equal ones: by a 64-bit multilinear hash of their bytes, then by comparing."""
    from dedupkit.neighbors.cosine.tiles import Rows

    rows, dims = array.shape
    words = -(-dims * array.itemsize // 8)
    factors = np.random.default_rng(0).integers(0, 2**63, words, dtype=np.uint64) * np.uint64(2) + np.uint64(1)
    length, hashes = np.empty(rows, np.float64), np.empty(rows, np.uint64)
    step = max(1, SCAN_BYTES // (4 * dims))
    for at in range(0, rows, step):
        block = np.ascontiguousarray(array[at : at + step])
        values = block.astype(np.float32)
        with np.errstate(over="ignore", invalid="ignore"):
            square = np.einsum("ij,ij->i", values, values)
            odd = ~((square > 1e-30) & (square < np.inf))  # too small or large to be squared as float32
            length[at : at + step] = np.sqrt(square)
            length[at : at + step][odd] = np.linalg.norm(values[odd].astype(np.float64), axis=1)
        padded = np.zeros((len(block), words * 8), np.uint8)
        padded[:, : dims * array.itemsize] = block.view(np.uint8)
        hashes[at : at + step] = padded.view(np.uint64) @ factors
    usable = (length > SHORTEST) & (length < LONGEST)
    ids = np.flatnonzero(usable)
    order = ids[np.argsort(hashes[ids], kind="stable")]
    fresh = np.ones(len(order), bool)
    fresh[1:] = hashes[order[1:]] != hashes[order[:-1]]
    first = order[np.maximum.accumulate(np.where(fresh, np.arange(len(order)), 0))]
    for at in range(0, len(order), step):  # rows whose hashes collide stay apart
        part = np.arange(at, min(len(order), at + step))
        part = part[~fresh[part]]
        first[part] = np.where((array[order[part]] == array[first[part]]).all(axis=1), first[part], order[part])
    by_first = np.lexsort((order, first))
    distinct, starts = np.unique(first[by_first], return_index=True)
    scale = (1 / length[distinct]).astype(np.float32)
    return Distinct(
        Rows(array, distinct, scale), np.append(starts, len(order)), order[by_first], np.flatnonzero(~usable)
    )


def take_sample(
    engine: Engine, left: Rows, right: Rows | None, floor: float, rows: int, need: float, keep_rows: int, seed: int
) -> Sample:
    """Find the true pairs of random vectors: of some, then of more, until there are `need` pairs or no budget."""
    from dedupkit.neighbors.cosine.cells import Sample
    from dedupkit.neighbors.cosine.tiles import join_tiles

    other = left if right is None else right
    order = np.random.default_rng([seed, 0]).permutation(len(left))
    most = min(len(order), max(LEAST_SAMPLE, int(SAMPLE_SHARE * len(order))))
    begin, end, parts, found = 0, min(most, rows), [NO_PAIRS], 0
    while begin < end and len(other):
        for i, j, score in join_tiles(engine, left, np.sort(order[begin:end]), other, None, floor, keep_rows):
            apart = np.ones(len(i), bool) if right is not None else i != j
            parts.append((i[apart], j[apart], score[apart]))
            found += int(apart.sum())
        growth = min(4.0, 1.1 * need / max(1, found))
        begin, end = end, (min(most, ceil(growth * end)) if found < need else end)
    i, j, score = (np.concatenate(column) for column in zip(*parts, strict=True))
    return Sample(order[:end], i, j, score)


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
