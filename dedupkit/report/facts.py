"""The content of ``report.json``: these classes are its schema."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from dedupkit.calibration.facts import Facts as CalibrationFacts
from dedupkit.memorization.risk import Risk
from dedupkit.store.schema import from_json, to_json

__all__ = [
    "FORMAT", "Bin", "BorderlinePair", "CalibrationState", "CaptionRepeats", "Captions", "Example", "Families",
    "Family", "FamilyMember", "GroupSizes", "Groups", "Histogram", "LargeGroup", "Missing", "PassedOver",
    "ReferenceFacts", "RepeatedCaption", "ReportFacts", "Sample", "ShardProblem", "Template", "Unreadable",
]  # fmt: skip

FORMAT = 2
"""Version of this layout: raise it when a field goes or changes its meaning."""


@dataclass(frozen=True, slots=True)
class Example:
    """A sample by its name: the shard and its key in it."""

    source: str
    key: str | None


@dataclass(frozen=True, slots=True)
class ShardProblem:
    """A shard that could not be read to its end, and why."""

    source: str
    problem: str


@dataclass(frozen=True, slots=True)
class PassedOver:
    """Files and rows of the sources that are neither samples nor about one: their number, and one of them."""

    count: int
    example: str | None


@dataclass(frozen=True, slots=True)
class Missing:
    """Readable images without a vector of some embedder.

    Attributes:
        count: Number of these images.
        of: Number of readable images.
        examples: A few of them.
        reason: What was wrong with the first.
    """

    count: int
    of: int
    examples: tuple[Example, ...]
    reason: str | None


@dataclass(frozen=True, slots=True)
class Unreadable:
    """Samples that could not be read for one reason: the rarest reasons are one entry without examples."""

    reason: str
    count: int
    examples: tuple[Example, ...]


@dataclass(frozen=True, slots=True)
class ReferenceFacts:
    """An earlier run or a reference set that samples were compared with.

    Attributes:
        role: ``earlier`` or ``against``.
        kind: ``run``, ``images`` or ``list``.
        name: How the user named it.
        samples: Number of samples that were removed (``earlier``) or blocked (``against``) for it.
        rows: Number of its rows that were compared.
        malformed: Number of lines of a list that could not be used.
        examples: The first of them.
        flat: Number of PDQ hashes of a list that were left out for their quality.
    """

    role: str
    kind: str
    name: str
    samples: int
    rows: int
    malformed: int
    examples: tuple[str, ...]
    flat: int


@dataclass(frozen=True, slots=True)
class Sample:
    """A sample as it is shown.

    Attributes:
        sample: Number of the sample.
        source: Its shard.
        key: Its key in the shard.
        caption: Its caption as one line, cut after 200 characters.
        width: Width of the image, in pixels.
        height: Height of the image, in pixels.
        nbytes: Size of the file, in bytes.
        format: Format of the file.
        verdict: ``keep``, ``remove``, ``unreadable`` or ``blocked``.
        reason: Reason of the verdict, as in the manifest.
        score: Score between a removed sample and its witness.
        kept_sample: Number of the sample that it duplicates.
        kept_key: Key of that sample.
        kept_source: The earlier run or reference set in which that sample lies; None where it is of this run.
        relation: What it is of its witness (a crop, a recoloured copy, …), where the pair was verified.
    """

    sample: int
    source: str
    key: str
    caption: str | None
    width: int | None
    height: int | None
    nbytes: int | None
    format: str | None
    verdict: str
    reason: str | None
    score: float | None
    kept_sample: int | None
    kept_key: str | None
    kept_source: str | None = None
    relation: str | None = None


@dataclass(frozen=True, slots=True)
class GroupSizes:
    """A class of group sizes, both ends included: the groups, samples and removed samples in it."""

    start: int
    end: int
    groups: int
    samples: int
    removed: int


@dataclass(frozen=True, slots=True)
class Groups:
    """The duplicate groups.

    Attributes:
        count: Number of groups.
        samples: Number of samples in them.
        singles: Number of samples that took part and have no duplicate.
        largest: Size of the largest group; 1 where there is none.
        sizes: Groups by size, in classes that double.
    """

    count: int
    samples: int
    singles: int
    largest: int
    sizes: tuple[GroupSizes, ...]


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
class LargeGroup:
    """One of the largest groups.

    Attributes:
        group: Its smallest sample.
        size: Number of samples.
        kept: Number of kept samples.
        removed: Number of removed samples.
        captions: Number of distinct captions.
        caption: The most frequent caption.
        caption_count: How often that occurs.
        shown: The kept sample that most of the group duplicates, then some of those, from the most to the least alike.
    """

    group: int
    size: int
    kept: int
    removed: int
    captions: int
    caption: str | None
    caption_count: int
    shown: tuple[Sample, ...]


@dataclass(frozen=True, slots=True)
class FamilyMember:
    """A sample of a family of one template.

    Attributes:
        sample: The sample.
        same: Share of the textured area that is that of the family's head.
        differs: Bounds of the rest of it, (left, top, right, bottom) as fractions.
        head_differs: Bounds of the same part of the head.
    """

    sample: Sample
    same: float
    differs: tuple[float, ...]
    head_differs: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Family:
    """One of the largest families of one template.

    Attributes:
        family: Number of its head, the sample that all others share the template with.
        size: Number of samples.
        kept: Number of kept samples.
        removed: Number of those that were removed because the family is full.
        shown: The head, then some of the others, those that share most first.
    """

    family: int
    size: int
    kept: int
    removed: int
    shown: tuple[FamilyMember, ...]


@dataclass(frozen=True, slots=True)
class Families:
    """Families of one template with different content.

    Attributes:
        policy: What became of them: ``keep`` or ``cap:M``.
        families: Number of families.
        in_families: Number of samples in them.
        largest: The largest ones, the largest first.
    """

    policy: str
    families: int
    in_families: int
    largest: tuple[Family, ...]


@dataclass(frozen=True, slots=True)
class BorderlinePair:
    """A removed sample whose score is near its bound, and the kept sample that it duplicates."""

    removed: Sample
    witness: Sample


@dataclass(frozen=True, slots=True)
class CaptionRepeats:
    """Groups in which one caption occurs more than ``more_than`` times, and the samples that have it there."""

    more_than: int
    groups: int
    samples: int


@dataclass(frozen=True, slots=True)
class RepeatedCaption:
    """A group's most frequent caption.

    Attributes:
        caption: The caption as one line, cut after 200 characters.
        count: Number of samples of the group that have it.
        captions: Number of distinct captions of the group.
        group: The group.
        group_size: Number of samples of the group.
    """

    caption: str
    count: int
    captions: int
    group: int
    group_size: int


@dataclass(frozen=True, slots=True)
class Template:
    """A caption of more kept samples than the caption mode allows, and their number."""

    caption: str
    count: int


@dataclass(frozen=True, slots=True)
class Captions:
    """What the captions of duplicate groups are. Captions that are equal after folding count as one.

    Attributes:
        mode: What the run did with captions.
        groups_with_one_caption: Number of groups in which one caption repeats and no other occurs.
        groups_with_several: Number of groups with several captions.
        groups_without: Number of groups without captions.
        changed: Number of kept samples that carry other captions than their own.
        repeats: Groups by how often a caption repeats with the image.
        repeated: The captions that repeat most often with an image, the most frequent first.
        templates: Number of captions of more kept samples than the mode allows; None where it does not ask.
        frequent: The most frequent of these.
    """

    mode: str
    groups_with_one_caption: int
    groups_with_several: int
    groups_without: int
    changed: int
    repeats: tuple[CaptionRepeats, ...]
    repeated: tuple[RepeatedCaption, ...]
    templates: int | None
    frequent: tuple[Template, ...]


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
        command: Shell command that makes the run again.
        sources: The sources as the user named them.
        shards: Number of shards.
        shard_problems: Shards that were not read to their end.
        passed_over: What in the sources is no sample.
        without_vector: Readable images without a vector, by embedder; embedders that have all vectors are left out.
        rule: The rule, spelled out.
        keep_policy: The keep policy.
        samples: Number of samples; the next four add up to it.
        kept: Number of kept samples.
        removed: Number of removed samples.
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
