"""Near-duplicate captions: equal after folding, or similar in the words that they consist of."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dedupkit.captions.folding import Folding
from dedupkit.captions.tokens import tokenize
from dedupkit.neighbors.sets.join import MEMORY
from dedupkit.neighbors.sets.lsh import LONG, join_sets

__all__ = ["CaptionPairs", "caption_pairs"]


@dataclass(frozen=True, slots=True)
class CaptionPairs:
    """Pairs of captions with their similarity.

    Attributes:
        a: (p,) int64, row of one caption, the first with its words.
        b: (p,) int64, row of the other; a < b.
        score: (p,) float32, Jaccard similarity of their word sets.
        folding: steps that were applied before captions were compared.
        method: how the pairs were found.
    """

    a: NDArray[np.int64]
    b: NDArray[np.int64]
    score: NDArray[np.float32]
    folding: str
    method: str

    def __len__(self) -> int:
        return len(self.a)


def caption_pairs(
    texts: Iterable[str | None],
    threshold: float,
    *,
    folding: Folding | None = None,
    ngram: int = 2,
    longest: int = LONG,
    workers: int | None = None,
    memory: int = MEMORY,
    seed: int = 1,
) -> CaptionPairs:
    """Find the pairs of captions whose word sets have a Jaccard similarity of at least ``threshold``.

    Captions with the same words are represented by the first of them: a later one is paired with that first row alone
    (score 1), and similar captions are paired by their first rows. An empty or missing caption is similar to none.

    Args:
        texts: n captions.
        threshold: least similarity, in (0, 1].
        folding: steps applied before captions are compared (:class:`Folding`); all by default.
        ngram: characters of an n-gram in scripts that write no spaces.
        longest: words of the longest captions that are joined exactly; pairs of longer ones are found by MinHash-LSH
            and verified.
        workers: number of threads, at least 1; by default one for each core that this process may use. The result does
            not depend on it.
        memory: bytes for inverted lists.
        seed: Seed for the MinHash permutations.

    Returns:
        The pairs, sorted by (a, b).

    Raises:
        ValueError: a threshold out of range.

    Example:
        >>> pairs = caption_pairs(["A red fox", "a red  fox", "a red fox jumps", "blue"], 0.7)
        >>> list(zip(pairs.a.tolist(), pairs.b.tolist(), pairs.score.tolist()))
        [(0, 1, 1.0), (0, 2, 0.75)]
    """
    folding = folding or Folding()
    offsets, tokens, _ = tokenize(texts, folding, ngram=ngram)
    found = join_sets(offsets, tokens, threshold, longest=longest, workers=workers, memory=memory, seed=seed)
    return CaptionPairs(found.a, found.b, found.score, str(folding), found.method)
