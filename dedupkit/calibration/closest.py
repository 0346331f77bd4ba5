"""The closest of all pairs of some images: what the tail of false matches is fitted to."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dedupkit.calibration.tail import Closest
from dedupkit.signals.impostors import PairScorer

__all__ = ["closest_pairs", "rows_for"]

Columns = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]

_MOST_ROWS = 6_400  # 20 million pairs
_MOST_WORK = 4e10  # multiply-adds, some seconds of one core
_BLOCK = 512
_SHARE, _LEAST, _MOST = 0.002, 500, 20_000  # of the pairs, those that are kept


def rows_for(pair_work: float) -> int:
    """How many images can be paired in a few seconds: n * n / 2 pairs, each of so many multiply-adds."""
    return int(min(_MOST_ROWS, (2 * _MOST_WORK / pair_work) ** 0.5))


def closest_pairs(
    scorer: PairScorer, groups: NDArray[np.integer], *, whole: bool = False, least: float = -np.inf
) -> Closest:
    """Score all pairs of images of different groups and keep the closest 0.2 %, 500 at least, 20,000 at most.

    Args:
        scorer: Scores of all pairs, block by block.
        groups: (n,) integers; pairs of one group are no impostor pairs.
        whole: Whether scores are whole numbers.
        least: Pairs that score less are none of the closest, however few others there are.

    Returns:
        The closest pairs. Work: n * n / 2 products; memory: a block of n * 512 floats.
    """
    count = len(groups)
    sizes = np.unique(groups, return_counts=True)[1]
    pairs = count * (count - 1) // 2 - int((sizes * (sizes - 1) // 2).sum())
    most = min(_MOST, max(_LEAST, int(_SHARE * pairs)))
    found: list[Columns] = [(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0))]
    waiting, start = 0, least
    for top in range(0, count, _BLOCK):
        score = scorer.block(top, min(top + _BLOCK, count))
        left, right = np.nonzero(score >= start)
        ordered = (left < right) & (groups[left + top] != groups[right + top])
        left, right = left[ordered], right[ordered]
        found.append((left + top, right + top, score[left, right].astype(np.float64)))
        waiting += len(left)
        if waiting > 4 * most:
            found, start = _cut(found, most)
            waiting = len(found[0][2])
    found, start = _cut(found, most)
    i, j, kept = found[0]
    return Closest(i, j, kept, start, count, pairs, whole)


def _cut(found: list[Columns], most: int) -> tuple[list[Columns], float]:
    """Keep so many of the closest pairs, and all that tie with the last of them."""
    i, j, score = (np.concatenate(column) for column in zip(*found, strict=True))
    if not len(score):
        return [(i, j, score)], 0.0
    start = (
        float(np.partition(score, len(score) - most)[len(score) - most]) if len(score) > most else float(score.min())
    )
    kept = score >= start
    return [(i[kept], j[kept], score[kept])], start
