"""Pairs of a run's samples and of what they are compared with: the samples of an earlier run or of a reference set."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dedupkit.signals.columns import Edges
from dedupkit.signals.equal import as_values, first_equal
from dedupkit.signals.matches import leading, relabelled

if TYPE_CHECKING:
    from dedupkit.signals.columns import Scanned
    from dedupkit.signals.signal import JoinSettings, Signal

__all__ = ["Across", "across_columns", "equal_rows", "joined_together", "restricted"]

Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Across:
    """What one signal says about n samples of a run and m rows of a reference.

    Attributes:
        own: (n,) int32, for each sample the smallest with the same fingerprint, -1 where it has none.
        other: (m,) int32, the same among the rows of the reference that take part; -1 for the others.
        blocks: Pairs within the bound, each once: a sample that comes first in ``own``, a row that comes first in
            ``other``, and their score. Equal fingerprints are pairs too.
        facts: What else is known of the search, JSON-able.
    """

    own: NDArray[np.int32]
    other: NDArray[np.int32]
    blocks: Iterator[Edges]
    facts: dict[str, Any] = field(default_factory=dict)


def restricted(first: NDArray[np.int32], active: NDArray[np.bool_]) -> NDArray[np.int32]:
    """Labels of the rows of a mask alone: the smallest row in it with the same fingerprint, -1 outside.

    Example:
        >>> restricted(np.array([0, 0, 0, 3], np.int32), np.array([False, True, True, False])).tolist()
        [-1, 1, 1, -1]
    """
    return relabelled(first, active, len(first))[0]


def across_columns(
    signal: Signal, own: Scanned, other: Scanned, active: NDArray[np.bool_], settings: JoinSettings
) -> Across:
    """The join of two sets of distinct fingerprints; see :meth:`dedupkit.signals.Signal.across`."""
    mine, theirs = signal.distinct(own), signal.distinct(other)
    labels = restricted(theirs.first, active)
    left, right = leading(mine.first), leading(labels)
    blocks = signal.join_across(mine.values, theirs.rows_of(right)[1], settings) if len(left) and len(right) else ()
    return Across(mine.first, labels, ((left[a], right[b], score) for a, b, score in blocks))


def equal_rows(values: NDArray[Any], other: NDArray[Any]) -> tuple[Ints, Ints]:
    """The pairs of equal rows of two arrays whose own rows are distinct.

    Example:
        >>> equal_rows(np.array([[1, 2], [3, 4]], np.uint8), np.array([[3, 4], [5, 6]], np.uint8))
        (array([1]), array([0]))
    """
    first = first_equal(as_values(np.concatenate([values, other])))[len(values) :]
    b = np.flatnonzero(first < len(values))
    return first[b], b


def joined_together(
    join: Callable[[NDArray[Any], JoinSettings], Iterator[Edges]],
    values: NDArray[Any],
    other: NDArray[Any],
    settings: JoinSettings,
) -> Iterator[Edges]:
    """The pairs of two sets by joining both as one: for signals that have no join of two sets."""
    count = len(values)
    for a, b, score in join(np.concatenate([values, other]), settings):
        low, high = np.minimum(a, b), np.maximum(a, b)
        crossing = (low < count) & (high >= count)
        yield low[crossing], high[crossing] - count, score[crossing]
