"""Lists of nearest neighbours under one signal, which rounds of verification make longer among what is kept."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from dedupkit.clustering import Matches
from dedupkit.signals import find_signal
from dedupkit.signals.columns import Scanned
from dedupkit.signals.edges import pair_scores
from dedupkit.signals.signal import JoinSettings
from dedupkit.signals.vectors import nearest_among
from dedupkit.stages.known_copies import stored_copies
from dedupkit.stages.plan import Job

__all__ = ["NeighborLists"]

_LONGEST = 32
"""Neighbours that an image seeks at once, at most."""

Ints = NDArray[np.int64]
_EDGES = pa.schema([("a", pa.int64()), ("b", pa.int64()), ("score", pa.float32())])


class NeighborLists:
    """The nearest neighbours under one signal, as far as they are known.

    Args:
        name: The signal.
        facts: What its join says.
        job: What is computed.
        joined: What the join found.
    """

    def __init__(self, name: str, facts: Mapping[str, Any], job: Job, joined: Matches) -> None:
        how = job.computing
        self.name, self.complete = name, np.float32(facts["bound"])
        self._length = int(facts["ranks"]["k"])
        self._k, self._floor = int(facts["ranks"]["k"]), float(facts["ranks"]["floor"])
        settings = JoinSettings(np.inf, how.threads, how.target_recall, how.seed, how.device, self._floor)
        self._settings = replace(settings, known=stored_copies(job.folder, name))
        self._scanned = Scanned(job.folder, len(job.shards))
        self._joined = joined
        near = self._joined.score >= np.float32(self._floor)
        self._a, self._b = self._joined.a[near].astype(np.int64), self._joined.b[near].astype(np.int64)
        self._score = self._joined.score[near]
        self._base = len(self._a)
        labels = self._joined.first
        self.has_vector = labels == np.arange(len(labels))
        self._reach = self._ends()

    def _ends(self) -> NDArray[np.float32]:
        """(n,) the score of each image's k-th neighbour; minus infinity where it has fewer, so that none is missing."""
        ends, others = np.concatenate([self._a, self._b]), np.concatenate([self._b, self._a])
        score = np.tile(self._score, 2)
        last = _ranks(ends, others, score) == self._k - 1
        reach = np.full(len(self.has_vector), -np.inf, np.float32)
        reach[ends[last]] = score[last]
        return reach

    def due(self, kept: NDArray[np.bool_]) -> Ints:
        """The known pairs of kept images of which one is among the other's k nearest: a times n plus b, ascending."""
        held = np.flatnonzero(kept[self._a] & kept[self._b])
        a, b = self._a[held], self._b[held]
        ends, others, pair = np.concatenate([a, b]), np.concatenate([b, a]), np.tile(held, 2)
        near = self._score[pair] >= self._reach[ends]
        ends, others, pair = ends[near], others[near], pair[near]
        first = np.unique(pair[_ranks(ends, others, self._score[pair]) < self._k])
        return np.sort(self._a[first] * len(kept) + self._b[first])

    def scores_of(self, a: Ints, b: Ints) -> NDArray[np.float32]:
        """The scores of given pairs, (m,); NaN where a pair is not known."""
        return np.append(self._score, np.float32(np.nan))[self._places(a, b)]

    def _places(self, a: Ints, b: Ints) -> Ints:
        """(m,) where given pairs stand among the known ones; -1 where a pair is not known."""
        count = len(self.has_vector)
        keys = np.minimum(self._a, self._b) * count + np.maximum(self._a, self._b)
        if not len(keys):
            return np.full(len(a), -1)
        order, wanted = np.argsort(keys), a * count + b
        at = order[np.minimum(np.searchsorted(keys, wanted, sorter=order), len(keys) - 1)]
        return np.where(keys[at] == wanted, at, -1)

    def capped(self, kept: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Which kept images have as many neighbours as were sought, so that there may be more."""
        found: NDArray[np.bool_] = kept & self.has_vector & np.isfinite(self._reach)
        return found

    def short(self, kept: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Which kept images know fewer than k kept neighbours, and may have more."""
        held = kept[self._a] & kept[self._b]
        count = np.zeros(len(kept), np.int64)
        for end in (self._a, self._b):
            count += np.bincount(end[held & (self._score >= self._reach[end])], minlength=len(kept))
        return self.capped(kept) & (count < self._k)

    def search(self, kept: NDArray[np.bool_]) -> tuple[Ints, Ints, NDArray[np.float32]]:
        """Seek the nearest kept images of those that are short of them; pairs a < b, with scores.

        Twice as many as the last time, so that some are known when others are removed: else in a dense neighbourhood
        each removal would leave a few short of one.
        """
        wanted, samples = self.short(kept), np.flatnonzero(kept & self.has_vector)
        self._length = min(max(_LONGEST, self._k), 2 * self._length)
        found = nearest_among(
            self.name, self._scanned, samples, self._settings, np.flatnonzero(wanted[samples]), self._length
        )
        self._reach[samples[wanted[samples]]] = found.last[wanted[samples]]
        a, b = samples[found.a], samples[found.b]
        places = self._places(a, b)
        new, known = places < 0, places >= 0
        self._score[places[known]] = found.score[known]  # those of offered pairs are rounded otherwise than the ends
        return self._add(a[new], b[new], found.score[new])

    def offer(self, a: Ints, b: Ints) -> tuple[Ints, Ints, NDArray[np.float32]]:
        """Add those of some pairs a < b that reach the floor and are not known; returns them with their scores."""
        keys = np.unique(a * len(self.has_vector) + b)
        a, b = keys // len(self.has_vector), keys % len(self.has_vector)
        both = self.has_vector[a] & self.has_vector[b]
        a, b = a[both], b[both]
        if not len(a):
            return a, b, np.empty(0, np.float32)
        score = pair_scores(find_signal(self.name), self._scanned, a, b)
        new = (score >= np.float32(self._floor)) & (self._places(a, b) < 0)
        return self._add(a[new], b[new], score[new])

    def _add(self, a: Ints, b: Ints, score: NDArray[np.float32]) -> tuple[Ints, Ints, NDArray[np.float32]]:
        self._a, self._b = np.concatenate([self._a, a]), np.concatenate([self._b, b])
        self._score = np.concatenate([self._score, score])
        return a, b, score

    def matches(self) -> Matches:
        """The signal with what was found since."""
        joined, a, b = self._joined, self._a[self._base :], self._b[self._base :]
        return Matches(
            joined.first,
            np.concatenate([joined.a, a.astype(np.int32)]),
            np.concatenate([joined.b, b.astype(np.int32)]),
            np.concatenate([joined.score, self._score[self._base :]]),
            joined.origin,
        )

    def table(self) -> pa.Table:
        """The pairs that were found since, sorted."""
        columns = [self._a[self._base :], self._b[self._base :], self._score[self._base :]]
        return pa.table(columns, schema=_EDGES).sort_by([("a", "ascending"), ("b", "ascending")])


def _ranks(ends: Ints, others: Ints, score: NDArray[np.float32]) -> Ints:
    """(m,) the place of each pair among those of its end, the best score first, ties by the other's number."""
    order = np.lexsort((others, -score, ends))
    _, start, count = np.unique(ends[order], return_index=True, return_counts=True)
    ranks = np.empty(len(ends), np.int64)
    ranks[order] = np.arange(len(ends)) - np.repeat(start, count)
    return ranks
