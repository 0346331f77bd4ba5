"""Binary features: corners with a descriptor whose mirror image is the same bits in another order.

Corners are those of ORB (Rublee et al. 2011): FAST corners at several scales, ranked by Harris's measure, turned by the
direction of their intensity centroid. The descriptor is a turned BRIEF (Calonder et al. 2010): comparisons of two
blurred pixels around the corner. Its second half holds the comparisons of the first half as a mirror shows them, so
that a mirrored copy needs no second set of features.

Matches must agree in how they are turned and resized (weak geometric consistency, Jégou, Douze and Schmid 2008): those
between strangers do so by chance only, which leaves few of them before a map is sought.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["BITS", "Corners", "corner_matches", "find_corners", "matches_nearby"]

BITS = 128
_MOST = 800
_LEVELS, _FACTOR = 5, 2**0.5
_RADIUS, _DIRECTIONS = 14, 30  # of the pattern, in pixels of a corner's own scale; how many turned patterns there are
_CONTRAST, _FAINT = 10, 3  # grey levels by which a corner's circle differs from its centre; where corners are few
_FEW = 100  # corners: with fewer they are sought once more, fainter, and in small images at twice the size
_SMALL = 240  # pixels of the longer side
_RATIO, _FAR = 0.8, 0.27 * BITS  # bits that differ: nearest over second nearest, and beyond which nothing matches
_NEARBY_FAR = 0.35 * BITS  # where the place speaks for a match too
_TURN, _SIZE = 2, 1  # directions and levels by which matches of one map differ from each other at most


@dataclass(frozen=True, slots=True)
class Corners:
    """The corners of an image.

    Attributes:
        points: (c, 2) float32, x and y in pixels of the full image, see :mod:`dedupkit.verification.maps`.
        codes: (c, BITS / 8) uint8, the descriptors.
        turns: (c,) uint8, the directions, clockwise from the x axis, in steps of 12 degrees.
        levels: (c,) uint8, the sizes: each level is half an octave.
    """

    points: NDArray[np.float32]
    codes: NDArray[np.uint8]
    turns: NDArray[np.uint8]
    levels: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.points)


@cache
def _pattern() -> NDArray[np.intp]:
    """(directions, 2 BITS, 2) x and y of the pixels compared; comparison i is of rows i and BITS + i."""
    draw = np.random.default_rng(0).normal(0, _RADIUS / 2.2, (8 * BITS, 2))
    first, second = draw[np.hypot(*draw.T) <= _RADIUS - 1][:BITS].reshape(2, BITS // 2, 2)
    mirror = np.array([1, -1])  # across the direction of the corner
    ends = np.concatenate([first, first * mirror, second, second * mirror])
    turn = np.arange(_DIRECTIONS)[:, None] * 2 * np.pi / _DIRECTIONS
    x, y = ends.T
    turned = [np.cos(turn) * x - np.sin(turn) * y, np.sin(turn) * x + np.cos(turn) * y]
    pattern: NDArray[np.intp] = np.rint(np.stack(turned, axis=2)).astype(np.intp)
    return pattern


def find_corners(cv2: Any, plane: NDArray[np.uint8], size: tuple[int, int]) -> Corners:
    """Find corners and describe them, in a sixth of the time of SIFT.

    Where few stand out they are sought again, fainter ones too, in a small image at twice its size.

    Args:
        cv2: The module.
        plane: (h, w) uint8, the reduced luminance.
        size: (width, height) of the full image.
    """
    corners = _corners_of(cv2, plane, size, _CONTRAST)
    if len(corners) >= _FEW:
        return corners
    if max(plane.shape) < _SMALL:
        plane = cv2.resize(plane, None, fx=2, fy=2, interpolation=cv2.INTER_LINEAR)
    return _corners_of(cv2, plane, size, _FAINT)


def _corners_of(cv2: Any, plane: NDArray[np.uint8], size: tuple[int, int], contrast: int) -> Corners:
    from dedupkit.verification.kernels import describe

    found = []
    if min(plane.shape) > 4 * _RADIUS:
        edge = _RADIUS + 2
        orb = cv2.ORB_create(_MOST, _FACTOR, _LEVELS, edgeThreshold=edge, fastThreshold=contrast)
        found = orb.detect(plane, None)
    points = np.array([point.pt for point in found], np.float32).reshape(-1, 2)
    levels = np.array([point.octave for point in found], np.uint8)
    angles = np.array([point.angle for point in found], np.float64)
    turns = (np.rint(angles * (_DIRECTIONS / 360)).astype(np.intp) % _DIRECTIONS).astype(np.uint8)
    codes = np.empty((len(found), BITS // 8), np.uint8)
    for level in np.unique(levels).tolist():
        here, scale = np.flatnonzero(levels == level), _FACTOR**level
        rows, columns = (round(length / scale) for length in plane.shape)
        smaller = cv2.resize(plane, (columns, rows), interpolation=cv2.INTER_AREA) if level else plane
        places = np.rint(points[here] / np.float32(scale)).astype(np.intp)
        places = places.clip(_RADIUS, np.array([columns, rows]) - 1 - _RADIUS)
        codes[here] = describe(cv2.GaussianBlur(smaller, (7, 7), 2), places, turns[here], _pattern())
    shrink = np.array(size, np.float32) / np.array(plane.shape[::-1], np.float32)
    return Corners(((points + np.float32(0.5)) * shrink).astype(np.float32), codes, turns, levels)


def corner_matches(a: Corners, b: Corners, *, mirror: bool) -> NDArray[np.intp]:
    """Rows (i, j) of corners that show the same as far as codes, turns and sizes say, (k, 2).

    Mutual nearest neighbours by their codes, clearly nearer than the second nearest of i; of these the largest number
    that agree in how far they are turned and resized.

    Args:
        a: The corners of one image.
        b: The corners of the other.
        mirror: Whether a is taken as its mirror image.
    """
    if min(len(a), len(b)) < 2:
        return np.empty((0, 2), np.intp)
    from dedupkit.verification.kernels import agreeing_moves, mutual_matches

    matches = np.empty((min(len(a), len(b)), 2), np.intp)
    moves = np.empty_like(matches)
    sides = (
        (_words(side, flip), side.turns.astype(np.intp), side.levels.astype(np.intp))
        for side, flip in ((a, mirror), (b, False))
    )
    count = mutual_matches(*sides, mirror, (_DIRECTIONS, _LEVELS), (_FAR, _RATIO), matches, moves)
    matches, moves = matches[:count], moves[:count]
    agreeing = np.empty(count, np.bool_)
    agreeing_moves(moves, (_DIRECTIONS, 2 * _LEVELS + 1), (_TURN, _SIZE), agreeing)
    return matches[agreeing]


def matches_nearby(
    a: Corners, b: Corners, placed: NDArray[np.floating], radius: float, *, mirror: bool
) -> NDArray[np.intp]:
    """Rows (i, j) of corners that look alike and lie where a map puts them, (k, 2).

    Args:
        a: The corners of one image.
        b: The corners of the other.
        placed: (c, 2) where the map puts those of a, in pixels of the full image b.
        radius: How far off they may lie, in the same pixels.
        mirror: Whether the map mirrors.
    """
    from dedupkit.verification.kernels import nearest_nearby

    nearest, best = (np.empty(len(a), np.int32) for _ in range(2))
    nearest_nearby(
        placed.astype(np.float32), _words(a, mirror), b.points, _words(b, False), np.float32(radius), nearest, best
    )
    rows = np.flatnonzero(best < _NEARBY_FAR)
    return np.column_stack([rows, nearest[rows]])


def _words(corners: Corners, mirror: bool) -> NDArray[np.uint64]:
    """The codes as (2, c) uint64; those of the mirror image have their halves exchanged."""
    words = np.ascontiguousarray(corners.codes).view(np.uint64).T
    return np.ascontiguousarray(words[::-1] if mirror else words)
