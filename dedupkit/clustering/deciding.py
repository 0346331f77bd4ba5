"""From signals and a rule to a verdict for every sample.

Samples whose fingerprints agree in every signal of the rule are twins: they have the same duplicates, and if the rule
holds between them they are one vertex with a weight. A photo with 100,000 copies is one vertex, not 5 * 10**9 edges,
and the keep-set is the same as on the full graph: the first twin in the order of the policy decides for all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dedupkit.clustering.graph import components, keep_set
from dedupkit.clustering.rules import Atom, Clause, Rule
from dedupkit.signals.matches import Matches

__all__ = ["Decision", "decide", "pairs_of_clauses", "scored_pairs"]

Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Decision:
    """The verdict for n samples.

    Attributes:
        witness: (n,) int64; the kept sample that a removed one duplicates, -1 for one that is kept or left out.
        clause: (n,) int16; which clause of the rule holds between the two, -1 where there is no witness.
        score: (n,) float32; the score of that clause's first signal, NaN where there is no witness.
        group: (n,) int64; the smallest sample of the component.
        edges: number of pairs of vertices that satisfy the rule.
        vertices: number of vertices after twins were collapsed.
    """

    witness: Ints
    clause: NDArray[np.int16]
    score: NDArray[np.float32]
    group: Ints
    edges: int
    vertices: int


def decide(
    rule: Rule,
    signals: Mapping[str, Matches],
    order: NDArray[np.integer],
    candidates: NDArray[np.bool_],
    protected: NDArray[np.bool_] | None = None,
) -> Decision:
    """Apply a rule to scored edges.

    Args:
        rule: what makes two samples duplicates.
        signals: for each signal of the rule.
        order: (n,) samples, the most worth keeping first.
        candidates: (n,) which samples take part; the others get no witness.
        protected: (n,) which samples are kept whatever the order says, such as those of an earlier run or of a
            reference set. Two of them may satisfy the rule between them.

    Returns:
        The decision; it depends neither on the order of the edges nor on how they were found.
    """
    count = len(order)
    vertex_of, leaders = _collapse(rule, signals, candidates)
    if not len(leaders):
        nothing = np.full(count, -1, np.int64)
        scores = np.full(count, np.nan, np.float32)
        return Decision(nothing, nothing.astype(np.int16), scores, np.arange(count), 0, 0)
    a, b, clause, score = _edges(rule, signals, leaders)
    if protected is not None:
        order = order[np.argsort(~protected[order], kind="stable")]
    # A vertex stands where its first twin stands in the order.
    rank = np.empty(count, np.int64)
    rank[order] = np.arange(count)
    first_twin = _first_by_rank(vertex_of, rank, len(leaders))
    held = None if protected is None else protected[first_twin]
    kept, edge = keep_set(a, b, np.argsort(rank[first_twin], kind="stable"), held)

    witness = np.full(count, -1, np.int64)
    reason = np.full(count, -1, np.int16)
    value = np.full(count, np.nan, np.float32)
    inside = vertex_of >= 0
    own = np.where(inside, vertex_of, 0)
    removed = inside & ~kept[own]
    if len(a):
        decisive = edge[own[removed]]
        other = np.where(a[decisive] == own[removed], b[decisive], a[decisive])
        witness[removed] = first_twin[other]
        reason[removed], value[removed] = clause[decisive], score[decisive]
    twin = inside & kept[own] & (first_twin[own] != np.arange(count))
    if protected is not None:
        twin &= ~protected
    witness[twin] = first_twin[own[twin]]
    reason[twin], value[twin] = _twin_reason(rule, signals, np.flatnonzero(twin), witness[twin])

    labels = components(a, b, len(leaders))
    group = np.arange(count, dtype=np.int64)
    group[inside] = leaders[labels[own[inside]]]
    return Decision(witness, reason, value, group, len(a), len(leaders))


def pairs_of_clauses(
    clauses: Sequence[Clause], signals: Mapping[str, Matches], leaders: NDArray[np.int32]
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Pairs of samples that satisfy any of some clauses.

    Args:
        clauses: alternatives.
        signals: for each signal that they name.
        leaders: (k,) int32 ascending, the samples to pair.

    Returns:
        Two int32 arrays, a < b, sorted, each pair once.
    """
    views = {name: _View(signals[name], leaders) for name in {atom.signal for clause in clauses for atom in clause}}
    keys = [np.zeros(0, np.int64)]
    for clause in clauses:
        a, b, _ = _clause_edges(clause, views)
        keys.append(a.astype(np.int64) * len(leaders) + b)
    unique = np.unique(np.concatenate(keys))
    return leaders[unique // max(len(leaders), 1)], leaders[unique % max(len(leaders), 1)]


def scored_pairs(
    rule: Rule, signals: Mapping[str, Matches], candidates: NDArray[np.bool_]
) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.int16], NDArray[np.float32]]:
    """The pairs that satisfy a rule, twins counted as one.

    Args:
        rule: what makes two samples duplicates.
        signals: for each signal of the rule.
        candidates: (n,) which samples take part.

    Returns:
        (m,) samples a and b, each the first of its twins; the first clause that holds; the score of that clause's
        first signal.
    """
    _, leaders = _collapse(rule, signals, candidates)
    if not len(leaders):
        none = np.zeros(0, np.int32)
        return none, none, none.astype(np.int16), none.astype(np.float32)
    a, b, clause, score = _edges(rule, signals, leaders)
    return leaders[a], leaders[b], clause, score


