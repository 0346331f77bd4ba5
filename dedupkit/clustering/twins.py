"""Samples whose fingerprints agree in every signal of the rule, as one vertex; see :mod:`.deciding`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from dedupkit.clustering.rules import Rule
from dedupkit.signals.matches import Matches

__all__ = ["collapse", "first_by_rank", "firsts", "twin_reason"]

Ints = NDArray[np.int64]


def collapse(
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


def firsts(labels: Iterable[NDArray[np.int32]], candidates: NDArray[np.bool_]) -> NDArray[np.int32]:
    """The candidates that no earlier one agrees with in all of some labels, ascending."""
    combined = np.zeros(len(candidates), np.int64)
    for label in labels:
        combined = _pair_labels(combined, label)
    taking = np.flatnonzero(candidates).astype(np.int32)
    _, first = np.unique(combined[taking], return_index=True)
    return np.sort(taking[first])


def _pair_labels(left: Ints, right: NDArray[np.int32]) -> Ints:
    """Dense labels of the pairs (left, right)."""
    if not left.any():
        return right.astype(np.int64) + 1
    _, labels = np.unique(left * (int(right.max()) + 2) + right + 1, return_inverse=True)
    dense: Ints = labels.astype(np.int64).reshape(-1)
    return dense


def first_by_rank(vertex_of: NDArray[np.int32], rank: Ints, count: int) -> Ints:
    """For each vertex the sample of lowest rank."""
    best = np.full(count, len(rank), np.int64)
    inside = np.flatnonzero(vertex_of >= 0)
    np.minimum.at(best, vertex_of[inside], rank[inside])
    at_rank = np.empty(len(rank), np.int64)
    at_rank[rank] = np.arange(len(rank))
    result: Ints = at_rank[best]
    return result


def twin_reason(
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
