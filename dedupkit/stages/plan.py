"""What a run is to compute, as its stages read it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from dedupkit.clustering import DEFAULT_POLICY, Policy, Rule, parse_policy
from dedupkit.clustering.rules import Atom, Clause
from dedupkit.runfolder.folder import RunFolder
from dedupkit.signals import find_signal, known_signals
from dedupkit.sources import Shard

__all__ = ["Computing", "Job", "loosest_unranked", "ranked_conditions"]


@dataclass(frozen=True, slots=True)
class Computing:
    """How it is computed.

    Attributes:
        threads: Number of threads for joins and decoding, and of processes for verification; the result does not
            depend on it.
        seed: Seed for all random choices.
        device: Device for torch, e.g. ``cuda``; None for a GPU where there is one.
        target_recall: Recall of searches that are clustered because the exact one would take long.
    """

    threads: int = 1
    seed: int = 0
    device: str | None = None
    target_recall: float = 0.99


@dataclass(frozen=True, slots=True)
class Job:
    """What is to be computed.

    Attributes:
        folder: The run folder.
        shards: The shards to read.
        rule: The rule that the edges are for.
        hashes: Names of hashes that the scan computes beside those that it always computes.
        embedders: Embedder specification by signal name.
        computing: How it is computed.
        given: Embedders that were given as objects, by signal name.
        policy: Which of two duplicates is kept: rounds of verification look again among what is.
        meta: Columns of the data's own that the scan stores for the keep policy.
        beside: How many rows of earlier runs and reference sets the samples will be compared with, as far as known.
    """

    folder: RunFolder
    shards: Sequence[Shard]
    rule: Rule
    hashes: Sequence[str] = ()
    embedders: Mapping[str, str] = field(default_factory=dict)
    computing: Computing = field(default_factory=Computing)
    given: Mapping[str, Any] = field(default_factory=dict)
    policy: Policy = field(default_factory=lambda: parse_policy(DEFAULT_POLICY))
    meta: Sequence[str] = ()
    beside: int = 0

    @property
    def ranked(self) -> dict[str, Atom]:
        """By signal the loosest condition that proposes nearest neighbours for verification, and nothing else."""
        known = known_signals(self.embedders)
        return ranked_conditions(self.rule, {name for name in self.rule.signals if known[name].ranks})


def ranked_conditions(rule: Rule, names: Collection[str]) -> dict[str, Atom]:
    """The loosest condition of each of some signals in the alternatives ``(signal>=floor and verified)``.

    An alternative with further conditions gets every pair above its floor.
    """
    found: dict[str, Atom] = {}
    for clause in rule.clauses:
        for atom in clause:
            if atom.signal in names and _proposes(clause):
                before = found.get(atom.signal)
                found[atom.signal] = atom if before is None or atom.covers(before) else before
    return found


def loosest_unranked(rule: Rule, name: str, ranked: Collection[str]) -> Atom | None:
    """The loosest condition of a signal of which all pairs are needed; None where nearest neighbours are enough."""
    atoms = [
        atom
        for clause in rule.clauses
        for atom in clause
        if atom.signal == name and not (name in ranked and _proposes(clause))
    ]
    return next((atom for atom in atoms if all(atom.covers(other) for other in atoms)), None)


def _proposes(clause: Clause) -> bool:
    """Whether a clause is one condition that finds candidates, and verification."""
    return len(clause) > 1 and sum(find_signal(atom.signal).stage != "verify" for atom in clause) == 1
