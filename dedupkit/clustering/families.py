"""Families of one template among what a rule keeps: who belongs together, and which of them go.

A family is a star: a head, and samples that have a template edge to it. Heads are chosen as the keep-set is, walking
the samples in the order of the keep policy, so that no two heads have an edge; every other sample with an edge belongs
to the first head that it has one to. A connected component would chain pages that share nothing with each other.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from dedupkit.clustering.deciding import Decision, decide
from dedupkit.clustering.rules import Atom, Rule
from dedupkit.signals.matches import Matches

__all__ = ["TEMPLATE_REASON", "cap_families", "family_heads"]

TEMPLATE_REASON = "template family"
"""Reason in the manifest of a sample that goes because its family is full."""

Ints = NDArray[np.int64]
_RULE = Rule("template", ((Atom("template"),),))


def family_heads(
    templates: Matches, order: NDArray[np.integer], kept: NDArray[np.bool_], heads: NDArray[np.bool_] | None = None
) -> tuple[Ints, NDArray[np.float32]]:
    """The family of each kept sample.

    Args:
        templates: What the signal ``template`` says.
        order: (n,) samples, the most worth keeping first.
        kept: (n,) which are kept.
        heads: (n,) samples that stay heads whatever the order says.

    Returns:
        (n,) int64 the head of each sample's family, its own number for a head and for one without a family, -1 where
        it is not kept; and (n,) float32, the score of the edge between the two, NaN where there is none.
    """
    found = decide(_RULE, {"template": templates.restricted(kept)}, order, kept, heads)
    head: Ints = np.where(found.witness >= 0, found.witness, np.arange(len(order)))
    return np.where(kept, head, -1), found.score


def cap_families(
    decision: Decision,
    templates: Matches,
    order: NDArray[np.integer],
    active: NDArray[np.bool_],
    most: int,
    again: Callable[[NDArray[np.bool_], NDArray[np.bool_]], Decision],
    clause: int,
) -> tuple[Decision, Ints]:
    """Keep at most so many of each family; the others go, with the head of their family as witness.

    Equal files by themselves, which a rule may keep under several captions, are no family and all stay.

    A sample that goes may be the witness of others under the rule. Those are decided again without it, while all that
    is kept stays; one of them that is kept now may belong to a full family itself, and goes then.

    Args:
        decision: The verdicts by the rule.
        templates: What the signal ``template`` says.
        order: (n,) samples, the most worth keeping first.
        active: (n,) which take part.
        most: The most that are kept of a family.
        again: Decides by the rule about the samples of one mask, of which those of another stay.
        clause: Number that stands for this reason, behind those of the rule.

    Returns:
        The verdicts, and (n,) int64 the head of the family of each sample that is kept or went because of it, else -1.
    """
    count, first = len(active), decision
    gone, witness, score = np.zeros(count, bool), np.full(count, -1, np.int64), np.full(count, np.nan, np.float32)
    held = np.zeros(count, bool)  # kept already when the families were looked at the last time
    heads: NDArray[np.bool_] | None = None
    while True:
        kept = active & ~gone & (decision.witness < 0)
        head, edge = family_heads(templates, order, kept, heads)
        surplus = _beyond(_with_templates(head, templates.first), order, held, most)
        heads, held = kept & (head == np.arange(count)), kept
        if not surplus.any():
            break
        gone |= surplus
        witness[surplus], score[surplus] = head[surplus], edge[surplus]
        if np.isin(decision.witness, np.flatnonzero(surplus)).any():
            decision = again(active & ~gone, kept & ~gone)
    verdict = replace(
        decision,
        witness=np.where(gone, witness, decision.witness).astype(np.int32),
        clause=np.where(gone, clause, decision.clause).astype(np.int8),
        score=np.where(gone, score, decision.score),
        group=first.group,
        edges=first.edges,
        vertices=first.vertices,
    )
    return verdict, np.where(gone, witness, head)


def _with_templates(head: Ints, first: NDArray[np.int32]) -> Ints:
    """The heads, but each sample its own where all of its family have equal bytes: such a family is none."""
    found = np.zeros(len(head), bool)
    found[head[(head >= 0) & (first != first[head])]] = True
    return np.where((head >= 0) & ~found[head], np.arange(len(head)), head)


def _beyond(head: Ints, order: NDArray[np.integer], held: NDArray[np.bool_], most: int) -> NDArray[np.bool_]:
    """Which samples stand behind the first ``most`` of their family: the head, what was there before, then by order."""
    count = len(head)
    rank = np.empty(count, np.int64)
    rank[order] = np.arange(count)
    members = np.flatnonzero(head >= 0)
    other = head[members] != members
    members = members[np.lexsort((rank[members], ~held[members], other, head[members]))]
    family = head[members]
    start = np.flatnonzero(np.diff(family, prepend=-1))
    place = np.arange(len(members)) - np.repeat(start, np.diff(np.append(start, len(members))))
    surplus = np.zeros(count, bool)
    surplus[members[place >= most]] = True
    return surplus
