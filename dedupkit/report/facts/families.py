"""What a report says of families of one template."""

from __future__ import annotations

from dataclasses import dataclass

from dedupkit.clustering.policy import TemplatePolicy
from dedupkit.report.facts.samples import Sample

__all__ = ["Families", "Family", "FamilyMember"]


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
        removed: Number of those that the family cap removed.
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

    @property
    def most(self) -> int | None:
        """The most samples of a family that are kept; None for all."""
        return TemplatePolicy.parse(self.policy).most
