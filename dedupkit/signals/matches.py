"""What one signal says about all samples: which are equal under it, and scored pairs of the others. Arrays only."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

__all__ = ["Block", "Matches", "Origin", "Streamed", "leading", "relabelled"]

Block = tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.float32]]
"""Some scored pairs: a, b and their scores."""

Origin = Literal["bytes", "image", "sample"]
"""What a fingerprint is computed from: it *is* the identity of the stored bytes, it is a function of them, or it
depends on something else of the sample (its caption, its address), so that equal bytes may have different ones."""


def leading(first: NDArray[np.integer]) -> NDArray[np.int64]:
    """The rows that come first with their fingerprint, ascending.

    Example:
        >>> leading(np.array([0, 0, 2, -1], np.int32)).tolist()
        [0, 2]
    """
    return np.flatnonzero(first == np.arange(len(first), dtype=first.dtype))


def relabelled(
    label: NDArray[np.integer], active: NDArray[np.bool_] | bool, labels: int
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Labels of the rows of a mask alone: the smallest row in it with the same label.

    Args:
        label: (n,) below ``labels``, -1 for rows without one.
        active: (n,) bool, the mask; True for all.
        labels: Number of labels.

    Returns:
        (n,) int32, for each row the smallest in the mask with its label, -1 outside; and (labels,) int32, the same by
        label.

    Example:
        >>> mask = np.array([False, True, True, False])
        >>> [each.tolist() for each in relabelled(np.array([0, 0, 0, 3], np.int32), mask, 4)]
        [[-1, 1, 1, -1], [1, -1, -1, -1]]
    """
    mine = np.flatnonzero(active & (label >= 0)).astype(np.int32)
    leader = np.full(labels, -1, np.int32)
    leader[label[mine[::-1]]] = mine[::-1]  # the last write is the smallest row
    first = np.full(len(label), -1, np.int32)
    first[mine] = leader[label[mine]]
    return first, leader


@dataclass(frozen=True, slots=True)
class Matches:
    """What one signal says about n samples.

    Attributes:
        first: (n,) int32; the smallest sample with the same fingerprint (its own number where it is the first), -1
            where the sample has none, as every sample that takes no part in deciding.
        a: (m,) int32; edges between first samples of different fingerprints, each once.
        b: (m,) int32; the other end.
        score: (m,) float32 distance or similarity.
        origin: what the fingerprints are computed from.
    """

    first: NDArray[np.int32]
    a: NDArray[np.int32]
    b: NDArray[np.int32]
    score: NDArray[np.float32]
    origin: Origin = "image"

    def restricted(self, active: NDArray[np.bool_]) -> Matches:
        """The same about the samples of a mask alone; the others have no fingerprint then.

        Example:
            >>> one = Matches.identity(np.array([0, 0, 0, 3], np.int32))
            >>> one.restricted(np.array([False, True, True, True])).first.tolist()
            [-1, 1, 1, 3]
        """
        first, leader = relabelled(self.first, active, len(self.first))
        a, b = leader[self.a], leader[self.b]
        held = (a >= 0) & (b >= 0)
        a, b = np.minimum(a, b)[held], np.maximum(a, b)[held]
        return Matches(first, a, b, self.score[held], self.origin)

    @classmethod
    def identity(cls, first: NDArray[np.int32], origin: Origin = "image") -> Matches:
        """A signal that only holds between equal fingerprints."""
        none = np.zeros(0, np.int32)
        return cls(first, none, none, np.zeros(0, np.float32), origin)

    @property
    def streamed(self) -> Streamed:
        """The same, for what takes its pairs in blocks."""
        blocks = [(self.a, self.b, self.score)]
        return Streamed(len(self.first), len(self.a), lambda: self.first, lambda: blocks, self.origin)


@dataclass(frozen=True, slots=True)
class Streamed:
    """What one signal says about n samples, left where it lies.

    Attributes:
        samples: Number of samples.
        edges: Number of pairs.
        labels: Gives ``first`` as in :class:`Matches`; it may be called again.
        blocks: Gives all pairs, block by block; it may be called again.
        origin: As in :class:`Matches`.
    """

    samples: int
    edges: int
    labels: Callable[[], NDArray[np.int32]]
    blocks: Callable[[], Iterable[Block]]
    origin: Origin = "image"

    def loaded(self) -> Matches:
        """The same in memory."""
        none: Block = (np.zeros(0, np.int32), np.zeros(0, np.int32), np.zeros(0, np.float32))
        a, b, score = (np.concatenate(part) for part in zip(none, *self.blocks(), strict=True))
        return Matches(self.labels(), a, b, score, self.origin)
