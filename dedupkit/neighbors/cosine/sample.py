"""True pairs by which recall is measured: those of a random sample of vectors, found by exact search, or known ones."""

from __future__ import annotations

from math import ceil
from typing import NamedTuple

import numpy as np

from dedupkit.neighbors.cosine.normalise import unit_or_zero_rows
from dedupkit.neighbors.cosine.pairs import NO_PAIRS, KnownPairs
from dedupkit.neighbors.cosine.rows import Floats, Ints
from dedupkit.neighbors.cosine.tiles import Sets, join_tiles

__all__ = ["FEW", "LEAST_KNOWN", "LEAST_SAMPLE", "MOST_OF_FEW", "Sample", "known_sample", "take_sample", "thin"]

SAMPLE_SHARE, LEAST_SAMPLE = 1 / 200, 1024  # of the rows, for measuring recall
MOST_PAIRS = 50_000  # of the sample, to choose by
FEW, MOST_OF_FEW = 16, 1 << 20
"""Rows by which a floor that is far too low is noticed, and the pairs that they have then: the least sample would have
more than a gigabyte of them."""


LEAST_KNOWN = 400
"""Known pairs above the floor by which cells are chosen, at least."""


class Sample(NamedTuple):
    """The true pairs of some random vectors of the first set; positions are int64, scores float32.

    Attributes:
        queries: Positions of these vectors, in random order.
        i, j: Positions of the pairs in the first and in the other set.
        score: Their cosines.
        known: The unit vectors that all positions refer to in place of the sets, float32.
    """

    queries: Ints
    i: Ints
    j: Ints
    score: Floats
    known: tuple[Floats, Floats] | None = None


def take_sample(sets: Sets, floor: float, rows: int, need: float, seed: int) -> Sample:
    """Find the true pairs of random vectors: of some, then of more, until there are enough or no budget.

    Args:
        sets: What is joined.
        floor: Least cosine of a true pair.
        rows: Number of vectors to begin with.
        need: Number of pairs that are enough.
        seed: Seed for the choice of vectors.
    """
    left, other = sets.left, sets.other
    order = np.random.default_rng([seed, 0]).permutation(len(left))
    most = min(len(order), max(LEAST_SAMPLE, int(SAMPLE_SHARE * len(order))))
    begin, end, parts, found = 0, min(most, rows), [NO_PAIRS], 0
    while begin < end and len(other):
        for i, j, score in join_tiles(sets.engine, left, np.sort(order[begin:end]), other, None, floor, sets.keep_rows):
            apart = np.ones(len(i), bool) if sets.right is not None else i != j
            parts.append((i[apart], j[apart], score[apart]))
            found += int(apart.sum())
        growth = min(4.0, 1.1 * need / max(1, found))
        begin, end = end, (min(most, ceil(growth * end)) if found < need else end)
    i, j, score = (np.concatenate(column) for column in zip(*parts, strict=True))
    return Sample(order[:end], i, j, score)


def known_sample(pairs: KnownPairs, floor: float, seed: int) -> Sample:
    """Known pairs as a sample: those that reach a floor."""
    left, right = unit_or_zero_rows(pairs.left), unit_or_zero_rows(pairs.right)
    score = np.einsum("ij,ij->i", left[pairs.of], right)
    j = np.flatnonzero(score >= np.float32(floor))
    i = pairs.of[j]
    queries = np.random.default_rng([seed, 0]).permutation(np.unique(i))
    return Sample(queries, i, j, score[j], (left, right))


def thin(sample: Sample) -> Sample:
    """Leave out queries until about `MOST_PAIRS` pairs remain; two queries always do."""
    counts = np.bincount(sample.i, minlength=sample.queries.max() + 1)[sample.queries]
    kept = max(2, int(np.searchsorted(np.cumsum(counts), MOST_PAIRS)))
    inside = np.isin(sample.i, sample.queries[:kept])
    columns = (sample.i[inside], sample.j[inside], sample.score[inside])
    return Sample(sample.queries[:kept], *columns, sample.known)
