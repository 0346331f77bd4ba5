"""The content of ``calibration.json``: these classes are its schema.

Numbers are null where they are not known. Intervals are at 95 %.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from dedupkit.calibration.propose import Proposal
from dedupkit.store.schema import from_json, to_json

__all__ = [
    "FORMAT", "CurvePoint", "ExpectedPairs", "Facts", "ImpostorTail", "Precision", "Recall", "StratumFacts",
    "SyntheticFacts", "ThresholdCurve", "TransformationRecall",
]  # fmt: skip

FORMAT = 2
"""Version of this layout: raise it when a field goes or changes its meaning."""


@dataclass(frozen=True, slots=True)
class Recall:
    """A share of synthetic duplicates that were found, with its interval."""

    share: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True, slots=True)
class Precision:
    """The share of judged pairs that show the same image, with its interval and the number of answers."""

    share: float | None
    low: float | None
    high: float | None
    answers: int


@dataclass(frozen=True, slots=True)
class TransformationRecall:
    """How many synthetic duplicates of one transformation the rule finds.

    Attributes:
        name: Name of the transformation, as in :data:`dedupkit.images.transformations.TRANSFORMATIONS`.
        label: Name in tables.
        family: ``protocol`` or ``web``.
        count: Number of synthetic duplicates.
        found: Number of those that the rule finds.
        recall: Their share.
    """

    name: str
    label: str
    family: str
    count: int
    found: int
    recall: Recall


@dataclass(frozen=True, slots=True)
class SyntheticFacts:
    """How many synthetic duplicates the rule finds.

    Attributes:
        originals: Number of images that were transformed.
        asked: Number that was asked for.
        count: Number of synthetic duplicates.
        found: Number of those that the rule finds.
        recall: Their share.
        unmeasured: Embedders whose vectors were given, so that synthetic duplicates have none.
        transformations: The same for each transformation.
    """

    originals: int
    asked: int
    count: int
    found: int
    recall: Recall
    unmeasured: tuple[str, ...]
    transformations: tuple[TransformationRecall, ...]


@dataclass(frozen=True, slots=True)
class ExpectedPairs:
    """The number of impostor pairs to expect, with its interval."""

    estimate: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """What a threshold would do.

    Attributes:
        threshold: Threshold of the signal alone.
        recall: Share of all synthetic duplicates at or within it.
        pairs: Number of pairs of the run at or within it.
        impostors: Impostor pairs to expect among all images of the run.
        precision: Precision of the judged pairs at or within it.
    """

    threshold: float
    recall: float | None
    pairs: int | None
    impostors: ExpectedPairs | None
    precision: Precision | None


@dataclass(frozen=True, slots=True)
class StratumFacts:
    """The pairs between two thresholds.

    Attributes:
        start: The closer end, exclusive except at identity.
        end: The looser end, inclusive.
        pairs: Number of pairs of the run there.
        same: Number of answers that say the two show the same image.
        different: Number of answers that say they do not.
        precision: Share of ``same``, with its interval.
    """

    start: float
    end: float
    pairs: int
    same: int
    different: int
    precision: Recall


@dataclass(frozen=True, slots=True)
class ImpostorTail:
    """The tail that was fitted to the closest impostor pairs (:class:`dedupkit.calibration.tail.Tail`).

    Attributes:
        images: Number of images that were paired.
        pairs: Number of impostor pairs that made.
        size: Number of different images of the run, for which pairs are expected.
        looked_at: Number of closest pairs that were verified.
        hidden: Number of pairs that turned out to be duplicates and do not count.
        start: Score where the tail begins.
        rate: Share of the pairs at or above the start.
        scale: Scale parameter sigma.
        shape: Shape parameter k.
        step: Step between the scores that can occur; 0 where all can.
    """

    images: int
    pairs: int
    size: int
    looked_at: int
    hidden: int
    start: float
    rate: float
    scale: float
    shape: float
    step: int


@dataclass(frozen=True, slots=True)
class ThresholdCurve:
    """An alternative of the rule, seen along its threshold.

    Attributes:
        reason: The signals of the alternative, as the manifest names it.
        signal: The one whose threshold moves.
        similarity: Whether its score is a similarity; else it is a distance.
        bound: The threshold in force.
        floor: The loosest threshold at which the run knows its pairs.
        points: Thresholds, the strictest first.
        recall_by_transformation: Shares found, one per threshold, by transformation.
        strata: The pairs between successive thresholds, as far as the floor.
        impostors: The fitted tail; None where there was too little.
        proposal: The threshold proposed.
    """

    reason: str
    signal: str
    similarity: bool
    bound: float
    floor: float
    points: tuple[CurvePoint, ...]
    recall_by_transformation: dict[str, tuple[float, ...]]
    strata: tuple[StratumFacts, ...]
    impostors: ImpostorTail | None
    proposal: Proposal

    @property
    def in_force(self) -> CurvePoint:
        """The point of the threshold in force."""
        return next(point for point in self.points if point.threshold == self.bound)


@dataclass(frozen=True, slots=True)
class Facts:
    """A calibration of a run.

    Attributes:
        format: Version of this layout.
        dedupkit: Version that wrote it.
        rule: The rule that was calibrated, spelled out.
        seed: Seed of all random choices.
        wanted: Precision that thresholds are proposed for.
        samples: Number of readable samples of the run.
        synthetic: How many synthetic duplicates the rule finds.
        precision: Precision of the rule, from judged pairs; None without answers.
        curves: One for each alternative of the rule with a threshold.
    """

    format: int
    dedupkit: str
    rule: str
    seed: int
    wanted: float
    samples: int
    synthetic: SyntheticFacts
    precision: Precision | None
    curves: tuple[ThresholdCurve, ...]

    def to_json(self) -> dict[str, Any]:
        """The content of ``calibration.json``."""
        value: dict[str, Any] = to_json(self)
        return value

    @classmethod
    def from_json(cls, value: Any) -> Facts | None:
        """What was read from ``calibration.json``; None where it is of another version or damaged."""
        if not isinstance(value, dict) or value.get("format") != FORMAT:
            return None
        try:
            return from_json(cls, value)
        except ValueError:
            return None