def _collapse(
    rule: Rule, signals: Mapping[str, Matches], candidates: NDArray[np.bool_]
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Number the vertices: for each sample its vertex (-1: none), for each vertex its smallest sample."""
    count = len(candidates)
    names = list(rule.signals)
    label = np.arange(count, dtype=np.int64)
    # Equal bytes have equal fingerprints of the image, so they are twins wherever the rule holds between them.
    implying = [name for name in names if signals[name].origin == "bytes"]
    if implying and all(signals[name].origin != "sample" for name in names):
        exact = signals[implying[0]].first
        held = _holds_for_twins(rule, signals, names) & (exact >= 0)
        label[held] = exact[held]
        names = [name for name in names if name not in implying]
    if names:
        held = _holds_for_twins(rule, signals, names)
        combined = np.zeros(count, np.int64)
        for name in names:
            combined = _pair_labels(combined, signals[name].first)
        first = np.full(int(combined.max(initial=-1)) + 1, count, np.int64)
        np.minimum.at(first, combined[held], np.flatnonzero(held))
        label[held] = first[combined[held]]
    leaders = np.flatnonzero((label == np.arange(count)) & candidates).astype(np.int32)
    number = np.full(count, -1, np.int32)
    number[leaders] = np.arange(len(leaders), dtype=np.int32)
    return np.where(candidates, number[label], -1).astype(np.int32), leaders


def _holds_for_twins(rule: Rule, signals: Mapping[str, Matches], equal: Sequence[str]) -> NDArray[np.bool_]:
    """For each sample: does the rule hold between it and one with the same fingerprints in the signals ``equal``?"""
    count = len(next(iter(signals.values())).first)
    held = np.zeros(count, bool)
    for clause in rule.clauses:
        every = np.ones(count, bool)
        for atom in clause:
            every &= (signals[atom.signal].first >= 0) if atom.signal in equal else np.False_
        held |= every
    return held


def _pair_labels(left: Ints, right: NDArray[np.int32]) -> Ints:
    """Dense labels of the pairs (left, right)."""
    if not left.any():
        return right.astype(np.int64) + 1
    _, labels = np.unique(left * (int(right.max()) + 2) + right + 1, return_inverse=True)
    dense: Ints = labels.astype(np.int64).reshape(-1)
    return dense


def _first_by_rank(vertex_of: NDArray[np.int32], rank: Ints, count: int) -> Ints:
    """For each vertex the sample of lowest rank."""
    best = np.full(count, len(rank), np.int64)
    inside = np.flatnonzero(vertex_of >= 0)
    np.minimum.at(best, vertex_of[inside], rank[inside])
    at_rank = np.empty(len(rank), np.int64)
    at_rank[rank] = np.arange(len(rank))
    result: Ints = at_rank[best]
    return result


def _edges(
    rule: Rule, signals: Mapping[str, Matches], leaders: NDArray[np.int32]
) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.int16], NDArray[np.float32]]:
    """Every pair of vertices that satisfies the rule, once, with the first clause that holds and its score."""
    views = {name: _View(signals[name], leaders) for name in rule.signals}
    found = [_clause_edges(clause, views) for clause in rule.clauses]
    a = np.concatenate([pairs[0] for pairs in found])
    b = np.concatenate([pairs[1] for pairs in found])
    score = np.concatenate([pairs[2] for pairs in found])
    clause = np.repeat(np.arange(len(found), dtype=np.int16), [len(pairs[0]) for pairs in found])
    if sum(len(pairs[0]) > 0 for pairs in found) > 1:
        # Clauses come in order, and a stable unique keeps the first that holds.
        _, once = np.unique(a.astype(np.int64) * len(leaders) + b, return_index=True)
        a, b, clause, score = a[once], b[once], clause[once], score[once]
    return a, b, clause, score


def _clause_edges(
    clause: Clause, views: Mapping[str, _View]
) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.float32]]:
    """The pairs that satisfy all atoms: generated by the atom with the fewest pairs, tested by the others."""
    generator = clause[0] if len(clause) == 1 else min(clause, key=lambda atom: views[atom.signal].size(atom))
    a, b, score = views[generator.signal].pairs(generator)
    first_score = score
    for atom in clause:
        if atom is generator:
            continue
        value = views[atom.signal].lookup(a, b, atom)
        passed = ~np.isnan(value) & _within(value, atom)
        a, b, score, first_score, value = (
            a[passed],
            b[passed],
            score[passed],
            first_score[passed],
            value[passed],
        )
        if atom is clause[0]:
            first_score = value
    return a, b, first_score


def _within(score: NDArray[np.float32], atom: Atom) -> NDArray[np.bool_]:
    if atom.bound is None:
        return np.ones(len(score), bool)
    # Scores are float32, so the bound is too: 0.9 must let through a similarity that was stored as 0.9.
    bound = np.float32(atom.bound)
    return score >= bound if atom.similarity else score <= bound


class _View:
    """One signal seen from the vertices."""

    def __init__(self, signal: Matches, leaders: NDArray[np.int32]) -> None:
        self._signal = signal
        self._count = len(signal.first)
        self.klass = signal.first[leaders]  # per vertex: the first sample with this fingerprint, or -1
        present = np.flatnonzero(self.klass >= 0).astype(np.int32)
        self._sizes = np.bincount(self.klass[present], minlength=self._count).astype(np.int32)
        self._members = present[np.argsort(self.klass[present], kind="stable")]
        self._starts = np.cumsum(self._sizes) - self._sizes
        # The usual case, in which every fingerprint is one vertex, needs no products.
        self._single = bool(self._sizes.max(initial=0) <= 1)
        self._sorted: tuple[Ints, NDArray[np.float32]] | None = None

    def size(self, atom: Atom) -> int:
        """How many pairs ``pairs`` would give."""
        a, b, _ = self._passing(atom)
        sizes = self._sizes.astype(np.int64)
        return int((sizes[a] * sizes[b]).sum() + (sizes * (sizes - 1) // 2).sum())

    def pairs(self, atom: Atom) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.float32]]:
        """The pairs of vertices (a < b) that satisfy one atom of this signal, with their scores."""
        a, b, score = self._passing(atom)
        if self._single:
            left, right = self._members[self._starts[a]], self._members[self._starts[b]]
        else:
            left, right, edge = self._product(a, b)
            shared = np.flatnonzero(self._sizes > 1)
            same_left, same_right, _ = self._product(shared, shared)
            ordered = same_left < same_right
            left = np.concatenate([left, same_left[ordered]])
            right = np.concatenate([right, same_right[ordered]])
            score = np.concatenate([score[edge], np.full(int(ordered.sum()), atom.perfect, np.float32)])
        return np.minimum(left, right), np.maximum(left, right), score

    def lookup(self, a: NDArray[np.int32], b: NDArray[np.int32], atom: Atom) -> NDArray[np.float32]:
        """The scores of given pairs of vertices; NaN where there is no edge."""
        left, right = self.klass[a].astype(np.int64), self.klass[b].astype(np.int64)
        keys, scores = self._sorted_edges()
        wanted = np.minimum(left, right) * self._count + np.maximum(left, right)
        value = np.full(len(a), np.nan, np.float32)
        if len(keys):
            at = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
            found = keys[at] == wanted
            value[found] = scores[at[found]]
        value[left == right] = atom.perfect
        value[(left < 0) | (right < 0)] = np.nan
        return value

    def _passing(self, atom: Atom) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.float32]]:
        passed = _within(self._signal.score, atom)
        if passed.all():
            return self._signal.a, self._signal.b, self._signal.score
        return self._signal.a[passed], self._signal.b[passed], self._signal.score[passed]

    def _product(
        self, a: NDArray[np.integer], b: NDArray[np.integer]
    ) -> tuple[NDArray[np.int32], NDArray[np.int32], Ints]:
        """For each pair of fingerprints every pair of their vertices, and which pair it came from."""
        counts = self._sizes[a].astype(np.int64) * self._sizes[b]
        edge = np.repeat(np.arange(len(counts)), counts)
        within = np.arange(len(edge)) - np.repeat(np.cumsum(counts) - counts, counts)
        width = self._sizes[b][edge]
        left = self._members[self._starts[a][edge] + within // np.maximum(width, 1)]
        right = self._members[self._starts[b][edge] + within % np.maximum(width, 1)]
        return left, right, edge

    def _sorted_edges(self) -> tuple[Ints, NDArray[np.float32]]:
        if self._sorted is None:
            a, b = self._signal.a.astype(np.int64), self._signal.b.astype(np.int64)
            key = np.minimum(a, b) * self._count + np.maximum(a, b)
            by_key = np.argsort(key, kind="stable")
            self._sorted = key[by_key], self._signal.score[by_key]
        return self._sorted


def _twin_reason(
    rule: Rule, signals: Mapping[str, Matches], samples: Ints, witness: Ints
) -> tuple[NDArray[np.int16], NDArray[np.float32]]:
    """The first clause that holds between samples and twins of theirs; identical in all that it names."""
    reason = np.full(len(samples), -1, np.int16)
    score = np.full(len(samples), np.nan, np.float32)
    for number, clause in enumerate(rule.clauses):
        held = reason < 0
        for atom in clause:
            first = signals[atom.signal].first
            held &= (first[samples] == first[witness]) & (first[samples] >= 0)
        reason[held], score[held] = number, clause[0].perfect
    return reason, score
