"""Candidates: the pairs of samples whose verdict depends on looking at the images again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dedupkit.clustering import Matches, pairs_of_clauses
from dedupkit.clustering.rules import Clause
from dedupkit.clustering.twins import firsts
from dedupkit.signals import find_signal
from dedupkit.signals.columns import Scanned
from dedupkit.signals.matches import leading
from dedupkit.stages.plan import Job

__all__ = ["Candidates"]

Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Candidates:
    """Pairs whose verdict depends on looking at the images.

    Attributes:
        a: (m,) int64 samples, the first of their bytes; the smaller one.
        b: (m,) int64 samples.
        first: (n,) int32, for each sample the first with the same bytes, -1 where it has no image.
        signals: What the other signals of the rule say.
        certain: (m,) bool, those that a clause proposes of which all pairs are there.
    """

    a: Ints
    b: Ints
    first: NDArray[np.int32]
    signals: Mapping[str, Matches]
    certain: NDArray[np.bool_]

    @property
    def images(self) -> int:
        """Number of different images."""
        return len(leading(self.first))

    @classmethod
    def of(cls, job: Job, tested: list[Clause], settled: list[Clause]) -> Candidates:
        """The pairs that a tested clause proposes and no settled one decides."""
        scanned = Scanned(job.folder, len(job.shards))
        names = {atom.signal for clause in (*settled, *tested) for atom in clause}
        signals = {name: find_signal(name).matches(scanned) for name in names}
        first = find_signal("exact").labels(scanned)  # equal bytes are looked at once
        leaders = leading(first).astype(np.int32)
        if any(matches.origin == "sample" for matches in signals.values()):
            leaders = firsts([first, *(matches.first for matches in signals.values())], first >= 0)
        count = len(first)

        def keys_of(clauses: list[Clause]) -> Ints:
            a, b = pairs_of_clauses(clauses, signals, leaders)
            return a.astype(np.int64) * count + b

        def of_images(keys: Ints) -> Ints:
            a, b = first[keys // max(count, 1)].astype(np.int64), first[keys % max(count, 1)].astype(np.int64)
            found: Ints = np.unique(np.minimum(a, b)[a != b] * count + np.maximum(a, b)[a != b])
            return found

        done = keys_of(settled)
        proposed = keys_of(tested)
        keys = of_images(proposed[~np.isin(proposed, done)])
        ranked = job.ranked
        sure = keys_of([clause for clause in tested if len(clause) > 1 or clause[0].signal not in ranked])
        return cls(keys // max(count, 1), keys % max(count, 1), first, signals, np.isin(keys, of_images(sure)))
