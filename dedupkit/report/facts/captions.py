"""What a report says of captions."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["CaptionRepeats", "Captions", "RepeatedCaption", "Template"]


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
