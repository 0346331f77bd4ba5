"""Decisions over random samples and rules, against the definition written out as loops."""

from __future__ import annotations

from random import Random

import numpy as np
from test_decide import RULES, check_decision, check_keep_set

from hostile.section import Section, Tally


class DecisionsSection(Section):
    """Samples with missing values, unusable ones, equal files with different captions, in any order of preference."""

    name = "decisions"
    oracle = "the greedy walk over all pairs, written out as loops"
    volume = 60_000

    def attempt(self, draw: Random, number: int) -> Tally:
        """One decision, or one keep-set of a random graph."""
        count = draw.randrange(1, 15)
        order = np.array(draw.sample(range(count), count))
        if draw.random() < 0.3:
            ends = [draw.sample(range(count), 2) for _ in range(draw.randrange(31))] if count > 1 else []
            check_keep_set(np.array([a for a, _ in ends], int), np.array([b for _, b in ends], int), order)
            return Tally()
        files = [(draw.randrange(3), _maybe(draw, 6), _maybe(draw, 5)) for _ in range(draw.randrange(1, 7))]
        which = [draw.randrange(len(files)) for _ in range(count)]
        usable = np.array([draw.random() < 0.8 for _ in range(count)])
        values = {"exact": which, "caption": [_maybe(draw, 5) for _ in range(count)]}
        for place, name in enumerate(("pixels", "pdq", "phash")):
            values[name] = [files[file][place] for file in which]
        values = {name: [v if usable[i] else None for i, v in enumerate(column)] for name, column in values.items()}
        check_decision(values, usable, order, draw.choice(RULES))
        return Tally()


def _maybe(draw: Random, most: int) -> int | None:
    return None if draw.random() < 0.15 else draw.randrange(most)
