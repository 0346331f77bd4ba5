"""Which alternatives of a rule need verification, and whether what was looked at is enough for another rule."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from dedupkit.clustering.rules import Atom, Clause, Rule, implies
from dedupkit.signals import find_signal

__all__ = ["candidate_clauses", "covers_verified", "settled_clauses", "verified_facts"]


def covers_verified(rule: Rule, facts: Mapping[str, Any], keep: str | None) -> bool:
    """Whether every pair that a rule needs verified was, given what the stage says of its edges.

    A pair was looked at if a tested clause made it a candidate and no settled one spared it. Where lists of nearest
    neighbours were full, what was looked at besides depends on what the rule and the policy kept.

    Args:
        rule: The rule.
        facts: What the stage says.
        keep: The keep policy; None for pairs with a reference, which do not depend on it.
    """
    if facts.get("answers") == [str(rule), keep]:
        return True
    tested, settled = ([_from_json(clause) for clause in facts[name]] for name in ("tested", "settled"))
    now_settled = settled_clauses(rule)
    return all(any(implies(clause, earlier) for earlier in tested) for clause in candidate_clauses(rule)) and all(
        any(implies(spared, clause) for clause in now_settled) for spared in settled
    )


def candidate_clauses(rule: Rule) -> list[Clause]:
    """The clauses that need verification, without that condition."""
    clauses = [tuple(atom for atom in clause if not _looked_at(atom)) for clause in rule.clauses]
    return [rest for rest, clause in zip(clauses, rule.clauses, strict=True) if len(rest) < len(clause)]


def settled_clauses(rule: Rule) -> list[Clause]:
    """The clauses that hold or not without verification."""
    return [clause for clause in rule.clauses if not any(_looked_at(atom) for atom in clause)]


def verified_facts(
    rule: Rule, keep: str | None, bounds: Mapping[str, float], counts: Mapping[str, Any], retry: int
) -> dict[str, Any]:
    """What the marker of verified pairs states, for :func:`covers_verified` and the summary.

    Args:
        rule: The rule.
        keep: As for :func:`covers_verified`.
        bounds: By signal whose lists were full the similarity from which on its nearest neighbours are all pairs.
        counts: What was looked at.
        retry: Number of calls that missed images that should be there: the next one looks again; 0 for none.
    """
    tested = [_complete(clause, bounds) for clause in candidate_clauses(rule)]
    return {
        "unseen": counts["unseen"],
        "retry": retry,
        "tested": [_as_json(clause) for clause in tested],
        "settled": [_as_json(clause) for clause in settled_clauses(rule)],
        "verification": counts,
        **({"answers": [str(rule), keep]} if bounds else {}),
    }


def _complete(clause: Clause, bounds: Mapping[str, float]) -> Clause:
    """A tested clause as far as all its pairs were looked at."""
    if len(clause) != 1 or clause[0].signal not in bounds:
        return clause
    (atom,) = clause
    return (replace(atom, bound=max(atom.bound or 0.0, bounds[atom.signal])),)


def _as_json(clause: Clause) -> list[list[Any]]:
    return [[atom.signal, atom.bound, atom.similarity] for atom in clause]


def _from_json(clause: Sequence[Sequence[Any]]) -> Clause:
    return tuple(Atom(*fields) for fields in clause)


def _looked_at(atom: Atom) -> bool:
    """Whether a condition is settled by looking at the images again."""
    return find_signal(atom.signal).stage == "verify"
