"""What a report says of duplicate groups."""

from __future__ import annotations

from dataclasses import dataclass

from dedupkit.report.facts.samples import Sample

__all__ = ["GroupSizes", "Groups", "LargeGroup"]


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
        singles: Number of kept samples that lie in no group.
        largest: Size of the largest group; 1 where there is none.
        sizes: Groups by size, in classes that double.
    """

    count: int
    samples: int
    singles: int
    largest: int
    sizes: tuple[GroupSizes, ...]


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
