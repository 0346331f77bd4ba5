"""What a section of the hostile suite is: a kind of input, and an oracle that says what must come of it."""

from __future__ import annotations

import importlib
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

__all__ = ["SECTIONS", "Section", "Tally", "load"]


@dataclass
class Tally:
    """What came of one attempt.

    Attributes:
        tried: Number of inputs.
        lost: Number of inputs, or parts of one, that have neither a row nor a reason nor a count.
        wrong: Number of outcomes that the oracle contradicts.
        notes: What was lost or wrong, in words.
    """

    tried: int = 1
    lost: int = 0
    wrong: int = 0
    notes: list[str] = field(default_factory=list)

    def lose(self, note: str, count: int = 1) -> None:
        """Count something that vanished."""
        self.lost += count
        self.notes.append(f"lost: {note}"[:2000])

    def contradict(self, note: str) -> None:
        """Count an outcome that the oracle contradicts."""
        self.wrong += 1
        self.notes.append(f"wrong: {note}"[:2000])

    def check(self, holds: object, note: str) -> None:
        """Count an outcome that is not as the oracle has it."""
        if not holds:
            self.contradict(note)


class Section:
    """One kind of hostile input.

    Attributes:
        name: In the table, and on the command line.
        oracle: What an outcome is compared with.
        volume: Number of inputs of a million.
        each: Number of inputs of one attempt.
        limit: Seconds of processor time that an attempt may use before it counts as a hang.
        whole: Whether there is a list of inputs that is tried in order: it has an end, and one process does it.
    """

    name: str
    oracle: str
    volume: int
    each: int = 1
    limit: float = 20.0
    whole: bool = False

    def open(self, folder: Path) -> None:
        """Prepare what all attempts use, in the process that makes them.

        Args:
            folder: An empty folder in memory.
        """

    def attempt(self, draw: Random, number: int) -> Tally | None:
        """Make one attempt.

        Args:
            draw: Source of all random choices; it depends on the seed, the section and the number alone.
            number: Number of the attempt.

        Returns:
            What came of it; None where the inputs are a list that has ended.

        Raises:
            Exception: Anything that escapes counts as a crash, an ``AssertionError`` as a wrong outcome.
        """
        raise NotImplementedError

    def close(self) -> None:
        """End what :meth:`open` started."""


SECTIONS = {
    "coefficients": "hostile.coefficients:CoefficientsSection",
    "images": "hostile.images:ImagesSection",
    "tars": "hostile.tars:TarsSection",
    "parquet": "hostile.parquet:ParquetSection",
    "sidecars": "hostile.sidecars:SidecarsSection",
    "names": "hostile.names:NamesSection",
    "rules": "hostile.rules:RulesSection",
    "decisions": "hostile.decisions:DecisionsSection",
    "joins": "hostile.joins:JoinsSection",
    "servers": "hostile.servers:ServersSection",
    "kills": "hostile.folders:KillsSection",
    "damages": "hostile.folders:DamagesSection",
    "disks": "hostile.disks:DisksSection",
}
"""Name to class, as ``module:class``."""


def load(path: str) -> Section:
    """The section of a path ``module:class``."""
    module, _, name = path.partition(":")
    section: Section = getattr(importlib.import_module(module), name)()
    return section
