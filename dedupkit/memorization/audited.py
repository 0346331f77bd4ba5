"""What an audit of generated images says: these classes are the schema of ``audit.json``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dedupkit.neighbors.cosine.recall import wilson
from dedupkit.store.schema import from_json, to_json

__all__ = ["Adaptive", "AtLeast", "AuditResult", "Extraction", "Floor", "Left", "Share", "Threshold", "share_of"]


@dataclass(frozen=True, slots=True)
class Share:
    """A count of a whole, with its 95 % interval (Wilson).

    Attributes:
        count: The part.
        of: The whole.
        share: ``count`` of ``of``; 0 of nothing.
        low: Lower end of the interval.
        high: Upper end of the interval.
    """

    count: int
    of: int
    share: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{100 * self.share:.2f} %, 95 % interval {100 * self.low:.2f} to {100 * self.high:.2f} %"


def share_of(count: int, of: int) -> Share:
    """A share with its interval.

    >>> print(share_of(0, 1000))
    0.00 %, 95 % interval 0.00 to 0.38 %
    """
    part = count / of if of else 0.0
    low, high = wilson(part, of, 1.96)
    return Share(count, of, part, float(low), float(high))


@dataclass(frozen=True, slots=True)
class Threshold:
    """The least cosine of a copy.

    Attributes:
        cosine: The bound; above 1 where no vector is enough.
        origin: Where it comes from, in words.
    """

    cosine: float
    origin: str

    @property
    def reachable(self) -> bool:
        """Whether a vector can reach it."""
        return self.cosine <= 1


@dataclass(frozen=True, slots=True)
class AtLeast:
    """The generated images whose nearest training image has at least some cosine."""

    cosine: float
    generated: Share


@dataclass(frozen=True, slots=True)
class Floor:
    """What the same search says of held-out real images.

    Attributes:
        images: Number of real images that could be read.
        unreadable: Number of those that could not.
        calibrated_on: Number of these that chose the threshold; 0 where it was chosen otherwise.
        false_alarms: The share of the others that is taken for copies.
        highest_cosine: The largest cosine of a real image with a training image; None without vectors.
    """

    images: int
    unreadable: int
    calibrated_on: int
    false_alarms: Share
    highest_cosine: float | None


@dataclass(frozen=True, slots=True)
class Left:
    """What the rule of the run leaves of the copied groups.

    Attributes:
        single: Number of copied training images that have no duplicate under the rule.
        one: Number of copied groups of which the rule keeps one sample at most.
        several: Number of copied groups of which it keeps several.
        blocked: Number of copied training images that the run blocks; it counts no duplicates of them, so they are in
            no other count of groups.
    """

    single: int
    one: int
    several: int
    blocked: int


@dataclass(frozen=True, slots=True)
class Extraction:
    """Generate-and-filter: prompts whose generations are near-copies of each other (arXiv 2301.13188, section 4.2).

    Attributes:
        tiles: Number of tiles of an image.
        clique: Least number of generations of a clique.
        delta: Largest distance of two near images.
        prompts: Number of prompts with at least ``clique`` generations, which were compared.
        too_few: Number of prompts with fewer, one included.
        cut: Number of prompts of whose generations a part was compared, for their number or as files were gone.
        cliques: Number of prompts whose generations hold a clique.
        generations: Number of generations in these cliques.
        near_training: Number of these prompts of which a member of the clique lies within ``delta`` of the training
            image nearest to it; None where no training image is known or could be read.
        eidetic: For k = 1, 10 and 100, the number of the latter whose training image has at most k copies, itself
            included, in its run; without images that the run blocks.
    """

    tiles: int
    clique: int
    delta: float
    prompts: int
    too_few: int
    cut: int
    cliques: int
    generations: int
    near_training: int | None
    eidetic: dict[str, int]


@dataclass(frozen=True, slots=True)
class Adaptive:
    """The images that the distance for small images takes for extracted (arXiv 2301.13188, section 5).

    Attributes:
        generated: The share of generated images.
        real: The share of held-out real images; None without any.
    """

    generated: Share
    real: Share | None


@dataclass(frozen=True, slots=True)
class AuditResult:
    """What an audit counts.

    Attributes:
        run: The run over the training set.
        rule: The rule in force there.
        samples: Number of samples of the training set.
        generated: Number of generated images that could be read.
        unreadable: Number of those that could not.
        without_prompt: Number of generated images without a prompt.
        copies: The share of generated images that copy a training image.
        by_hash: Number of these that the hash found.
        embedder: The embedder whose vectors were compared; None where none were.
        threshold: The least cosine of a copy; None where none is known.
        candidate: Least cosine from which local features decide; None where they were not asked.
        sscd: Where the embedder is SSCD, the shares above its published cosines.
        groups: Number of distinct groups (or single training images) that are copied.
        eidetic: For k = 1, 10 and 100, the number of these that have at most k training samples.
        left: What the rule leaves of them.
        floor: What the search says of held-out real images; None without any.
        extraction: Generate-and-filter; None where there are no prompts.
        adaptive: What the distance for small images says; None where it was not asked for.
        shown: Number of pairs that were looked at again with their training image.
        verified: Number of these in which local features show the same image.
        takedown: Number of hashes in ``takedown.txt``.
        notes: What could not be seen, and what to add.
    """

    run: str
    rule: str
    samples: int
    generated: int
    unreadable: int
    without_prompt: int
    copies: Share
    by_hash: int
    embedder: str | None
    threshold: Threshold | None
    candidate: float | None
    sscd: tuple[AtLeast, ...]
    groups: int
    eidetic: dict[str, int]
    left: Left
    floor: Floor | None
    extraction: Extraction | None
    adaptive: Adaptive | None
    shown: int
    verified: int
    takedown: int
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """The content of ``audit.json``."""
        value: dict[str, Any] = to_json(self)
        return value

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> AuditResult:
        """Read what :meth:`to_json` gives.

        Raises:
            ValueError: It is damaged.
        """
        return from_json(cls, value)

    def __str__(self) -> str:
        lines = [
            f"{self.copies.count:,} of {self.generated:,} generated images copy a training image ({self.copies})",
            f"{self.groups:,} groups of training images are copied; {self.takedown:,} hashes in takedown.txt",
            f"of the {self.groups:,} copied groups the rule keeps one sample at most in {self.left.one:,}, several in "
            f"{self.left.several:,}; {self.left.single:,} are images without a duplicate",
        ]
        if self.threshold is not None and not self.threshold.reachable:
            lines.append(f"no {self.embedder} cosine is enough for a copy, {self.threshold.origin}")
        elif self.threshold is not None:
            lines.append(f"a copy by vectors: {self.embedder} cosine >= {self.threshold.cosine:.3f}, "
                         f"{self.threshold.origin}")  # fmt: skip
        if self.candidate is not None:
            lines.append(
                f"a copy by local features: {self.embedder} cosine >= {self.candidate:g}, and the same image verified"
            )
        lines += [
            f"{each.generated.count:,} generated images have {self.embedder} cosine >= {each.cosine:g} "
            f"({each.generated})"
            for each in self.sscd
        ]
        if self.unreadable:
            lines.append(f"{self.unreadable:,} generated images could not be read")
        if self.floor is not None:
            alarms = self.floor.false_alarms
            lines.append(f"{alarms.count:,} of {alarms.of:,} held-out real images were taken for copies ({alarms})")
        if self.extraction is not None and self.extraction.prompts:
            found = self.extraction
            lines.append(
                f"{found.cliques:,} of {found.prompts:,} prompts have a clique of at least {found.clique} generations "
                f"(largest of {found.tiles} tile distances <= {found.delta:g})"
            )
            if found.near_training is not None:
                lines.append(f"{found.near_training:,} of these cliques lie as near to a training image")
        if self.adaptive is not None:
            small = self.adaptive.generated
            lines.append(f"{small.count:,} are extracted by the distance for small images ({small})")
            if self.adaptive.real is not None:
                lines.append(f"{self.adaptive.real.count:,} real images are, too ({self.adaptive.real})")
        return "\n".join([*lines, *(f"note: {note}" for note in self.notes)])
