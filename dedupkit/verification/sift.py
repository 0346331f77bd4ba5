"""The verdict by RootSIFT features (Lowe 2004; Arandjelovic & Zisserman 2012), where corners and pixels leave it open.

Matches are mutual nearest neighbours that pass the ratio test (Lowe 2004, section 7.1). A mirrored copy needs no second
set of features: the descriptor of a mirrored patch is a permutation of the patch's own (Guo et al. 2009, "MIFT"). How
the matches err from the map counts too: edits leave noise of a fraction of a pixel, while matches that depth or motion
moved err in the direction of their neighbours.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dedupkit.verification.criteria import (
    FEW_TILES,
    MAX_STRETCH,
    MIN_OVERLAP,
    MOVED,
    OTHER,
    REACH,
    SURE,
    SURE_SHIFT,
    as_copy,
    fit,
    measured,
    refused,
)
from dedupkit.verification.features import Features
from dedupkit.verification.glance import worth_aligning
from dedupkit.verification.maps import Affine, Verification, apply, mean_scaling
from dedupkit.verification.pixels import align, compare_details
from dedupkit.verification.tiles import BLOCK

__all__ = ["by_sift"]

LENGTH = 255.0**2  # squared norm of a descriptor: the nearest is that with the largest product
RATIO = 0.8  # nearest over second nearest descriptor, Lowe 2004, figure 11
MAX_DEVIATION = 1.2  # median distance of matches from the map, in pixels of the coarser image
MAX_COHERENCE, EXACT = 0.45, 0.25  # of deviations from the map, where their median exceeds EXACT pixels
NEIGHBOUR = 40.0  # pixels within which two matches are neighbours
FEW, FEW_AGREEMENT = 5, 0.9  # fewer inliers do, down to FEW, where FEW_TILES tiles agree so well
ENOUGH = 100  # features of an image that would match if there were anything to match
EVEN = 60  # corners, faint ones too, without which an image has no features that match
TINY = 80  # pixels of a side below which there is no room for so many
IN_PLACE = 0.9  # agreement where no features help, of what rows and columns do not explain

# A 128-value descriptor is 4 rows x 4 columns x 8 directions, in the frame of the feature's own orientation. Mirroring
# reverses the rows, and the sense in which directions are counted.
_MIRROR = np.arange(128).reshape(4, 4, 8)[::-1, :, -np.arange(8) % 8].reshape(-1)


def by_sift(cv2: Any, a: Features, b: Features, min_inliers: int, min_agreement: float) -> Verification:
    """Decide by SIFT's matches and, where there are few, by the pixels in place.

    Args:
        cv2: The module.
        a: One image.
        b: The other.
        min_inliers: Number of matches that must follow one map; with fewer the pixels must agree all the better.
        min_agreement: Correlation of pixels that 60 % of the shared, textured area must reach.
    """
    best = Verification(False, "no matching points", None, a.size, b.size)
    if not (_is_even(a) or _is_even(b)):
        for mirror in (False, True):
            matches = _matches(a.descriptors[:, _MIRROR] if mirror else a.descriptors, b.descriptors)
            points = a.keypoints[matches[:, 0]], b.keypoints[matches[:, 1]]
            matrix, inliers = fit(cv2, a, b, points, mirror)
            if matrix is not None and inliers > best.inliers:
                best = _judge(cv2, a, b, matrix, points, inliers, min_inliers, min_agreement)
            if best.verified:
                return best
        if best.inliers >= min_inliers or min(len(a.keypoints), len(b.keypoints)) >= ENOUGH:
            return best
    for mirrorings in _placements(a, b):
        maps = (matrix for matrix in mirrorings if worth_aligning(a, b, matrix, sure=False))
        for tiles in compare_details(cv2, a, b, maps):
            if tiles.count >= FEW_TILES and tiles.agreement >= IN_PLACE and tiles.worst >= OTHER:
                return as_copy(measured(a, b, tiles, 0, 0.0))
    return best


def _is_even(image: Features) -> bool:
    """Whether an image has no features to speak of, as its corners tell in no time."""
    return len(image.corners) < EVEN and max(image.plane.shape) >= TINY


def _judge(
    cv2: Any,
    a: Features,
    b: Features,
    matrix: Affine,
    points: tuple[NDArray[np.float32], NDArray[np.float32]],
    inliers: int,
    min_inliers: int,
    min_agreement: float,
) -> Verification:
    """Hold a map that SIFT features propose against every criterion."""
    unit = max(b.pixel, a.pixel * mean_scaling(matrix))
    placed = apply(matrix, points[0]) / unit
    errors = placed - points[1] / unit
    deviation = float(np.median(np.linalg.norm(errors, axis=1)))
    if inliers < FEW:
        few = f"{inliers} matching points"
        return Verification(False, few, matrix, a.size, b.size, inliers, deviation)
    coherence = _coherence(placed, errors)
    tiles = align(cv2, a, b, matrix)
    found = measured(a, b, tiles, inliers, deviation, coherence)
    convinces = tiles.count >= FEW_TILES and tiles.agreement >= max(FEW_AGREEMENT, min_agreement)
    if inliers < min_inliers and not convinces:
        return replace(found, reason=f"{inliers} matching points", relation="other")
    if found.relation == "template":
        return found
    if found.overlap < MIN_OVERLAP:
        return replace(found, reason=f"only {100 * found.overlap:.0f} % of the area is shared")
    if deviation > MAX_DEVIATION or (deviation > EXACT and coherence > MAX_COHERENCE):
        off = f"another shot, matching points lie {deviation:.1f} pixels off"
        return replace(found, reason=off, relation="other shot")
    still = tiles.shift <= (MOVED if tiles.agreement >= SURE else SURE_SHIFT)
    agree = tiles.agreement >= min_agreement and tiles.worst >= OTHER
    return as_copy(found) if still and agree and tiles.count >= BLOCK else refused(found, tiles)


def _coherence(points: NDArray[np.float64], errors: NDArray[np.float64]) -> float:
    """Correlate the errors of matches with those of their neighbours: about 0 for noise, near 1 for depth and motion.

    Args:
        points: (k, 2) where the map puts the matches, in pixels.
        errors: (k, 2) how far off that is, in pixels; matches outside ``REACH`` do not count.
    """
    follows = np.linalg.norm(errors, axis=1) < REACH
    every = 1 + int(follows.sum()) // 300
    points, errors = points[follows][::every], errors[follows][::every]
    if len(points) < 8:
        return 0.0
    apart = np.linalg.norm(points[:, None] - points, axis=2)
    apart[apart < REACH] = np.inf  # one corner can give several features, which err together
    nearest = apart.argmin(axis=1)
    near = apart.min(axis=1) < NEIGHBOUR
    here, there = errors[near], errors[nearest[near]]
    return float(2 * (here * there).sum() / max(float((here**2).sum() + (there**2).sum()), 1e-9))


def _matches(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> NDArray[np.intp]:
    """Rows (i, j) of mutual nearest neighbours that are clearly nearer than the second nearest, on both sides."""
    if min(len(a), len(b)) < 2:
        return np.empty((0, 2), dtype=np.intp)
    x, y = a.astype(np.float32), b.astype(np.float32)
    product = x @ y.T
    across = np.ascontiguousarray(product.T)
    rows, nearest = np.arange(len(x)), product.argmax(axis=1)
    mutual = across.argmax(axis=1)[nearest] == rows
    rows, nearest = rows[mutual], nearest[mutual]
    best = product[rows, nearest]
    product[rows, nearest] = across[nearest, rows] = -np.inf
    second = np.maximum(product[rows].max(axis=1), across[nearest].max(axis=1))
    clear = LENGTH - best < RATIO * RATIO * (LENGTH - second)
    return np.column_stack([rows[clear], nearest[clear]])


def _placements(a: Features, b: Features) -> Iterator[list[Affine]]:
    """Content of a upon content of b, and frame upon frame, each in four mirrorings."""
    whole = (0.0, 0.0, 1.0, 1.0)
    boxes = [(a.content, b.content)] + ([(whole, whole)] if (a.content, b.content) != (whole, whole) else [])
    for box_a, box_b in boxes:
        (left, top), (right, bottom) = (np.array(box_a).reshape(2, 2) * a.size).tolist()
        (x0, y0), (x1, y1) = (np.array(box_b).reshape(2, 2) * b.size).tolist()
        maps = []
        for p, q, r, s in ((x0, x1, y0, y1), (x1, x0, y0, y1), (x0, x1, y1, y0), (x1, x0, y1, y0)):
            across, down = (q - p) / (right - left), (s - r) / (bottom - top)
            if max(abs(across), abs(down)) <= MAX_STRETCH * min(abs(across), abs(down)):
                maps.append(np.array([[across, 0, p - across * left], [0, down, r - down * top]]))
        yield maps
