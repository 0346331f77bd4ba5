"""What a report says of the pairs that verification looked at."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Looked", "PlantedCopies", "Verification"]


@dataclass(frozen=True, slots=True)
class Looked:
    """Candidate pairs, and what became of them.

    Attributes:
        candidates: Number of candidate pairs.
        looked_at: Number of those that were looked at.
        verified: Number of those that hold.
        unseen: Number of pairs of which an image could not be read again.
        capped: Number of kept images whose list of nearest neighbours was full: a copy behind it would stay.
        rounds: Number of rounds.
    """

    candidates: int = 0
    looked_at: int = 0
    verified: int = 0
    unseen: int = 0
    capped: int = 0
    rounds: int = 0


@dataclass(frozen=True, slots=True)
class PlantedCopies:
    """How many transformed copies of kept images the lists of nearest neighbours would hold.

    Attributes:
        copies: Number of copies.
        above_floor: Number of those whose cosine with their original is at least the rule's bound.
        estimate: Share of those that the lists would hold; None where there are none.
        low: Lower end of its 95 % interval.
        high: Upper end.
    """

    copies: int
    above_floor: int
    estimate: float | None
    low: float
    high: float

    @property
    def held(self) -> int:
        """Number of copies that the lists would hold."""
        return round(self.above_floor * (self.estimate or 0.0))


@dataclass(frozen=True, slots=True)
class Verification:
    """The pairs that were looked at, as far as the rule asks for that.

    Attributes:
        within: Pairs of two samples of the run; None where none were looked for.
        references: Pairs with an earlier run or a reference set; None without.
        planted: Copies that were planted to measure full lists, by embedder; empty where no list was full.
    """

    within: Looked | None
    references: Looked | None
    planted: dict[str, PlantedCopies]
