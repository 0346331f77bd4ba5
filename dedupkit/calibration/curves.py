"""The curves of a rule: its alternatives that have a threshold, and what they say of scored pairs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from dedupkit.clustering.rules import Atom, Clause, Rule, reason_of
from dedupkit.signals import Signal

__all__ = ["Curve", "curves_of", "grid", "holds", "steps"]


@dataclass(frozen=True, slots=True)
class Curve:
    """An alternative of a rule, seen along the threshold of its first bounded condition.

    Attributes:
        reason: Signals of the alternative, as the manifest names it, such as ``lite and verified``.
        clause: The alternative, the condition with the threshold first.
        floor: Loosest threshold at which the run knows its pairs.
        signal: Signal whose threshold it is.
    """

    reason: str
    clause: Clause
    floor: float
    signal: Signal

    @property
    def atom(self) -> Atom:
        """The condition whose threshold moves."""
        return self.clause[0]

    @property
    def bound(self) -> float:
        """The threshold in force."""
        return float(self.atom.bound or 0.0)

    def at(self, threshold: float) -> Clause:
        """The alternative with another threshold."""
        return (replace(self.atom, bound=threshold), *self.clause[1:])

    def closeness(self, score: NDArray[np.floating]) -> NDArray[np.float64]:
        """Scores so that larger is closer: cosines as they are, distances negated."""
        values = np.asarray(score, np.float64)
        return values if self.atom.similarity else -values


def curves_of(rule: Rule, floors: Mapping[str, float], signals: Mapping[str, Signal]) -> list[Curve]:
    """The alternatives with a threshold, each by its first bounded condition.

    Args:
        rule: The rule; where two alternatives have the same signals, the looser one counts.
        floors: Loosest threshold that the run's pairs reach, by bounded signal. Pairs that must be verified are known
            only as far as they were, so there the rule's own threshold is the floor.
        signals: Signals of the rule, by name.
    """
    curves: dict[str, Curve] = {}
    for clause in rule.clauses:
        numeric = [atom for atom in clause if atom.bound is not None]
        if not numeric:
            continue
        atom = numeric[0]
        reason = reason_of(clause)
        verified = any(not signals[part.signal].finds_pairs for part in clause)
        floor = float(atom.bound or 0.0) if verified else floors.get(atom.signal, float(atom.bound or 0.0))
        ordered = (atom, *(part for part in clause if part is not atom))
        curve = Curve(reason, ordered, floor, signals[atom.signal])
        before = curves.get(reason)
        if before is None or atom.covers(before.atom):
            curves[reason] = curve
    return list(curves.values())


def grid(curve: Curve) -> NDArray[np.float64]:
    """Thresholds of the strata from which pairs are drawn, the strictest first, out to where impostors begin.

    They do not depend on the rule, so that pairs judged once stay a random sample of their stratum when the rule moves.
    """
    return np.array(curve.signal.strata(), np.float64)


def steps(curve: Curve) -> NDArray[np.float64]:
    """Thresholds that are reported, the strictest first: the grid, the rule's own, and the floor."""
    every = np.unique([*grid(curve), curve.bound, curve.floor])
    return every[::-1] if curve.atom.similarity else every


def holds(rule: Rule, scores: Mapping[str, NDArray[np.float32]]) -> NDArray[np.bool_]:
    """Whether the rule holds for each of some pairs.

    Args:
        rule: The rule.
        scores: (m,) float32 by signal: the distance or cosine, for identities 1 or 0; NaN where one of the two
            images has no such fingerprint. A signal that is missing holds for no pair.
    """
    count = len(next(iter(scores.values()))) if scores else 0
    result = np.zeros(count, bool)
    for clause in rule.clauses:
        result |= np.logical_and.reduce([_within(scores.get(atom.signal), atom, count) for atom in clause])
    return result


def _within(score: NDArray[np.float32] | None, atom: Atom, count: int) -> NDArray[np.bool_]:
    if score is None:
        return np.zeros(count, bool)
    bound = np.float32(1 if atom.bound is None else atom.bound)
    with np.errstate(invalid="ignore"):
        passed: NDArray[np.bool_] = score >= bound if atom.similarity or atom.bound is None else score <= bound
    return passed
