"""Bands of score: which pairs a person is shown, and the precision that the answers amount to.

A sample over all found pairs would be nearly all pairs of distance 0. So each stratum of scores gives the same number
of pairs, and the estimate weighs a stratum by the pairs that it holds (stratified sampling; Cochran, "Sampling
Techniques", 3rd ed. 1977, chapter 5). A pair's turn is a hash of its two samples: the first k of a stratum are a random
sample of it, more of them are a larger one that contains it, and none of that depends on how the pairs were found.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dedupkit.neighbors.cosine.recall import wilson

__all__ = ["Estimate", "Stratum", "draw", "interval", "stratum_of", "weighted"]

_Z = 1.96


@dataclass(frozen=True, slots=True)
class Estimate:
    """A share with its 95 % interval, and what it rests on."""

    share: float
    low: float
    high: float
    count: float


@dataclass(frozen=True, slots=True)
class Stratum:
    """A stratum of score and what was answered about its pairs.

    Attributes:
        strict: Closer end, exclusive except at identity.
        threshold: Looser end, inclusive.
        pairs: Number of pairs that the run has found there.
        same: Number of answers that say the two are the same image.
        different: Number of answers that say they are not.
    """

    strict: float
    threshold: float
    pairs: int
    same: int = 0
    different: int = 0

    @property
    def precision(self) -> Estimate:
        """The share of the answers that say "same", with its Wilson interval."""
        return interval(self.same, self.same + self.different)


def interval(found: float, count: float) -> Estimate:
    """A share and its 95 % Wilson interval (Wilson, JASA 22, 1927); NaN in [0, 1] without observations."""
    share = found / count if count else float("nan")
    low, high = wilson(share, count, _Z)
    return Estimate(share, float(low), float(high), count)


def weighted(strata: Sequence[Stratum]) -> Estimate | None:
    """Precision over several strata, each weighed by its pairs.

    The interval is Wilson's for a simple random sample that would be as exact: 1 / sum(w**2 / n) answers, with w the
    share of the pairs that a stratum holds and n its answers (Kish's design effect).

    Returns:
        None where a stratum that holds pairs has no answers, or no stratum holds any.
    """
    held = [stratum for stratum in strata if stratum.pairs]
    if not held or any(stratum.same + stratum.different == 0 for stratum in held):
        return None
    total = sum(stratum.pairs for stratum in held)
    share = sum(stratum.precision.share * stratum.pairs for stratum in held) / total
    worth = 1 / sum((stratum.pairs / total) ** 2 / (stratum.same + stratum.different) for stratum in held)
    return interval(share * worth, worth)


def stratum_of(closeness: NDArray[np.float64], thresholds: NDArray[np.float64]) -> NDArray[np.int64]:
    """The stratum of each pair: the first of some thresholds that lets it through, len(thresholds) if none does.

    Args:
        closeness: (m,) float64, larger for closer; cosines are stored as float32, so a millionth is forgiven.
        thresholds: (t,) float64 in the same sense, the strictest first.
    """
    place: NDArray[np.int64] = np.searchsorted(-thresholds, -(closeness + 1e-6), side="left").astype(np.int64)
    return place


def draw(
    a: NDArray[np.integer], b: NDArray[np.integer], stratum: NDArray[np.int64], most: int, seed: int
) -> NDArray[np.int64]:
    """Choose pairs of each stratum at random.

    Args:
        a: (m,) one sample of each pair.
        b: (m,) the other.
        stratum: (m,) its stratum; negative ones are left out.
        most: Greatest number of pairs of a stratum.
        seed: Seed for all random choices.

    Returns:
        Rows, in a random order over all strata.
    """
    turn = _mixed(_mixed(a.astype(np.uint64) + np.uint64(seed * 1_000_003 % 2**64)) ^ b.astype(np.uint64))
    chosen = [np.zeros(0, np.int64)]
    for number in np.unique(stratum[stratum >= 0]).tolist():
        rows = np.flatnonzero(stratum == number)
        if len(rows) > most:
            rows = rows[np.argpartition(turn[rows], most)[:most]]
        chosen.append(rows)
    rows = np.concatenate(chosen)
    order: NDArray[np.int64] = rows[np.argsort(turn[rows], kind="stable")]
    return order


def _mixed(value: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The finaliser of splitmix64 (Steele, Lea and Flood, OOPSLA 2014): every bit of the input moves every bit."""
    with np.errstate(over="ignore"):
        mixed = value + np.uint64(0x9E3779B97F4A7C15)
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))
