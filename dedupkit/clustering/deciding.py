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

from dedupkit.clustering.edges import View, clause_edges, edges_of
from dedupkit.clustering.graph import components, keep_set
from dedupkit.clustering.rules import Clause, Rule
from dedupkit.clustering.twins import collapse, first_by_rank, twin_reason
from dedupkit.signals.matches import Matches
from dedupkit.store import in_blocks

__all__ = ["Decision", "decide", "pairs_of_clauses", "scored_pairs"]

Ints = NDArray[np.int64]

_FEW = 1_000_000  # samples; of no more, groups are counted without numba, which takes a third of a second to load


@dataclass(frozen=True, slots=True)
class Decision:
    """The verdict for n samples; the arrays of a large decision lie :func:`dedupkit.store.on_disk`.

    Attributes:
        witness: (n,) int32; the kept sample that a removed one duplicates, -1 for one that is kept or left out.
        clause: (n,) int8; which clause of the rule holds between the two, -1 where there is no witness.
        score: (n,) float32; the score of that clause's first signal, NaN where there is no witness.
        group: (n,) int32; the smallest sample of the component.
        edges: number of pairs of vertices that satisfy the rule.
        vertices: number of vertices after twins were collapsed.
    """

    witness: NDArray[np.int32]
    clause: NDArray[np.int8]
    score: NDArray[np.float32]
    group: NDArray[np.int32]
    edges: int
    vertices: int

    def sizes(self) -> NDArray[np.int32]:
        """(n,) int32: the number of samples in the group that each sample names, 0 at one that names none."""
        if len(self.group) <= _FEW:
            return np.bincount(self.group, minlength=len(self.group)).astype(np.int32)
        from dedupkit.clustering.class_kernels import count

        sizes = np.zeros(len(self.group), np.int32)
        for _, block in in_blocks(self.group):
            count(block, sizes)
        return sizes


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
        signals: One entry for each signal of the rule.
        order: (n,) samples, the most worth keeping first.
        candidates: (n,) which samples take part; the others get no witness.
        protected: (n,) which samples are kept whatever the order says, such as those of an earlier run or of a
            reference set. Two of them may satisfy the rule between them.

    Returns:
        The decision; it depends neither on the order of the edges nor on how they were found.
    """
    count = len(order)
    witness = np.full(count, -1, np.int32)
    reason = np.full(count, -1, np.int8)
    value = np.full(count, np.nan, np.float32)
    group = np.arange(count, dtype=np.int32)
    vertex_of, leaders = collapse(rule, signals, candidates)
    if not len(leaders):
        return Decision(witness, reason, value, group, 0, 0)
    a, b, clause, score = edges_of(rule, signals, leaders)
    if protected is not None:
        order = order[np.argsort(~protected[order], kind="stable")]
    # A vertex stands where its first twin stands in the order.
    rank = np.empty(count, np.int64)
    rank[order] = np.arange(count)
    first_twin = first_by_rank(vertex_of, rank, len(leaders))
    held = None if protected is None else protected[first_twin]
    kept, edge = keep_set(a, b, np.argsort(rank[first_twin], kind="stable"), held)

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
    reason[twin], value[twin] = twin_reason(rule, signals, np.flatnonzero(twin), witness[twin])

    labels = components(a, b, len(leaders))
    group[inside] = leaders[labels[own[inside]]]
    return Decision(witness, reason, value, group, len(a), len(leaders))


def pairs_of_clauses(
    clauses: Sequence[Clause], signals: Mapping[str, Matches], leaders: NDArray[np.int32], *, shared: bool = True
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Pairs of samples that satisfy any of some clauses.

    Args:
        clauses: alternatives.
        signals: One entry for each signal that they name.
        leaders: (k,) int32 ascending, the samples to pair.
        shared: Whether samples with the same fingerprint are a pair under it; else those of scored pairs alone are.

    Returns:
        Two int32 arrays, a < b, sorted, each pair once.
    """
    names = {atom.signal for clause in clauses for atom in clause}
    views = {name: View(signals[name], leaders, shared=shared) for name in names}
    keys = [np.zeros(0, np.int64)]
    for clause in clauses:
        a, b, _ = clause_edges(clause, views)
        keys.append(a.astype(np.int64) * len(leaders) + b)
    unique = np.unique(np.concatenate(keys))
    return leaders[unique // max(len(leaders), 1)], leaders[unique % max(len(leaders), 1)]


def scored_pairs(
    rule: Rule, signals: Mapping[str, Matches], candidates: NDArray[np.bool_]
) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.int16], NDArray[np.float32]]:
    """The pairs that satisfy a rule, twins counted as one.

    Args:
        rule: what makes two samples duplicates.
        signals: One entry for each signal of the rule.
        candidates: (n,) which samples take part.

    Returns:
        (m,) samples a and b, each the first of its twins; the first clause that holds; the score of that clause's
        first signal.
    """
    _, leaders = collapse(rule, signals, candidates)
    if not len(leaders):
        none = np.zeros(0, np.int32)
        return none, none, none.astype(np.int16), none.astype(np.float32)
    a, b, clause, score = edges_of(rule, signals, leaders)
    return leaders[a], leaders[b], clause, score
