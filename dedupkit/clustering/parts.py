"""A decision in parts: samples that no chain of pairs connects are decided about apart, with the same outcome.

Two samples that satisfy a rule satisfy every condition of one of its alternatives. So the components of what one
condition of each alternative connects hold every pair that satisfies the rule, and a verdict follows from what is in
the sample's own component. Labels of the components are one union-find over all samples; scored pairs pass by in
blocks. Components are put together to parts of about the same size, whose samples and scored pairs go into files, and
each part is a decision of its own. A component that is larger than a part is one alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dedupkit.clustering.edges import within
from dedupkit.clustering.rules import Atom, Rule
from dedupkit.signals.matches import Streamed
from dedupkit.store import in_blocks

__all__ = ["MOST_PARTS", "NO_PART", "Parts", "find_parts"]

NO_PART = 255
"""Stands for no part."""

MOST_PARTS = 64
"""More parts than this are not made; they are larger instead."""


@dataclass(frozen=True, slots=True)
class Parts:
    """The part of each sample.

    Attributes:
        numbers: (n,) uint8, the number of each sample's part; 255 for a sample that nothing connects with another one.
        count: Number of parts.
        linked: The signals of which no pair that counts lies across two parts.
    """

    numbers: NDArray[np.uint8]
    count: int
    linked: frozenset[str]


def find_parts(rule: Rule, signals: Mapping[str, Streamed], active: NDArray[np.bool_], size: int) -> Parts:
    """Put the samples into parts.

    Args:
        rule: What makes two samples duplicates.
        signals: One entry for each signal of the rule.
        active: (n,) which samples take part.
        size: Number of samples and scored pairs that a part should hold at most.
    """
    from dedupkit.clustering.class_kernels import connect, connect_pairs, count, flatten
    from dedupkit.clustering.part_kernels import fill_parts, weigh

    links = _links(rule, signals)
    parent = np.arange(len(active), dtype=np.int32)
    amount = np.zeros(len(active), np.uint32)
    for name, signal in signals.items():
        for a, b, score in signal.blocks():
            count(a, amount)
            if name in links:
                held = within(score, links[name])
                connect_pairs(a[held], b[held], parent)
        if name in links:
            for low, labels in in_blocks(signal.labels()):
                connect(labels, low, parent)
    flatten(parent)
    several = np.zeros(len(active), np.uint8)
    weigh(parent, active, amount, several)
    numbers = np.full(len(active), NO_PART, np.uint8)
    made = fill_parts(parent, several, amount, size, MOST_PARTS, numbers)
    return Parts(numbers, int(made), frozenset(links))


def _links(rule: Rule, signals: Mapping[str, Streamed]) -> dict[str, Atom]:
    """By signal the loosest condition of it that stands for an alternative: that with the fewest pairs of all in it."""
    chosen: dict[str, Atom] = {}
    for clause in rule.clauses:
        atom = clause[0] if len(clause) == 1 else min(clause, key=lambda atom: _pairs(atom, signals[atom.signal]))
        before = chosen.get(atom.signal)
        chosen[atom.signal] = atom if before is None or atom.covers(before) else before
    return chosen


def _pairs(atom: Atom, signal: Streamed) -> int:
    """How many pairs of samples satisfy a condition, pairs of equal fingerprints counted among samples."""
    from dedupkit.clustering.part_kernels import equal_pairs

    scored = sum(int(np.count_nonzero(within(score, atom))) for _, _, score in signal.blocks())
    seen = np.zeros(signal.samples, np.int32)
    return scored + sum(int(equal_pairs(labels, seen)) for _, labels in in_blocks(signal.labels()))
