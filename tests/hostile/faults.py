"""A section that finds something in every attempt: the suite's own test."""

from __future__ import annotations

import os
import time
from random import Random

from hostile.section import Section, Tally


class FaultsSection(Section):
    """One finding of each kind in turn."""

    name = "faults"
    oracle = "none"
    volume = 0
    limit = 1.0

    def attempt(self, draw: Random, number: int) -> Tally | None:
        """What the number asks for."""
        kind = number % 6
        if kind == 0:
            os.abort()
        if kind == 1:
            while time.monotonic():
                pass
        if kind == 2:
            raise RuntimeError("a crash of Python")
        assert kind != 3, "a wrong outcome"
        tally = Tally()
        if kind == 4:
            tally.lose("two samples", 2)
        return tally
