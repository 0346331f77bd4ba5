"""What a rule over URL lists can name, and the classes of rows that its alternatives come down to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from dedupkit.clustering.grammar import Comparison, parse_rule
from dedupkit.clustering.rules import Atom, Clause, Rule

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from dedupkit.clustering.classes import ClassEdges
    from dedupkit.metadata.near import NearJoin
    from dedupkit.signals.matches import Matches

__all__ = ["NEAR_HASHES", "Classes", "classes_of", "equal_kinds", "is_near", "parse_list_rule", "reason_of"]

NEAR_HASHES = ("hash", "image_phash", "phash")
"""Hash columns that can be compared by the bits that differ."""

_KNOWN: Mapping[str, Comparison | str] = {
    **dict.fromkeys(("url", "url_family", "sha256", "md5", "sha512"), "identity"),
    "caption": Comparison("similarity", (0.05, 1.0), alone=True),
    **dict.fromkeys(NEAR_HASHES, Comparison("distance", (0.0, 64.0), whole=True, alone=True)),
}


@dataclass(frozen=True, slots=True)
class Classes:
    """The classes of n rows that the alternatives of a rule come down to.

    Attributes:
        labels: (alternatives, n) int32, the first row of the class that each row is in, -1 for none.
        edges: For each alternative the pairs of its classes between which it holds too, None where it names no near
            condition; empty where no alternative does.
        odd_hashes: By column the number of distinct values that are no hashes of 64 bits.
    """

    labels: NDArray[np.int32]
    edges: Sequence[ClassEdges | None] = ()
    odd_hashes: dict[str, int] = field(default_factory=dict)


def parse_list_rule(text: str) -> Rule:
    """Parse a rule over URL lists: identities, ``caption>=…`` and hashes ``<=…``, joined by ``and`` and ``or``.

    Raises:
        RuleError: It cannot be read; the message shows the rule with a caret.

    Example:
        >>> str(parse_list_rule("url or image_phash<=4 and caption>=0.8"))
        'url or (image_phash<=4 and caption>=0.8)'
    """
    return parse_rule(text, _KNOWN, presets=False)


def is_near(clause: Clause) -> bool:
    """Whether an alternative names a near condition; the others compare keys alone."""
    return any(atom.bound is not None for atom in clause)


def reason_of(clause: Clause) -> str:
    """The alternative as the manifest names it, with its bounds: ``image_phash<=4 and caption>=0.8``."""
    return " and ".join(map(str, clause))


def equal_kinds(rule: Rule) -> list[tuple[str, ...]]:
    """The identities and combinations of them whose classes a rule needs, each once."""
    kinds: list[tuple[str, ...]] = []
    for clause in rule.clauses:
        names = [atom.signal for atom in clause]
        kinds += [(name,) for name in names] if is_near(clause) else [tuple(names)]
    return list(dict.fromkeys(kinds))


def classes_of(rule: Rule, kinds: Sequence[tuple[str, ...]], labels: NDArray[np.int32], how: NearJoin) -> Classes:
    """The classes of rows for each alternative of a rule with near conditions.

    Args:
        rule: The rule.
        kinds: As :func:`equal_kinds` gives them.
        labels: (kinds, n) int32, classes of equal rows by the first of them, -1 for none.
        how: How near conditions are computed.

    Raises:
        DedupkitError: More memory is needed than there may be.
    """
    import numpy as np

    from dedupkit.metadata.near import near_matches
    from dedupkit.signals.matches import Matches

    equal = dict(zip(kinds, labels, strict=True))
    signals: dict[str, Matches] = {}
    odd: dict[str, int] = {}
    for name in rule.signals:
        bounds = [atom for clause in rule.clauses for atom in clause if atom.signal == name and atom.bound is not None]
        if bounds:
            loosest = next(atom for atom in bounds if all(atom.covers(other) for other in bounds))
            signals[f"near {name}"], left_out = near_matches(loosest, equal[name,], how)
            odd |= {name: left_out} if left_out and name in NEAR_HASHES else {}
        if (name,) in equal:
            signals[name] = Matches.identity(equal[name,], "sample")
    found = np.empty((len(rule.clauses), labels.shape[1]), np.int32)
    edges: list[ClassEdges | None] = []
    for number, clause in enumerate(rule.clauses):
        if is_near(clause):
            found[number], pairs = _classes(tuple(map(_internal, clause)), signals, how)
            edges.append(pairs)
        else:
            found[number] = equal[tuple(atom.signal for atom in clause)]
            edges.append(None)
    return Classes(found, edges, odd)


def _internal(atom: Atom) -> Atom:
    """A near condition under a name of its own, so that the equality of the same column can stand beside it."""
    return atom if atom.bound is None else replace(atom, signal=f"near {atom.signal}")


def _classes(clause: Clause, signals: Mapping[str, Matches], how: NearJoin) -> tuple[NDArray[np.int32], ClassEdges]:
    """Rows that agree in all that a clause names, as classes; and the pairs of classes between which it holds."""
    import numpy as np

    from dedupkit.clustering.edges import View, clause_edges
    from dedupkit.metadata.room import PAIR_BYTES, ROW_BYTES
    from dedupkit.signals.matches import leading

    labels = signals[clause[0].signal].first
    how.room.take(ROW_BYTES * len(labels), f"{len(labels):,} rows")
    for atom in clause[1:]:
        labels = _both(labels, signals[atom.signal].first)
    leaders = leading(labels).astype(np.int32)
    views = {atom.signal: View(signals[atom.signal], leaders) for atom in clause}
    pairs = min(views[atom.signal].size(atom) for atom in clause)
    how.room.take(PAIR_BYTES * pairs, f"{pairs:,} pairs of different rows")
    a, b, _ = clause_edges(clause, views)
    return labels, (leaders[a], leaders[b])


def _both(one: NDArray[np.int32], other: NDArray[np.int32]) -> NDArray[np.int32]:
    """For each row the first that is in the same class under both labels, -1 where it has none under one of them."""
    import numpy as np

    mine = np.flatnonzero((one >= 0) & (other >= 0))
    keys = one[mine].astype(np.int64) * len(one) + other[mine]
    _, first, place = np.unique(keys, return_index=True, return_inverse=True)
    found = np.full(len(one), -1, np.int32)
    found[mine] = mine[first[place]]
    return found
