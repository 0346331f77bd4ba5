"""How likely two different images are to score beyond a threshold, from the pairs that came closest to it.

Peaks over threshold: whatever the scores are distributed like, what exceeds a high start u follows about a generalised
Pareto distribution (Pickands 1975; Balkema and de Haan 1974),

    P(S >= s) = P(S >= u) * (1 - k (s - u) / sigma) ** (1 / k),

fitted by probability-weighted moments (Hosking and Wallis, "Parameter and Quantile Estimation for the Generalized
Pareto Distribution", Technometrics 29, 1987, section 3; k is theirs, minus the usual shape). For whole numbers of bits
it is the geometric distribution, the exponential tail (k = 0) on a grid, fitted by its mean: the tail of a sum of many
bits falls off faster, so the estimate errs towards more false pairs.

The interval comes from drawing the *images* again (bootstrap of a U-statistic): ten million pairs of a few thousand
images are not ten million observations, and an image that looks like everything is in many of the closest. A tail that
ends (k > 0) is not trusted beyond what was seen: the upper end is at least the exponential tail.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Closest", "Expected", "Tail", "expected_pairs", "fit_tail"]

Floats = NDArray[np.float64]

_LEAST = 30
"""Fewer exceedances than this say nothing about a tail."""


@dataclass(frozen=True, slots=True)
class Closest:
    """The closest of all pairs of some images.

    Attributes:
        i, j: (m,) int64, the images, i < j.
        score: (m,) float64, larger for closer: a cosine, or minus a distance; all those at or above ``start``.
        start: Least score that counts.
        images: Number of images that were paired.
        pairs: Number of pairs of these.
        whole: Whether scores are whole numbers.
    """

    i: NDArray[np.int64]
    j: NDArray[np.int64]
    score: Floats
    start: float
    images: int
    pairs: int
    whole: bool


@dataclass(frozen=True, slots=True)
class Tail:
    """A fitted tail.

    Attributes:
        start: Score where the tail begins.
        rate: Share of the pairs at or above the start.
        scale: Scale parameter sigma.
        shape: Shape parameter k.
        step: Step between the scores that can occur, from the start on; 0 where all can.
    """

    start: float
    rate: float
    scale: float
    shape: float
    step: int = 0

    def probability(self, score: Floats) -> Floats:
        """P(S >= score), NaN below the start."""
        beyond = np.asarray(score, np.float64) - self.start
        if self.step:
            beyond = np.ceil(beyond / self.step - 1e-9) * self.step
        with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
            if abs(self.shape) < 1e-9:
                falls = np.exp(-beyond / self.scale)
            else:
                falls = np.maximum(1 - self.shape * beyond / self.scale, 0) ** (1 / self.shape)
        result: Floats = np.where(beyond >= -1e-9, self.rate * falls, np.nan)
        return result


@dataclass(frozen=True, slots=True)
class Expected:
    """Pairs expected at some thresholds, with a 95 % interval; (t,) float64 each, NaN where the tail does not reach."""

    estimate: Floats
    low: Floats
    high: Floats

    def after(self, count: int) -> Expected:
        """All but the first thresholds."""
        return Expected(self.estimate[count:], self.low[count:], self.high[count:])


def fit_tail(closest: Closest, weight: Floats | None = None, *, exponential: bool = False) -> Tail | None:
    """Fit the tail of some pairs.

    Args:
        closest: The closest pairs.
        weight: (images,) how often each image counts; once by default.
        exponential: Whether to hold k at 0.

    Returns:
        The tail; None where fewer than 30 pairs are left.
    """
    drawn = np.ones(closest.images) if weight is None else weight
    worth = drawn[closest.i] * drawn[closest.j]
    total = float(worth.sum())
    if total < _LEAST:
        return None
    every = closest.images * (closest.images - 1) / 2
    # An image drawn twice makes no pair with itself.
    pairs = (drawn.sum() ** 2 - (drawn**2).sum()) / 2 * closest.pairs / every
    order = np.argsort(closest.score, kind="stable")
    excess, worth = closest.score[order] - closest.start, worth[order]
    mean = float(excess @ worth) / total
    rate = total / float(pairs)
    if closest.whole:
        # A hash that is cut at its median has as many ones as zeros, and two such hashes differ in an even number.
        step = 2 if float(worth[excess % 2 == 0].sum()) > 0.9 * total else 1
        return Tail(closest.start, rate, step / float(np.log1p(step / max(mean, 1e-9))), 0.0, step)
    if exponential:
        return Tail(closest.start, rate, max(mean, 1e-12), 0.0)
    # a_1 = E[Y (1 - F(Y))], with the plotting positions (i - 0.35) / n of Hosking and Wallis.
    place = (np.cumsum(worth) - 0.35 * worth) / total
    second = float((excess * (1 - place)) @ worth) / total
    spread = max(mean - 2 * second, 1e-12)
    return Tail(closest.start, rate, max(2 * mean * second / spread, 1e-12), mean / spread - 2)


def expected_pairs(
    closest: Closest, thresholds: Floats, count: int, *, replicates: int = 200, seed: int = 0
) -> tuple[Tail | None, Expected]:
    """Pairs of different images that a data set of some size has at or above each threshold.

    Args:
        closest: Closest pairs of a sample of the data.
        thresholds: (t,) float64 scores, larger for closer.
        count: Number of images of the data set.
        replicates: Number of bootstrap samples.
        seed: Seed of the bootstrap.

    Returns:
        The fitted tail (None if there is too little to fit), and n (n - 1) / 2 times its probabilities.
    """
    every = count * (count - 1) / 2
    tail = fit_tail(closest)
    if tail is None:
        nothing = np.full(len(thresholds), np.nan)
        return None, Expected(nothing, nothing, nothing)
    estimate = every * tail.probability(thresholds)
    draw = np.random.default_rng(seed)
    shares = np.full(closest.images, 1 / closest.images)
    drawn = [estimate]
    for _ in range(replicates):
        again = fit_tail(closest, draw.multinomial(closest.images, shares).astype(np.float64))
        if again is not None:
            drawn.append(every * again.probability(thresholds))
    low, high = np.quantile(np.stack(drawn), [0.025, 0.975], axis=0)
    simple = fit_tail(closest, exponential=True)
    if simple is not None and tail.shape > 0:
        high = np.maximum(high, every * simple.probability(thresholds))
    return tail, Expected(estimate, np.minimum(low, estimate), np.maximum(high, estimate))
