"""How close all pairs of some images come under a signal: what the tail of false matches is fitted to.

Most scores are products of rows. Bits become +1 and -1, so that a product of two hashes is the number of bits less
twice those that differ, exactly, in float32; vectors of unit length give cosines. A distance that is the least of
several (orientations, nested views) is the largest of several products.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from dedupkit.signals.signal import Signal

__all__ = ["ComparedPairs", "Matrix", "PairScorer", "Products", "Sides", "hash_sides", "vector_sides"]

Matrix = NDArray[np.float32]
Sides = list[tuple[Matrix, Matrix]]


class PairScorer(Protocol):
    """Scores of pairs of rows, larger for closer: similarities as they are, distances negated."""

    def block(self, start: int, stop: int) -> Matrix:
        """Scores of rows ``start`` to ``stop`` with all rows from ``start`` on, (stop - start, n - start) float32."""


@dataclass(frozen=True, slots=True)
class Products:
    """Scores that are the largest of several products of rows.

    Attributes:
        sides: Pairs of matrices (n, d) float32.
        bits: Length of a hash, whose products become distances; None where a product is the score.
    """

    sides: Sides
    bits: int | None = None

    def block(self, start: int, stop: int) -> Matrix:
        """Scores of some rows with those from the first of them on; see :class:`PairScorer`."""
        rows = slice(start, stop)
        best: Matrix = self.sides[0][0][rows] @ self.sides[0][1][start:].T
        for left, right in self.sides[1:]:
            np.maximum(best, left[rows] @ right[start:].T, out=best)
        return best if self.bits is None else (best - np.float32(self.bits)) / np.float32(2)


@dataclass(frozen=True, slots=True)
class ComparedPairs:
    """Scores by the signal's own ``compare``, for signals whose scores are no products."""

    signal: Signal
    rows: NDArray[Any]

    def block(self, start: int, stop: int) -> Matrix:
        """Scores of some rows with those from the first of them on; see :class:`PairScorer`."""
        stop = min(stop, len(self.rows))
        shape = (stop - start, len(self.rows) - start)
        left, right = (index.reshape(-1) + start for index in np.indices(shape))
        score: Matrix = self.signal.compare(self.rows[left], self.rows[right]).reshape(shape)
        return score if self.signal.kind == "similarity" else -score


def hash_sides(hashes: NDArray[np.uint8], *, views: int = 1, turned: bool = False) -> Sides:
    """Hashes as products.

    Args:
        hashes: (n, bytes * views) uint8; a view of zeros alone is missing and counts as unlike everything.
        views: Hashes in a row, the whole first; pairs of views count if one of the two is a whole.
        turned: Whether the least distance over the eight orientations of PDQ counts.

    Returns:
        Pairs of matrices (n, bits) float32; the score of i and j is the largest product of row i of the one and row j
        of the other: bits less twice the distance.
    """
    parts = np.split(np.ascontiguousarray(hashes), views, axis=1)

    def signs(seen: NDArray[np.uint8], part: NDArray[np.uint8]) -> Matrix:
        return _signs(seen) if views == 1 else _signs(seen) * np.any(part, axis=1, keepdims=True)

    def orientations(part: NDArray[np.uint8]) -> list[NDArray[np.uint8]]:
        from dedupkit.neighbors.hamming.flat import orientations

        return list(orientations(part)) if turned else [part]

    whole = signs(parts[0], parts[0])
    sides = [(whole, signs(seen, part)) for part in parts for seen in orientations(part)]
    # The turns form a group, so a whole beside a turned view is, turned back, the view beside a turned whole.
    return sides + [(right, left) for left, right in sides[len(sides) // views :]]


def vector_sides(vectors: NDArray[Any]) -> Sides:
    """Vectors (n, d) of any length but zero as products that are cosines."""
    rows = vectors.astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return [(rows, rows)]


def _signs(hashes: NDArray[np.uint8]) -> Matrix:
    bits: Matrix = np.unpackbits(np.ascontiguousarray(hashes), axis=1).astype(np.float32) * 2 - 1
    return bits
