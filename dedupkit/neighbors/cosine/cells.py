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

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from dedupkit.neighbors.cosine.recall import wilson
from dedupkit.neighbors.cosine.tiles import Engine, Floats, Growing, Ints, Rows, join_tiles

Cells = NDArray[np.int32]

CAPS = np.array([1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64])
CELLS_PER_ROOT = 4.0  # cells for n vectors: this times the root of n
TRAIN_PER_CELL, TRAIN_ROUNDS = 32, 3
GATHER = 500.0  # what fetching a row for a cell costs, in pairs
COST_ROWS = 16384  # rows that the cost of an overlap is estimated from
MOST_PAIRS = 50_000  # of the sample, to choose by
WORTHWHILE = 0.5  # of the exact tiles' work
CAUTION = 1.0  # standard errors by which the choosing half must exceed the target


class Sample(NamedTuple):
    """The true pairs of some random vectors of the first set; positions are int64, scores float32."""

    queries: Ints
    i: Ints
    j: Ints
    score: Floats


class Overlap(NamedTuple):
    """How many cells a vector may belong to, and how far below the best cosine their centres may be."""

    cap: int
    margin: float


class Lists(NamedTuple):
    """The cells of every vector: cells[starts[i]:starts[i + 1]], ascending; int64 (n + 1,) and int32 (m,)."""

    starts: Ints
    cells: Cells


class Plan(NamedTuple):
    """Centres, float32 (k, d), the overlap, and of the measuring half of the sample the pairs and which are found."""

    centres: Floats
    overlap: Overlap
    i: Ints
    found: NDArray[np.bool_]


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


@njit(cache=True, nogil=True)
def needed_margins(cells: Cells, gaps: Floats, i: Ints, j: Ints, caps: Ints, out: Floats) -> None:
    """Write the least margin at which each pair shares a cell, for every cap, to out, float32 (p, caps).

    cells int32 and gaps float32 (n, cap) are the nearest cells of the vectors, nearest first, and how far their
    cosine is below the nearest's; i and j are rows of them.
    """
    out[:] = np.inf
    for p in range(len(i)):
        for s in range(cells.shape[1]):
            for t in range(cells.shape[1]):
                if cells[i[p], s] == cells[j[p], t]:
                    margin = max(gaps[i[p], s], gaps[j[p], t])
                    for c in range(len(caps)):
                        if max(s, t) < caps[c] and margin < out[p, c]:
                            out[p, c] = margin


@njit(cache=True, nogil=True)
def add_rows(x: Floats, to: Ints, sums: Floats) -> None:
    """Add each row of x, float32 (m, d), to the row of sums, float32 (k, d), that `to` names."""
    for row in range(len(x)):
        for c in range(x.shape[1]):
            sums[to[row], c] += x[row, c]


def make_plan(
    engine: Engine,
    left: Rows,
    right: Rows | None,
    sample: Sample,
    target: float,
    keep_rows: int,
    seed: int,
    fixed: Overlap | None = None,
) -> Plan | None:
    """Choose cells and overlap with the least work that reach the target, or None if exact search is as cheap."""
    sample = thin(sample)
    rows = len(left) + (0 if right is None else len(right))
    for shrink in (1, 4, 16):
        count = int(CELLS_PER_ROOT / shrink * rows**0.5)
        if count < 2:
            break
        centres, others = train(engine, left, right, count, keep_rows, seed)
        plan = choose_overlap(engine, left, right, centres, others, sample, target, fixed)
        if plan is not None:
            return plan
    return None


def thin(sample: Sample) -> Sample:
    """Leave out queries until about `MOST_PAIRS` pairs remain; two queries always do."""
    counts = np.bincount(sample.i, minlength=sample.queries.max() + 1)[sample.queries]
    kept = max(2, int(np.searchsorted(np.cumsum(counts), MOST_PAIRS)))
    inside = np.isin(sample.i, sample.queries[:kept])
    return Sample(sample.queries[:kept], sample.i[inside], sample.j[inside], sample.score[inside])


