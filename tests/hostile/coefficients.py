"""Mutated JPEGs for the compiled coefficient reader, between inaccessible pages."""

from __future__ import annotations

from pathlib import Path
from random import Random

import hostile_jpeg

from hostile.section import Section, Tally

_BATCHES = 10


class CoefficientsSection(Section):
    """JPEGs of all kinds with changed segments, tables and scans, read in batches with an innocent neighbour."""

    name = "coefficients"
    oracle = "guard pages around every array, and the coefficients of an untouched neighbour"
    volume = 250_000
    each = _BATCHES * (hostile_jpeg.BATCH - 1)

    def open(self, folder: Path) -> None:
        """Compile the reader."""
        hostile_jpeg.try_many(1)

    def attempt(self, draw: Random, number: int) -> Tally:
        """Some batches."""
        found = hostile_jpeg.try_many(self.each, draw.getrandbits(32))
        if found["crashes"]:
            raise RuntimeError(f"the reader raised an exception {found['crashes']} times")
        tally = Tally(found["tried"])
        for _ in range(found["wrong"]):
            tally.contradict("the coefficients of an untouched JPEG changed")
        return tally
