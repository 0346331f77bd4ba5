"""All that a report says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from dedupkit.calibration.facts import Facts as CalibrationFacts
from dedupkit.clustering.families import TEMPLATE_REASON
from dedupkit.memorization.risk import Risk
from dedupkit.report.facts.captions import Captions
from dedupkit.report.facts.families import Families
from dedupkit.report.facts.groups import Groups, LargeGroup
from dedupkit.report.facts.samples import Sample
from dedupkit.report.facts.scores import BorderlinePair, Histogram
from dedupkit.report.facts.sources import Missing, PassedOver, ReferenceFacts, ShardProblem, Unreadable
from dedupkit.report.facts.verification import Verification
from dedupkit.store.schema import from_json, to_json

__all__ = ["FORMAT", "CalibrationState", "ReportFacts"]

FORMAT = 2
"""Version of this layout: raise it when a field of any of these classes goes or changes its meaning."""


@dataclass(frozen=True, slots=True)
class CalibrationState:
    """A calibration, as in ``calibration.json``, and whether it is of the rule in force."""

    facts: CalibrationFacts
    current: bool


@dataclass(frozen=True, slots=True)
class ReportFacts:
    """Everything that a report says.

    Attributes:
        format: Version of this layout.
        dedupkit: Version of dedupkit that made the run.
        versions: Versions of Python and of packages that made the run.
        command: Shell command that makes the run again, in a folder ``OUT``.
        sources: The sources as the user named them.
        shards: Number of shards.
        shard_problems: Shards that were not read to their end.
        passed_over: What in the sources is no sample.
        without_vector: Readable images without a vector, by embedder; embedders that have all vectors are left out.
        rule: The rule, spelled out.
        keep_policy: The keep policy.
        samples: Number of samples; the next four add up to it.
        kept: Number of kept samples.
        removed: Number of removed samples, as duplicates or by the family cap.
        unreadable: Number of unreadable samples.
        blocked: Number of blocked samples.
        removed_by_reason: Number of removed samples by reason.
        blocked_by_reason: Number of blocked samples by reason.
        unreadable_by_reason: Unreadable samples by reason, the most frequent first.
        duplicate_pairs: Number of pairs that satisfy the rule, samples with equal fingerprints counted as one.
        groups: The duplicate groups.
        scores: Scores of removed samples, for each reason with a bound.
        largest_groups: The largest groups, the largest first.
        borderline: The removed samples nearest their bound, one for each kept sample.
        captions: What the captions of the groups are.
        calibration: The calibration; None where there was none.
        risk: How often images occur, with which captions, and what the rule leaves.
        references: Earlier runs and reference sets.
        families: Families of one template; None where the rule looked for none.
        verification: Pairs that were looked at; None where the rule verifies none.
    """

    format: int
    dedupkit: str
    versions: dict[str, str]
    command: str
    sources: tuple[str, ...]
    shards: int
    shard_problems: tuple[ShardProblem, ...]
    passed_over: PassedOver
    without_vector: dict[str, Missing]
    rule: str
    keep_policy: str
    samples: int
    kept: int
    removed: int
    unreadable: int
    blocked: int
    removed_by_reason: dict[str, int]
    blocked_by_reason: dict[str, int]
    unreadable_by_reason: tuple[Unreadable, ...]
    duplicate_pairs: int
    groups: Groups
    scores: tuple[Histogram, ...]
    largest_groups: tuple[LargeGroup, ...]
    borderline: tuple[BorderlinePair, ...]
    captions: Captions
    calibration: CalibrationState | None
    risk: Risk
    references: tuple[ReferenceFacts, ...] = ()
    families: Families | None = None
    verification: Verification | None = None

    @property
    def capped(self) -> int:
        """Number of removed samples that are no duplicates: the family cap removed them."""
        return self.removed_by_reason.get(TEMPLATE_REASON, 0)

    @property
    def duplicates(self) -> int:
        """Number of samples removed as duplicates."""
        return self.removed - self.capped

    @property
    def duplicates_by_reason(self) -> dict[str, int]:
        """Number of samples removed as duplicates by reason."""
        return {reason: count for reason, count in self.removed_by_reason.items() if reason != TEMPLATE_REASON}

    @property
    def shown(self) -> tuple[Sample, ...]:
        """The samples that are shown with their images."""
        grouped = (sample for group in self.largest_groups for sample in group.shown)
        families = () if self.families is None else self.families.largest
        members = (member.sample for family in families for member in family.shown)
        return (*grouped, *members, *(sample for pair in self.borderline for sample in (pair.witness, pair.removed)))

    def to_json(self) -> dict[str, Any]:
        """The content of ``report.json``."""
        value: dict[str, Any] = to_json(self)
        return value

    @classmethod
    def from_json(cls, value: Any) -> ReportFacts:
        """What was read from ``report.json``.

        Raises:
            ValueError: It is of another version, or damaged.
        """
        if not isinstance(value, dict) or value.get("format") != FORMAT:
            raise ValueError(f"report.json is not of version {FORMAT}")
        return from_json(cls, value)
