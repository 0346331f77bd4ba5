"""Candidates between a run's samples and the rows of a reference: which verification looks at, and in what order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dedupkit.clustering import pairs_of_clauses
from dedupkit.clustering.rules import Clause, Rule
from dedupkit.runfolder import RunFolder
from dedupkit.signals.across import Across
from dedupkit.stages.clauses import candidate_clauses, settled_clauses
from dedupkit.stages.outside import Beside, beside

__all__ = ["Crossing"]

Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Crossing:
    """Pairs of contents whose verdict depends on looking at the images, and the samples that have these contents.

    A pair of contents is a number: the first sample with the one, times ``rows``, plus the first row with the other.

    Attributes:
        rows: Number of rows of the reference.
        pairs: (m,) int64, the candidates, ascending.
        priority: (m,) float32, the score by which they come; infinity for those that are looked at in any case.
        equal: (e,) int64, the pairs of equal bytes.
        sample: (p,) int64, the sample of each pair of a sample and a row that a clause with verification proposes.
        content: (p,) int64, the contents of that pair.
        settled: (n,) bool, samples that duplicate a row whatever verification says.
        full: (n,) bool, first samples of their content of which a list of nearest rows is full.
    """

    rows: int
    pairs: Ints
    priority: NDArray[np.float32]
    equal: Ints
    sample: Ints
    content: Ints
    settled: NDArray[np.bool_]
    full: NDArray[np.bool_]

    @classmethod
    def of(
        cls, folder: RunFolder, number: int, rule: Rule, exact: Across, full: Mapping[str, Mapping[str, Any]]
    ) -> Crossing:
        """The pairs that a clause with verification proposes and no other settles.

        Args:
            folder: The run folder; the other signals of the rule are joined with the reference.
            number: Number of the reference.
            rule: What makes a sample duplicate it.
            exact: The join of equal bytes.
            full: What the joins say of the signals whose lists of nearest rows are full for some image.
        """
        tested, settled = candidate_clauses(rule), settled_clauses(rule)
        names = list(dict.fromkeys(atom.signal for clause in (*tested, *settled) for atom in clause))
        crossing = _Pairs(beside(folder, [number], names), exact)
        blocks = [(a * crossing.rows + b) for a, b, _ in exact.blocks]
        equal = np.sort(np.concatenate([np.zeros(0, np.int64), *blocks]))
        done, _ = crossing.of(settled)
        wanted, content = crossing.of(tested)
        left = ~np.isin(wanted, done)
        wanted, content = wanted[left], content[left]
        pairs = np.setdiff1d(content, equal)
        priority = np.full(len(pairs), -np.inf, np.float32)
        lists = np.zeros(crossing.count, bool)
        for name, facts in full.items():
            score, sizes = crossing.scores_of(pairs, name, float(facts["ranks"]["floor"]))
            lists |= sizes >= int(facts["ranks"]["k"])
            score[score >= np.float32(facts["bound"])] = np.inf
            priority = np.fmax(priority, score)
        certain = [clause for clause in tested if len(clause) > 1 or clause[0].signal not in full]
        priority[np.isin(pairs, crossing.of(certain)[1])] = np.inf
        decided = np.zeros(crossing.count, bool)
        decided[crossing.sample_of(done)] = True
        return cls(crossing.rows, pairs, priority, equal, crossing.sample_of(wanted), content, decided, lists)

    def duplicates(self, held: Ints) -> NDArray[np.bool_]:
        """(n,) bool, samples that duplicate a row, given the candidates that hold."""
        found = self.settled.copy()
        found[self.sample[np.isin(self.content, held) | np.isin(self.content, self.equal)]] = True
        return found

    def open(self, duplicates: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """(m,) bool, candidates that a sample has which is no duplicate."""
        return np.isin(self.pairs, self.content[~duplicates[self.sample]])


class _Pairs:
    """Pairs of samples and rows by clause, from the samples and the rows that they touch."""

    def __init__(self, placed: Beside, exact: Across) -> None:
        self.count, self.rows = len(exact.own), len(exact.other)
        self._placed, self._exact = placed, exact
        self._everything = np.arange(self.count + len(placed.row), dtype=np.int32)

    def of(self, clauses: Sequence[Clause]) -> tuple[Ints, Ints]:
        """The pairs that satisfy any of some clauses, sorted: of a sample and a row, and of their contents."""
        # Only scored pairs are of a sample and a row: all that have a fingerprint in common are on one side.
        a, b = pairs_of_clauses(clauses, self._placed.signals, self._everything, shared=False)
        a, row = a.astype(np.int64), self._placed.row[b - self.count]
        return a * self.rows + row, self._exact.own[a].astype(np.int64) * self.rows + self._exact.other[row]

    def sample_of(self, pairs: Ints) -> Ints:
        """The samples of some pairs."""
        return pairs // max(self.rows, 1)

    def scores_of(self, pairs: Ints, name: str, floor: float) -> tuple[NDArray[np.float32], Ints]:
        """The scores of pairs of contents under a signal, NaN where there is none; and each sample's number of them."""
        found = self._placed.signals[name]
        near = (found.a < self.count) & (found.b >= self.count) & (found.score >= np.float32(floor))
        a, row, score = found.a[near].astype(np.int64), self._placed.row[found.b[near] - self.count], found.score[near]
        keys = a * self.rows + row
        order = np.argsort(keys)
        keys, score = keys[order], score[order]
        at = np.minimum(np.searchsorted(keys, pairs), max(len(keys) - 1, 0))
        known = keys[at] == pairs if len(keys) else np.zeros(len(pairs), bool)
        scores = np.full(len(pairs), np.nan, np.float32)
        scores[known] = score[at[known]]
        return scores, np.bincount(a, minlength=self.count)
