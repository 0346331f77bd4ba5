"""The join of sets of any length: exact where the smaller set is short, by MinHash-LSH where both are long.

The prefixes of long sets hold many tokens, and inverted lists lose their advantage; bands of a MinHash signature then
propose candidates, and each is compared token by token, so that what is lost is recall, never precision.

Source: Leskovec, Rajaraman and Ullman, "Mining of Massive Datasets", section 3.4; the number of bands is the one that
datasketch's own optimiser proposes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from dedupkit.neighbors.sets.join import MEMORY, SetPairs, Sets, iter_jaccard_pairs
from dedupkit.neighbors.sets.minhash import minhash_signatures

__all__ = ["LONG", "FoundPairs", "bands_for", "join_distinct", "join_sets", "long_sets", "lsh_pairs"]

LONG = 128
"""Tokens of the largest sets that are joined exactly by default."""

_PERMUTATIONS = 128


@dataclass(frozen=True, slots=True)
class FoundPairs(SetPairs):
    """Pairs of sets, and in words how they were found (``method``)."""

    method: str = "exact"


def join_sets(
    offsets: NDArray[np.integer],
    tokens: NDArray[np.integer],
    threshold: float,
    *,
    longest: int = LONG,
    workers: int | None = None,
    memory: int = MEMORY,
    seed: int = 1,
) -> FoundPairs:
    """Find the similar pairs of a collection of sets of any length.

    Args:
        offsets: (n + 1,) integers; set i holds ``tokens[offsets[i]:offsets[i + 1]]``.
        tokens: (t,) integers.
        threshold: least Jaccard similarity, in (0, 1].
        longest: a pair whose smaller set has at most so many tokens is found for certain.
        workers: number of threads, at least 1; by default one for each core that this process may use.
        memory: bytes for inverted lists.
        seed: Seed for the MinHash permutations.

    Returns:
        The pairs, as :func:`dedupkit.neighbors.jaccard_pairs` represents them, sorted by (a, b).

    Raises:
        ValueError: offsets that do not fit, a threshold out of range.
    """
    sets = Sets.of(offsets, tokens)
    found, method = join_distinct(sets, threshold, longest=longest, workers=workers, memory=memory, seed=seed)
    blocks = [sets.copies(), *found]
    a = np.concatenate([block.a for block in blocks])
    b = np.concatenate([block.b for block in blocks])
    score = np.concatenate([block.score for block in blocks])
    order = np.lexsort((b, a))
    return FoundPairs(a[order], b[order], score[order], method)


def join_distinct(
    sets: Sets,
    threshold: float,
    *,
    longest: int = LONG,
    workers: int | None = None,
    memory: int = MEMORY,
    seed: int = 1,
) -> tuple[Iterator[SetPairs], str]:
    """Find the similar pairs of distinct sets, in blocks by the first rows that hold them; arguments as `join_sets`.

    Returns:
        The blocks, each pair once, and in words how they are found.

    Raises:
        ValueError: a threshold out of range.
    """
    exact = iter_jaccard_pairs([sets], threshold, workers=workers, memory=memory, largest=longest)
    long, method = long_sets(sets, threshold, longest)
    if long is None:
        return exact, method
    return chain(exact, lsh_pairs(sets, long, threshold, seed=seed, workers=workers)), method


def long_sets(sets: Sets, threshold: float, longest: int = LONG) -> tuple[int | None, str]:
    """The number of the first set of more than ``longest`` tokens, or None; and in words how pairs are found."""
    long = int(np.searchsorted(np.diff(sets.starts), longest, side="right"))
    if long == len(sets.first):
        return None, "exact"
    bands, rows = bands_for(threshold, _PERMUTATIONS)
    method = f"exact up to {longest} tokens, MinHash-LSH above ({_PERMUTATIONS} permutations, {bands} bands of {rows})"
    return long, method


@lru_cache(maxsize=64)
def bands_for(threshold: float, num_perm: int) -> tuple[int, int]:
    """How many bands of how many values datasketch's optimiser proposes for a threshold."""
    from datasketch import MinHashLSH

    index = MinHashLSH(min(threshold, 0.95), num_perm)
    return int(index.b), int(index.r)


def lsh_pairs(
    sets: Sets, first: int, threshold: float, *, seed: int = 1, workers: int | None = None
) -> Iterator[SetPairs]:
    """Find similar pairs among the sets from ``first`` on by MinHash-LSH, each verified by its exact similarity.

    Args:
        sets: distinct sets in the order of size.
        first: number of the first set that takes part.
        threshold: least similarity.
        seed: Seed for the permutations.
        workers: number of threads, at least 1; by default one for each core that this process may use.
    """
    from dedupkit.neighbors.sets import lsh_kernels as kernels

    offsets = sets.starts[first:] - sets.starts[first]
    ranks = sets.tokens[sets.starts[first] :].astype(np.uint32)
    signatures = minhash_signatures(offsets, ranks, num_perm=_PERMUTATIONS, seed=seed, workers=workers)
    bands, width = bands_for(threshold, _PERMUTATIONS)
    candidates = np.zeros(0, np.int64)
    for band in range(bands):
        keys = np.zeros(len(signatures), np.uint64)
        kernels.row_keys(np.ascontiguousarray(signatures[:, band * width : (band + 1) * width]), keys)
        candidates = np.union1d(candidates, _pairs_in_buckets(keys))
    one, other = np.divmod(candidates, len(signatures))
    one, other = one + first, other + first
    common = np.empty(len(one), np.int64)
    kernels.common_tokens(sets.starts, sets.tokens, one, other, common)
    sizes = np.diff(sets.starts)
    similarity = common / (sizes[one] + sizes[other] - common)
    held = similarity >= threshold
    a, b = sets.first[one[held]], sets.first[other[held]]
    yield SetPairs(np.minimum(a, b), np.maximum(a, b), similarity[held].astype(np.float32))


def _pairs_in_buckets(keys: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Pairs of rows with equal keys, as ``a * n + b`` with a < b."""
    order = np.argsort(keys, kind="stable")
    _, starts, sizes = np.unique(keys[order], return_index=True, return_counts=True)
    found = [np.zeros(0, np.int64)]
    for size in np.unique(sizes[sizes > 1]).tolist():
        members = order[starts[sizes == size][:, None] + np.arange(size)]
        left, right = np.triu_indices(size, 1)
        found.append((members[:, left] * len(keys) + members[:, right]).ravel())
    return np.concatenate(found)
