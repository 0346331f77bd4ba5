"""Rules: which scored edges make two samples duplicates.

A rule is a monotone Boolean formula over signals, kept as an ordered list of clauses (its disjunctive normal form), so
that the first clause that holds for a pair is the reason that the manifest states. :mod:`dedupkit.clustering.grammar`
reads it from text.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Atom", "Clause", "Rule", "implies", "reason_of", "written"]


@dataclass(frozen=True, slots=True)
class Atom:
    """One condition: a signal, and the bound on its score (None for signals that hold or do not)."""

    signal: str
    bound: float | None = None
    similarity: bool = False

    def __str__(self) -> str:
        if self.bound is None:
            return self.signal
        return f"{self.signal}{'>=' if self.similarity else '<='}{written(self.bound)}"

    def covers(self, other: Atom) -> bool:
        """Whether every pair that satisfies ``other``, of the same signal, satisfies this one."""
        return self.signal == other.signal and _looseness(self) >= _looseness(other)

    @property
    def perfect(self) -> float:
        """The score of a pair that is identical under this signal."""
        return 1.0 if self.similarity else 0.0


Clause = tuple[Atom, ...]


def reason_of(clause: Clause) -> str:
    """The alternative as the manifest names it: ``pdq``, ``lite and verified``."""
    return " and ".join(atom.signal for atom in clause)


def implies(clause: Clause, other: Clause) -> bool:
    """Whether every pair that satisfies ``clause`` satisfies ``other``."""
    return all(any(theirs.covers(ours) for ours in clause) for theirs in other)


@dataclass(frozen=True, slots=True)
class Rule:
    """A parsed rule.

    Attributes:
        text: Text of the rule as it was written, presets by name.
        clauses: alternatives in the order written; all atoms of one must hold.
    """

    text: str
    clauses: tuple[Clause, ...]

    def __str__(self) -> str:
        parts = [" and ".join(map(str, clause)) for clause in self.clauses]
        return parts[0] if len(parts) == 1 else " or ".join(f"({p})" if " and " in p else p for p in parts)

    @property
    def signals(self) -> tuple[str, ...]:
        """The signals that the rule names, in order."""
        return tuple(dict.fromkeys(atom.signal for clause in self.clauses for atom in clause))

    def loosest(self, signal: str) -> Atom:
        """The atom of this signal that lets the most pairs through: the floor that its edges must reach."""
        atoms = [atom for clause in self.clauses for atom in clause if atom.signal == signal]
        return max(atoms, key=lambda atom: _looseness(atom))


def written(bound: float) -> str:
    """A bound as text that reads back as the same number."""
    return str(int(bound)) if bound.is_integer() and abs(bound) < 2**53 else repr(bound)


def _looseness(atom: Atom) -> float:
    if atom.bound is None:
        return 0.0
    return -atom.bound if atom.similarity else atom.bound
