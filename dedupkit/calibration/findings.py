"""What was measured, found and answered, put together."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from dedupkit import __version__
from dedupkit.calibration.curves import Curve, holds, steps
from dedupkit.calibration.facts import (
    FORMAT,
    CurvePoint,
    ExpectedPairs,
    Facts,
    ImpostorTail,
    Precision,
    Recall,
    StratumFacts,
    SyntheticFacts,
    ThresholdCurve,
    TransformationRecall,
)
from dedupkit.calibration.impostors import Impostors
from dedupkit.calibration.judged import Answers, Found, read_answers, strata_of
from dedupkit.calibration.propose import Proposal, from_answers, from_impostors
from dedupkit.calibration.strata import Estimate, Stratum, interval, weighted
from dedupkit.calibration.synthetic import Synthetic
from dedupkit.calibration.tail import Expected, Tail, expected_pairs
from dedupkit.clustering.rules import Rule
from dedupkit.images.transformations import TRANSFORMATIONS
from dedupkit.runfolder.folder import RunFolder
from dedupkit.signals import find_signal

__all__ = ["Known", "findings"]


@dataclass(frozen=True, slots=True)
class Known:
    """What all parts of a calibration know of the run.

    Attributes:
        folder: Folder of the run.
        shards: Number of shards.
        rule: The rule in force.
        models: Specifications, by name, of the rule's embedders that can embed new images.
        curves: Alternatives of the rule that have a threshold.
        kept: (k,) int64, the samples that the run keeps.
        readable: Number of samples of the run that could be read.
        seed: Seed for all random choices.
        workers: Number of processes.
    """

    folder: RunFolder
    shards: int
    rule: Rule
    models: dict[str, str]
    curves: list[Curve]
    kept: NDArray[np.int64]
    readable: int
    seed: int
    workers: int


def findings(
    known: Known,
    synthetic: Synthetic,
    impostors: Mapping[str, Impostors],
    found: Sequence[Found],
    asked: int,
    wanted: float,
) -> Facts:
    """Put a calibration together.

    Args:
        known: The run.
        synthetic: The synthetic duplicates and what the signals say of them.
        impostors: The closest impostor pairs by signal.
        found: The run's pairs along each curve.
        asked: Number of images that were to be transformed.
        wanted: Precision that thresholds are proposed for.
    """
    answers = read_answers(known.folder.answers, known.folder)
    in_force = [stratum for pairs in found for stratum in strata_of(pairs, steps(pairs.curve), answers, in_force=True)]
    return Facts(
        format=FORMAT,
        dedupkit=__version__,
        rule=str(known.rule),
        seed=known.seed,
        wanted=wanted,
        samples=known.readable,
        synthetic=_synthetic(known, synthetic, asked),
        precision=_judged(in_force),
        curves=tuple(
            _curve(known, pairs, synthetic, impostors[pairs.curve.atom.signal], answers, wanted) for pairs in found
        ),
    )


def _synthetic(known: Known, synthetic: Synthetic, asked: int) -> SyntheticFacts:
    found = holds(known.rule, synthetic.scores)
    rows = []
    for number, kind in enumerate(TRANSFORMATIONS):
        mine = synthetic.transformation == number
        count, hits = int(mine.sum()), int(found[mine].sum())
        recall = _share(interval(hits, count))
        rows.append(TransformationRecall(kind.name, kind.label, kind.family, count, hits, recall))
    originals = len(np.unique(synthetic.original))
    measured = (name for name in known.rule.signals if find_signal(name).finds_pairs)
    return SyntheticFacts(
        originals=originals,
        asked=asked,
        count=len(found),
        found=int(found.sum()),
        # Images were drawn, not duplicates: those of one image stand and fall together.
        recall=_share(interval(float(found.mean()) * originals, originals)),
        unmeasured=tuple(name for name in measured if name not in synthetic.scores),
        transformations=tuple(rows),
    )


def _curve(
    known: Known, found: Found, synthetic: Synthetic, impostors: Impostors, answers: Answers, wanted: float
) -> ThresholdCurve:
    curve, closest = found.curve, impostors.closest
    size = int((known.folder.joined(curve.atom.signal) or {}).get("distinct", known.readable))
    shown, proposable = steps(curve), np.array(curve.signal.thresholds(curve.floor), np.float64)
    both = curve.closeness(np.concatenate([shown, proposable]))
    tail, expected = expected_pairs(closest, both, size, seed=known.seed)
    # The run knows its pairs as far as the floor; recall and impostors are known beyond.
    reach = int((curve.closeness(shown) >= curve.closeness(np.array([curve.floor]))).sum())
    strata = strata_of(found, shown, answers)[:reach]
    recall, by_transformation = _recall(curve, synthetic, shown)
    points = tuple(
        CurvePoint(
            threshold=float(value),
            recall=recall[t] if recall else None,
            pairs=sum(stratum.pairs for stratum in strata[: t + 1]) if t < reach else None,
            impostors=_expected(expected, t),
            precision=_judged(strata[: t + 1]) if t < reach else None,
        )
        for t, value in enumerate(shown.tolist())
    )
    return ThresholdCurve(
        reason=curve.reason,
        signal=curve.atom.signal,
        similarity=curve.atom.similarity,
        bound=curve.bound,
        floor=float(curve.floor),
        points=points,
        recall_by_transformation=by_transformation,
        strata=tuple(
            StratumFacts(s.strict, s.threshold, s.pairs, s.same, s.different, _share(s.precision)) for s in strata
        ),
        impostors=None if tail is None else _tail(tail, impostors, size),
        proposal=_proposal(found, strata, proposable, expected.after(len(shown)), wanted),
    )


def _tail(tail: Tail, impostors: Impostors, size: int) -> ImpostorTail:
    closest = impostors.closest
    return ImpostorTail(
        images=closest.images,
        pairs=closest.pairs,
        size=size,
        looked_at=impostors.looked_at,
        hidden=impostors.hidden,
        start=round(tail.start, 6),
        rate=round(tail.rate, 6),
        scale=round(tail.scale, 6),
        shape=round(tail.shape, 6),
        step=tail.step,
    )


def _recall(
    curve: Curve, synthetic: Synthetic, thresholds: NDArray[np.float64]
) -> tuple[list[float], dict[str, tuple[float, ...]]]:
    """Share of the synthetic duplicates at or within each threshold, of all and by transformation.

    Both are empty where there are no scores.
    """
    score = synthetic.scores.get(curve.atom.signal)
    if score is None:
        return [], {}
    with np.errstate(invalid="ignore"):  # no fingerprint, no duplicate found
        reached = curve.closeness(score)[:, None] >= curve.closeness(thresholds) - 1e-6
    by_transformation = {
        kind.name: tuple(np.round(reached[synthetic.transformation == number].mean(axis=0), 6).tolist())
        for number, kind in enumerate(TRANSFORMATIONS)
    }
    return np.round(reached.mean(axis=0), 6).tolist(), by_transformation


def _proposal(
    found: Found, strata: Sequence[Stratum], thresholds: NDArray[np.float64], expected: Expected, wanted: float
) -> Proposal:
    """By answers where there are any, else by impostors."""
    curve = found.curve
    proposal = from_answers(strata, wanted, floor=curve.floor)
    if proposal is None and len(curve.clause) > 1:
        others = " and ".join(map(str, curve.clause[1:]))
        note = f"pairs must satisfy {others} too, of which impostor pairs say nothing; judge pairs"
        proposal = Proposal(None, note=note)
    if proposal is None:
        ordered = np.sort(-found.closeness)
        counts = np.searchsorted(ordered, 1e-6 - curve.closeness(thresholds), side="right").astype(np.int64)
        proposal = from_impostors(thresholds, counts, expected, wanted, floor=curve.floor)
    return replace(proposal, precision=_number(proposal.precision), low=_number(proposal.low))


def _judged(strata: Sequence[Stratum]) -> Precision | None:
    estimate = weighted(strata)
    if estimate is None:
        return None
    share = _share(estimate)
    return Precision(share.share, share.low, share.high, sum(s.same + s.different for s in strata))


def _expected(expected: Expected, place: int) -> ExpectedPairs | None:
    values = (expected.estimate[place], expected.low[place], expected.high[place])
    if not np.isfinite(values).all():
        return None
    return ExpectedPairs(*(float(f"{value:.6g}") for value in values))


def _share(estimate: Estimate) -> Recall:
    return Recall(_number(estimate.share), _number(estimate.low), _number(estimate.high))


def _number(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else round(float(value), 6)
