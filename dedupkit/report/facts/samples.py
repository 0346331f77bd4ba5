"""Samples as a report names and shows them."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Example", "Sample"]


@dataclass(frozen=True, slots=True)
class Example:
    """A sample by its name: the shard and its key in it."""

    source: str
    key: str | None


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
