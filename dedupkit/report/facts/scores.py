"""What a report says of how far removed samples lie from what they duplicate."""

from __future__ import annotations

from dataclasses import dataclass

from dedupkit.report.facts.samples import Sample

__all__ = ["Bin", "BorderlinePair", "Histogram"]


@dataclass(frozen=True, slots=True)
class Bin:
    """The number of scores in a range. Both ends belong to a distance's bin."""

    start: float
    end: float
    count: int


@dataclass(frozen=True, slots=True)
class Histogram:
    """The scores of the samples that were removed for one reason.

    Attributes:
        reason: The reason, as in the manifest.
        signal: Its first signal, whose scores these are.
        bound: The bound of the rule.
        similarity: Whether the score is a similarity; else it is a distance.
        count: Number of removed samples.
        min: Least score.
        median: Median score.
        max: Greatest score.
        bins: The closest scores first.
    """

    reason: str
    signal: str
    bound: float
    similarity: bool
    count: int
    min: float
    median: float
    max: float
    bins: tuple[Bin, ...]


@dataclass(frozen=True, slots=True)
class BorderlinePair:
    """A removed sample whose score is near its bound, and the kept sample that it duplicates."""

    removed: Sample
    witness: Sample
