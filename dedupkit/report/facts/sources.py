"""What a report says of what was read: what could not be, and what samples were compared with."""

from __future__ import annotations

from dataclasses import dataclass

from dedupkit.report.facts.samples import Example

__all__ = ["Missing", "PassedOver", "ReferenceFacts", "ShardProblem", "Unreadable"]


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
        shard_problems: Shards of a set of images that were not read to their end.
        unreadable: Number of its images, and of such shards, that could not be read.
        without_vector: Readable images of it without a vector, by embedder.
    """

    role: str
    kind: str
    name: str
    samples: int
    rows: int
    malformed: int
    examples: tuple[str, ...]
    flat: int
    shard_problems: tuple[ShardProblem, ...]
    unreadable: int
    without_vector: dict[str, Missing]
