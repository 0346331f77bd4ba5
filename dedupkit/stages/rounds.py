"""Rounds of verification: nearest neighbours are looked at, duplicates removed, and what is kept looks again.

A list of k nearest neighbours may be full of copies or of images that only look alike, and end before another copy. So
after a round the k nearest among what is kept are sought for each kept image whose list has lost members, until no
list has. In the end, of any two kept images of which one is among the k nearest kept images of the other, the pair was
looked at and does not hold.

Pairs are looked at in batches, the best scores first, and a pair is skipped while one of its images is removed. What a
round does depends on scores, the rule and the keep policy, not on workers or on the order of the input but for the
policy's last column.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from dedupkit.clustering import Matches, decide, pairs_of_clauses
from dedupkit.clustering.rules import Clause
from dedupkit.signals import find_signal
from dedupkit.signals.columns import Scanned, read_column
from dedupkit.signals.edges import pair_scores
from dedupkit.signals.signal import JoinSettings
from dedupkit.signals.vectors import nearest_among
from dedupkit.stages.decide import keep_order
from dedupkit.stages.plan import Job
from dedupkit.stages.verify_pairs import PairVerifier

__all__ = ["Candidates", "Seen", "look_in_rounds"]

_LEAST_BATCH, _BATCHES = 4096, 8
"""Pairs of a batch, at least; and batches of a round, at most."""
_LONGEST = 32
"""Neighbours that an image seeks at once, at most."""

Ints = NDArray[np.int64]
_EDGES = pa.schema([("a", pa.int64()), ("b", pa.int64()), ("score", pa.float32())])


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
        return int((self.first == np.arange(len(self.first))).sum())

    @classmethod
    def of(cls, job: Job, tested: list[Clause], settled: list[Clause]) -> Candidates:
        """The pairs that a tested clause proposes and no settled one decides."""
        scanned = Scanned(job.folder, len(job.shards))
        names = {atom.signal for clause in (*settled, *tested) for atom in clause}
        signals = {name: find_signal(name).matches(scanned) for name in names}
        first = find_signal("exact").labels(scanned)  # equal bytes are looked at once
        leaders = np.flatnonzero(first == np.arange(len(first))).astype(np.int32)
        if any(matches.origin == "sample" for matches in signals.values()):
            leaders = np.flatnonzero(first >= 0).astype(np.int32)
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


@dataclass(frozen=True, slots=True)
class Seen:
    """What looking at pairs gave.

    Attributes:
        table: The pairs that hold, sorted: ``a``, ``b``, ``score``, ``a_is``, ``b_is``.
        unseen: Number of pairs of which an image could not be read again.
        found: By signal the scored pairs that rounds found beside those of its join.
        counts: ``candidates``, those ``looked_at``, those ``verified`` of them, ``capped``: kept images of which the
            list of nearest neighbours was full in the end, so that images behind it were not looked at; ``rounds``.
        listed: By signal the samples that are kept, the first of their bytes, and have a vector, (m,) int64.
    """

    table: pa.Table
    unseen: int
    found: Mapping[str, pa.Table]
    counts: Mapping[str, int]
    listed: Mapping[str, Ints] = field(default_factory=dict)


def look_in_rounds(
    job: Job, candidates: Candidates, full: Mapping[str, Mapping[str, Any]], verifier: PairVerifier
) -> Seen:
    """Look at the candidates, in rounds where lists of nearest neighbours are full.

    Args:
        job: What is computed.
        candidates: The pairs to begin with.
        full: What the join says of each signal whose lists are full for some image.
        verifier: Looks at pairs.
    """
    if not full:
        table, unseen = verifier.verify(candidates.a, candidates.b)
        counts = {"candidates": len(candidates.a), "looked_at": len(candidates.a), "verified": table.num_rows}
        return Seen(table, unseen, {}, {**counts, "capped": 0, "rounds": 1})
    state = _State(job, candidates, [_Lists(name, facts, job, candidates) for name, facts in full.items()])
    rounds = 0
    while len(fresh := state.fresh()) or state.search():
        rounds += len(fresh) > 0
        for batch in _best_first(fresh, state.priority[fresh]):
            state.look(batch, verifier)
    counts = {
        "candidates": len(state.a),
        "looked_at": int(state.looked.sum()),
        "verified": state.table.num_rows,
        "capped": int(np.logical_or.reduce([lists.capped(state.kept) for lists in state.lists]).sum()),
        "rounds": rounds,
    }
    table = state.table.sort_by([("a", "ascending"), ("b", "ascending")])
    listed = {lists.name: np.flatnonzero(state.kept & lists.has_vector) for lists in state.lists}
    return Seen(table, state.unseen, state.found(), counts, listed)


def _best_first(fresh: Ints, priority: NDArray[np.float32]) -> Iterator[Ints]:
    """Places of pairs in batches, the best first; in a batch by sample, so that features are used again."""
    ordered = fresh[np.argsort(-priority, kind="stable")]
    size = max(_LEAST_BATCH, -(-len(ordered) // _BATCHES))
    return (np.sort(ordered[begin : begin + size]) for begin in range(0, len(ordered), size))


@dataclass(slots=True)
class _State:
    """All candidates so far, which were looked at, and what is kept by what was found."""

    job: Job
    start: Candidates
    lists: list[_Lists]
    a: Ints = field(init=False)
    b: Ints = field(init=False)
    priority: NDArray[np.float32] = field(init=False)
    looked: NDArray[np.bool_] = field(init=False)
    kept: NDArray[np.bool_] = field(init=False)
    witness: NDArray[np.int32] = field(init=False)
    table: pa.Table = field(init=False)
    order: Ints = field(init=False)
    readable: NDArray[np.bool_] = field(init=False)
    unseen: int = 0

    def __post_init__(self) -> None:
        job, start = self.job, self.start
        self.a, self.b = start.a, start.b
        self.priority = np.full(len(self.a), -np.inf, np.float32)
        for lists in self.lists:
            score = lists.scores_of(self.a, self.b)
            self.priority = np.fmax(self.priority, score)
            self.priority[score >= lists.complete] = np.inf
        self.priority[start.certain] = np.inf
        self.looked = np.zeros(len(self.a), bool)
        shards = len(job.shards)
        self.readable = read_column(job.folder, shards, "error")["error"].is_null().to_numpy()
        self.order = keep_order(job.folder, shards, job.policy, len(self.readable))
        self.table = pa.table({"a": pa.array([], pa.int64()), "b": pa.array([], pa.int64())})
        self._decide()

    def fresh(self) -> Ints:
        """Places of the pairs that are to be looked at: all of which every pair is there, else those of kept images."""
        open_pairs = np.isinf(self.priority) & (self.priority > 0) | self.kept[self.a] & self.kept[self.b]
        return np.flatnonzero(~self.looked & open_pairs)

    def look(self, batch: Ints, verifier: PairVerifier) -> None:
        """Look at a batch, but for pairs of which an image was removed since; then decide again."""
        batch, before = np.intersect1d(batch, self.fresh()), self.witness
        table, unseen = verifier.verify(self.a[batch], self.b[batch])
        self.looked[batch] = True
        self.unseen += unseen
        self.table = pa.concat_tables([self.table, table]) if self.table.num_rows else table
        self._decide()
        self._pass_on(before)

    def search(self) -> bool:
        """Seek new neighbours among what is kept; False where no list has lost members."""
        short = [lists for lists in self.lists if lists.short(self.kept).any()]
        for lists in short:
            a, b, score = lists.search(self.kept)
            self._add(a, b, score)
        return bool(short)

    def _pass_on(self, before: NDArray[np.int32]) -> None:
        """Hold what a removed image stood for against its own witness.

        Else the next best of its duplicates would take its place, to be removed in the next round, and so on.
        """
        fell = (before < 0) & (self.witness >= 0)
        y = np.flatnonzero((before >= 0) & fell[before])
        w = self.witness[before[y]].astype(np.int64)
        for lists in self.lists:
            a, b, _ = lists.offer(np.minimum(w, y)[w != y], np.maximum(w, y)[w != y])
            self._add(a, b, np.full(len(a), np.inf, np.float32))

    def _add(self, a: Ints, b: Ints, priority: NDArray[np.float32]) -> None:
        new = ~np.isin(a * len(self.kept) + b, self.a * len(self.kept) + self.b)
        self.a, self.b = np.concatenate([self.a, a[new]]), np.concatenate([self.b, b[new]])
        self.priority = np.concatenate([self.priority, priority[new]])
        self.looked = np.concatenate([self.looked, np.zeros(int(new.sum()), bool)])

    def found(self) -> dict[str, pa.Table]:
        """By signal the scored pairs beside those of its join."""
        tables = {lists.name: lists.table() for lists in self.lists}
        return {name: table for name, table in tables.items() if table.num_rows}

    def _decide(self) -> None:
        first = self.start.first
        a, b = (self.table[end].to_numpy().astype(np.int32) for end in ("a", "b"))
        signals = dict(self.start.signals)
        for lists in self.lists:
            signals[lists.name] = lists.matches()
        for name in self.job.rule.signals:
            if find_signal(name).stage == "verify":
                signals[name] = Matches(first, a, b, np.ones(len(a), np.float32))
        decision = decide(self.job.rule, signals, self.order, self.readable)
        self.kept = np.zeros(len(first), bool)
        self.kept[first[self.readable & (decision.witness < 0)]] = True
        removed = (decision.witness >= 0) & (first == np.arange(len(first))) & ~self.kept
        self.witness = np.full(len(first), -1, np.int32)
        self.witness[removed] = first[decision.witness[removed]]


class _Lists:
    """The nearest neighbours under one signal, as far as they are known.

    Args:
        name: The signal.
        facts: What its join says.
        job: What is computed.
        candidates: The pairs to begin with, and what the signal says.
    """

    def __init__(self, name: str, facts: Mapping[str, Any], job: Job, candidates: Candidates) -> None:
        how = job.computing
        self.name, self.complete = name, np.float32(facts["bound"])
        self._length = int(facts["ranks"]["k"])
        self._k, self._floor = int(facts["ranks"]["k"]), float(facts["ranks"]["floor"])
        self._settings = JoinSettings(np.inf, how.threads, how.target_recall, how.seed, how.device, self._floor)
        self._scanned = Scanned(job.folder, len(job.shards))
        self._joined = candidates.signals[name]
        near = self._joined.score >= np.float32(self._floor)
        self._a, self._b = self._joined.a[near].astype(np.int64), self._joined.b[near].astype(np.int64)
        self._score = self._joined.score[near]
        self._base = len(self._a)
        labels = self._joined.first
        self.has_vector = labels == np.arange(len(labels))
        self._reach = self._ends()

    def _ends(self) -> NDArray[np.float32]:
        """(n,) the score of each image's k-th neighbour; minus infinity where it has fewer, so that none is missing."""
        ends = np.concatenate([self._a, self._b])
        score = np.tile(self._score, 2)
        order = np.lexsort((-score, ends))
        ends, score = ends[order], score[order]
        reach = np.full(len(self.has_vector), -np.inf, np.float32)
        _, start = np.unique(ends, return_index=True)
        rank = np.arange(len(ends)) - np.repeat(start, np.diff(np.append(start, len(ends))))
        reach[ends[rank == self._k - 1]] = score[rank == self._k - 1]
        return reach

    def scores_of(self, a: Ints, b: Ints) -> NDArray[np.float32]:
        """The scores of given pairs, (m,); NaN where a pair is not known."""
        count = len(self.has_vector)
        keys = np.minimum(self._a, self._b) * count + np.maximum(self._a, self._b)
        order = np.argsort(keys)
        wanted, score = a * count + b, np.full(len(a), np.nan, np.float32)
        if len(keys):
            at = order[np.minimum(np.searchsorted(keys, wanted, sorter=order), len(keys) - 1)]
            known = keys[at] == wanted
            score[known] = self._score[at[known]]
        return score

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

        Twice as many as the last time, for in a dense neighbourhood each removal would leave a few short of one.
        """
        wanted, samples = self.short(kept), np.flatnonzero(kept & self.has_vector)
        self._length = min(max(_LONGEST, self._k), 2 * self._length)
        found = nearest_among(
            self.name, self._scanned, samples, self._settings, np.flatnonzero(wanted[samples]), self._length
        )
        self._reach[samples[wanted[samples]]] = found.last[wanted[samples]]
        return self._add(samples[found.a], samples[found.b], found.score)

    def offer(self, a: Ints, b: Ints) -> tuple[Ints, Ints, NDArray[np.float32]]:
        """Add those of some pairs a < b that reach the floor and are not known; returns them with their scores."""
        keys = np.unique(a * len(self.has_vector) + b)
        a, b = keys // len(self.has_vector), keys % len(self.has_vector)
        both = self.has_vector[a] & self.has_vector[b]
        a, b = a[both], b[both]
        if not len(a):
            return a, b, np.empty(0, np.float32)
        score = pair_scores(find_signal(self.name), self._scanned, a, b)
        near = score >= np.float32(self._floor)
        return self._add(a[near], b[near], score[near])

    def _add(self, a: Ints, b: Ints, score: NDArray[np.float32]) -> tuple[Ints, Ints, NDArray[np.float32]]:
        new = np.isnan(self.scores_of(a, b))
        self._a, self._b = np.concatenate([self._a, a[new]]), np.concatenate([self._b, b[new]])
        self._score = np.concatenate([self._score, score[new]])
        return a[new], b[new], score[new]

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
