"""Rounds of verification: nearest neighbours are looked at, duplicates removed, and what is kept looks again.

A list of k nearest neighbours may be full of copies or of images that only look alike, and end before another copy. So
after a round the places that removed images leave in the lists of kept ones are taken by the next nearest of what is
kept, until no list has one to fill. In the end, of any two kept images of which one is among the k nearest kept images
of the other, the pair was looked at and does not hold.

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

from dedupkit.clustering import Matches, decide
from dedupkit.signals import find_signal
from dedupkit.signals.columns import read_column
from dedupkit.stages.candidates import Candidates
from dedupkit.stages.neighbor_lists import NeighborLists
from dedupkit.stages.plan import Job
from dedupkit.stages.verify_pairs import NO_COPIES, PairVerifier
from dedupkit.stages.whole import keep_order

__all__ = ["Seen", "look_in_rounds"]

_LEAST_BATCH, _BATCHES, _SAMPLES_A_PAIR = 512, 16, 200
"""Pairs of a batch, at least; batches of a round, at most; and samples, at most, for each pair of a batch: after it all
samples are decided anew, which takes as long for some hundreds of them as a pair takes."""

Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Seen:
    """What looking at pairs gave.

    Attributes:
        table: The pairs that hold, sorted: ``a``, ``b``, ``score``, ``a_is``, ``b_is``.
        found: By signal the scored pairs that rounds found beside those of its join.
        counts: ``candidates``, those ``looked_at``, those ``verified`` of them, ``unseen``, those of them of which an
            image could not be read again; ``capped``: kept images of which the
            list of nearest neighbours was full in the end, so that images behind it were not looked at; ``rounds``;
            ``by_sift``, the pairs that corners and pixels left to SIFT.
        listed: By signal the samples that are kept, the first of their bytes, and have a vector, (m,) int64.
    """

    table: pa.Table
    found: Mapping[str, pa.Table]
    counts: Mapping[str, int]
    listed: Mapping[str, Ints] = field(default_factory=dict)


def look_in_rounds(
    job: Job,
    candidates: Candidates,
    full: Mapping[str, Mapping[str, Any]],
    verifier: PairVerifier,
    settled: NDArray[np.bool_] | None = None,
) -> Seen:
    """Look at the candidates, in rounds where lists of nearest neighbours are full.

    Args:
        job: What is computed.
        candidates: The pairs to begin with.
        full: What the join says of each signal whose lists are full for some image.
        verifier: Looks at pairs.
        settled: (n,) bool, samples that duplicate a kept sample of an earlier run or a reference set: they go whatever
            the others do, so none of the others goes for them.
    """
    if not full:
        table, unseen = verifier.verify(candidates.a, candidates.b)
        counts = {"candidates": len(candidates.a), "looked_at": len(candidates.a), "verified": table.num_rows}
        rest = {"unseen": unseen, "capped": 0, "rounds": 1, "by_sift": verifier.by_sift}
        return Seen(table, {}, {**counts, **rest})
    lists = [NeighborLists(name, facts, job, candidates.signals[name]) for name, facts in full.items()]
    state = _State(job, candidates, lists, settled)
    rounds = 0
    while len(fresh := state.fresh()) or state.search():
        rounds += len(fresh) > 0
        for batch in _best_first(fresh, state.priority[fresh], len(state.kept)):
            state.look(batch, verifier)
    state.look_at_templates_of_copies(verifier)
    counts = {
        "candidates": len(state.a),
        "looked_at": int(state.looked.sum()),
        "verified": state.table.num_rows,
        "unseen": state.unseen,
        "capped": int(np.logical_or.reduce([lists.capped(state.kept) for lists in state.lists]).sum()),
        "rounds": rounds,
        "by_sift": verifier.by_sift,
    }
    table = state.table.sort_by([("a", "ascending"), ("b", "ascending")])
    listed = {lists.name: np.flatnonzero(state.kept & lists.has_vector) for lists in state.lists}
    return Seen(table, state.found(), counts, listed)


def _best_first(fresh: Ints, priority: NDArray[np.float32], samples: int) -> Iterator[Ints]:
    """Places of pairs in batches, the best first; in a batch by sample, so that features are used again."""
    ordered = fresh[np.argsort(-priority, kind="stable")]
    size = max(_LEAST_BATCH, -(-len(ordered) // _BATCHES), samples // _SAMPLES_A_PAIR)
    return (np.sort(ordered[begin : begin + size]) for begin in range(0, len(ordered), size))


@dataclass(slots=True)
class _State:
    """All candidates so far, which were looked at, and what is kept by what was found."""

    job: Job
    start: Candidates
    lists: list[NeighborLists]
    settled: NDArray[np.bool_] | None
    a: Ints = field(init=False)
    b: Ints = field(init=False)
    priority: NDArray[np.float32] = field(init=False)
    known: Ints = field(init=False)  # the pairs as a times n plus b, ascending, minus one before them
    looked: NDArray[np.bool_] = field(init=False)
    kept: NDArray[np.bool_] = field(init=False)
    witness: NDArray[np.int32] = field(init=False)
    table: pa.Table = field(init=False)
    templates: pa.Table = field(init=False)
    order: Ints = field(init=False)
    active: NDArray[np.bool_] = field(init=False)
    unseen: int = 0

    def __post_init__(self) -> None:
        job, start = self.job, self.start
        self.a, self.b = start.a, start.b
        self.priority = np.full(len(self.a), -np.inf, np.float32)
        self.known = np.sort(np.append(-1, self.a * len(start.first) + self.b))
        for lists in self.lists:
            score = lists.scores_of(self.a, self.b)
            self.priority = np.fmax(self.priority, score)
            self.priority[score >= lists.complete] = np.inf
        self.priority[start.certain] = np.inf
        self.looked = np.zeros(len(self.a), bool)
        shards = len(job.shards)
        readable = read_column(job.folder, shards, "error")["error"].is_null().to_numpy()
        self.active = readable if self.settled is None else readable & ~self.settled
        self.order = keep_order(job.folder, shards, job.policy, len(readable))
        self.table = self.templates = NO_COPIES
        self._decide()

    def fresh(self) -> Ints:
        """Places of the pairs to look at: all of which every pair is there, else those in the lists of kept images."""
        due = np.isinf(self.priority) & (self.priority > 0)
        keys = self.a * len(self.kept) + self.b
        for lists in self.lists:
            due |= np.isin(keys, lists.due(self.kept))
        return np.flatnonzero(~self.looked & due)

    def look(self, batch: Ints, verifier: PairVerifier) -> None:
        """Look at a batch, but for pairs of which an image was removed since; then decide again."""
        before, certain = self.witness, self.priority[batch] == np.inf
        batch = batch[~self.looked[batch] & (certain | self.kept[self.a[batch]] & self.kept[self.b[batch]])]
        table, unseen = verifier.verify(self.a[batch], self.b[batch])
        self.looked[batch] = True
        self.unseen += unseen
        self.table = pa.concat_tables([self.table, table]) if self.table.num_rows else table
        self.templates = verifier.templates
        self._decide()
        self._pass_on(before)

    def look_at_templates_of_copies(self, verifier: PairVerifier) -> None:
        """Hold each removed image against the best of the images that its witness shares a template with.

        Where that family is full its witness may go, and the removed image would take its place otherwise.
        """
        count = len(self.kept)
        rank = np.empty(count, np.int64)
        rank[self.order] = np.arange(count)
        w, h = (np.concatenate([self.templates[end].to_numpy() for end in ends]) for ends in (("a", "b"), ("b", "a")))
        w, h = w[self.kept[w] & self.kept[h]], h[self.kept[w] & self.kept[h]]
        head = np.full(count, -1, np.int64)
        worst_first = np.argsort(-rank[h], kind="stable")
        head[w[worst_first]] = h[worst_first]  # the last write is the best
        x = np.flatnonzero((self.witness >= 0) & (head[self.witness] >= 0))
        other = head[self.witness[x]]
        low, high = np.minimum(x, other), np.maximum(x, other)
        done = np.isin(low * count + high, self.a[self.looked] * count + self.b[self.looked]) | (low == high)
        table, unseen = verifier.verify(low[~done], high[~done])
        self.unseen += unseen
        self.table = pa.concat_tables([self.table, table]) if table.num_rows else self.table

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
        keys = a * len(self.kept) + b
        new = self.known[np.searchsorted(self.known, keys) - len(self.known)] != keys  # behind the last is the first
        self.known = np.sort(np.append(self.known, keys[new]), kind="stable")  # in linear time, as most is sorted
        self.a, self.b = np.concatenate([self.a, a[new]]), np.concatenate([self.b, b[new]])
        self.priority = np.concatenate([self.priority, priority[new]])
        self.looked = np.concatenate([self.looked, np.zeros(int(new.sum()), bool)])

    def found(self) -> dict[str, pa.Table]:
        """By signal the scored pairs beside those of its join."""
        tables = {lists.name: lists.table() for lists in self.lists}
        return {name: table for name, table in tables.items() if table.num_rows}

    def _decide(self) -> None:
        first = self.start.first
        signals = dict(self.start.signals)
        for lists in self.lists:
            signals[lists.name] = lists.matches()
        for name in self.job.rule.signals:
            if find_signal(name).stage == "verify":
                table = self.templates if name == "template" else self.table
                a, b = (table[end].to_numpy().astype(np.int32) for end in ("a", "b"))
                signals[name] = Matches(first, a, b, np.ones(len(a), np.float32))
        if self.settled is not None:
            signals = {name: matches.restricted(self.active) for name, matches in signals.items()}
        decision = decide(self.job.rule, signals, self.order, self.active)
        self.kept = np.zeros(len(first), bool)
        self.kept[first[self.active & (decision.witness < 0)]] = True
        removed = (decision.witness >= 0) & (first == np.arange(len(first))) & ~self.kept
        self.witness = np.full(len(first), -1, np.int32)
        self.witness[removed] = first[decision.witness[removed]]