def train(
    engine: Engine, left: Rows, right: Rows | None, count: int, keep_rows: int, seed: int
) -> tuple[Floats, Floats]:
    """Run spherical k-means (Dhillon and Modha, Machine Learning 42, 2001, section 3) on a sample of both sets.

    It multiplies as the tiles do, on the same device: a fifth of the time that `faiss.Kmeans` takes beside torch.

    Returns:
        Unit centres, float32 (count, d), and other random rows, float32 (s, d), to estimate the cost with: training
        rows would not do, because k-means has moved its centres to them.
    """
    rng = np.random.default_rng([seed, 1])
    sides = [left] if right is None else [left, right]
    total = sum(map(len, sides))
    apart = min(COST_ROWS, total // 4)
    wanted = min(total, apart + max(4 * count, min(keep_rows, TRAIN_PER_CELL * count)))
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


def choose_overlap(
    engine: Engine,
    left: Rows,
    right: Rows | None,
    centres: Floats,
    others: Floats,
    sample: Sample,
    target: float,
    fixed: Overlap | None,
) -> Plan | None:
    """Find the cheapest overlap that reaches the target, or None if none is worthwhile; see the module."""
    other = left if right is None else right
    caps = CAPS[len(centres) >= CAPS] if fixed is None else np.array([min(fixed.cap, len(centres))])
    left_at, i = np.unique(sample.i, return_inverse=True)
    right_at, j = np.unique(sample.j, return_inverse=True)
    near = [
        nearest(engine, left.take(left_at), centres, caps[-1]),
        nearest(engine, other.take(right_at), centres, caps[-1]),
    ]
    cells, gaps = (np.concatenate(parts) for parts in zip(*near, strict=True))
    margins = np.empty((len(i), len(caps)), np.float32)
    needed_margins(cells, gaps, i, j + len(left_at), caps, margins)

    choosing = np.isin(sample.i, sample.queries[::2])
    measuring = sample.i[~choosing]
    exact = len(left) * len(other) / (2 if right is None else 1)
    seen, seen_gaps = nearest(engine, others, centres, caps[-1])
    choices = []
    for c, cap in enumerate(caps):
        for margin in candidates(margins[choosing, c], target):
            overlap = Overlap(int(cap), margin)
            choices.append(
                (work(seen, seen_gaps, overlap, len(centres), len(left), len(other), right is None), overlap)
            )
    if fixed is not None:
        choices = [(0.0, fixed)]
    for cost, overlap in sorted(choices):
        if cost > WORTHWHILE * exact:
            break
        found = margins[~choosing, min(int(np.searchsorted(caps, overlap.cap)), len(caps) - 1)] <= overlap.margin
        if fixed is not None or found.sum() >= target * len(found):
            return Plan(centres, overlap, measuring, found)
    return None


def candidates(margins: Floats, target: float) -> Iterator[float]:
    """Margins worth a try: what reaches the target by `CAUTION` standard errors, and two wider ones.

    Args:
        margins: float32 (p,), what each pair needs.
        target: share of the pairs.
    """
    if len(margins) == 0:
        yield 0.1  # nothing to learn from: about three cells in practice
        return
    ordered = np.sort(margins)
    counts = np.arange(1, len(ordered) + 1)
    low, _ = wilson(counts / len(ordered), len(ordered), CAUTION)
    at = min(int(np.searchsorted(low, target)), len(ordered) - 1)
    for index in {at, (at + len(ordered) - 1) // 2, len(ordered) - 1}:
        if np.isfinite(ordered[index]):
            yield float(ordered[index]) + 1e-4


def work(cells: Cells, gaps: Floats, overlap: Overlap, count: int, left: int, right: int, same: bool) -> float:
    """Estimate what the cells cost, in pairs, from the nearest cells of random vectors, int32 and float32 (s, cap)."""
    inside = gaps[:, : overlap.cap] <= overlap.margin
    sizes = np.bincount(cells[:, : overlap.cap][inside], minlength=count).astype(np.float64)
    sampled = max(1, len(cells))
    # Without the vectors themselves, who are in all their cells, this is unbiased.
    meeting = ((sizes**2).sum() - sizes.sum()) / max(1, sampled * (sampled - 1))
    fetched = (left if same else left + right) * sizes.sum() / sampled
    return float(meeting * left * right / (2 if same else 1) + GATHER * fetched)


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


def join_cells(
    engine: Engine, left: Rows, right: Rows | None, plan: Plan, floor: float, keep_rows: int
) -> Iterator[tuple[Ints, Ints, Floats]]:
    """Yield all pairs that share a cell and reach the floor, each once, one cell after the other; as `join_tiles`."""
    sides: Sequence[Rows] = [left] if right is None else [left, right]
    lists = [assign(engine, side, plan) for side in sides]
    turned = [members(side, len(plan.centres)) for side in lists]
    for cell in range(len(plan.centres)):
        inside = [owner[starts[cell] : starts[cell + 1]] for starts, owner in turned]
        if any(len(positions) == 0 for positions in inside):
            continue
        to = None if right is None else inside[1]
        for i, j, score in join_tiles(engine, left, inside[0], right, to, floor, keep_rows):
            shared = np.empty(len(i), np.int64)
            first_shared(*lists[0], *lists[-1], i, j, shared)
            mine = shared == cell
            if mine.any():
                yield i[mine], j[mine], score[mine]
