"""What a map between two images must satisfy, whichever features it comes from."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dedupkit.verification.features import Features
from dedupkit.verification.maps import Affine, Verification, apply, determinant, inverse, scalings
from dedupkit.verification.tiles import Tiles

__all__ = [
    "FEW_TILES",
    "MAX_STRETCH",
    "MIN_OVERLAP",
    "MOVED",
    "OTHER",
    "REACH",
    "SURE",
    "SURE_SHIFT",
    "UNLIKE",
    "as_copy",
    "fit",
    "measured",
    "refused",
]

REACH = 3.0  # pixels of the reduced b within which a match follows a map while the map is sought
MAX_STRETCH = 4.0  # change of the aspect
MIN_OVERLAP = 0.4  # of the image of which more is shared: less is a neighbouring view, not a copy
OTHER = 0.4  # mean correlation of a block of tiles below which it shows something else
FEW_TILES = 12  # textured tiles without which pixels prove nothing
SURE, SURE_SHIFT = 0.93, 0.2  # agreement and shift of a copy that needs no further look
MOVED = 0.5  # shift of the pixels of another shot, however well they agree
UNLIKE = 0.5  # agreement below which images on a map of few corners are no copies
LAYOUT, COMMON = 0.6, 0.25  # of a template: area of both images on the map; textured tiles that are the same


def fit(
    cv2: Any, a: Features, b: Features, points: tuple[NDArray[np.float32], NDArray[np.float32]], mirror: bool
) -> tuple[Affine | None, int]:
    """The affine map that most matches follow, and how many do; OpenCV seeds this RANSAC anew in every call."""
    if len(points[0]) < 4:
        return None, 0
    found, follows = cv2.estimateAffine2D(
        points[0] / a.pixel,
        points[1] / b.pixel,
        ransacReprojThreshold=REACH,
        maxIters=1000,
        confidence=0.999,
        refineIters=10,
    )
    if found is None or not np.isfinite(found).all():
        return None, 0
    matrix = np.column_stack([found[:, :2] * (b.pixel / a.pixel), found[:, 2] * b.pixel])
    large, small = scalings(found)
    if small < 1 / 32 or large > MAX_STRETCH * small or (determinant(found) < 0) != mirror:
        return None, 0
    return matrix, int(follows.sum())


def measured(
    a: Features, b: Features, tiles: Tiles, inliers: int, deviation: float, coherence: float = 0.0
) -> Verification:
    """What was measured, before a verdict: no copy, but a template where the pixels say so."""
    same = tiles.same
    found = Verification(
        False,
        "",
        tiles.matrix,
        a.size,
        b.size,
        inliers,
        deviation,
        coherence,
        tiles.agreement,
        _bordered(a, b, tiles.matrix),
        same=float(same.sum() / max(tiles.count, 1)),
        differs=tiles.box(tiles.textured & ~same, a.size),
    )
    layout = min(found.shares) >= LAYOUT and tiles.worst < OTHER and tiles.shift <= SURE_SHIFT
    if layout and same.sum() >= FEW_TILES and found.same >= COMMON:
        return replace(found, relation="template", reason="the same template with other content")
    return found


def as_copy(found: Verification) -> Verification:
    """The same with the verdict that it is a copy."""
    return replace(found, verified=True, reason="", relation="copy")


def refused(found: Verification, tiles: Tiles) -> Verification:
    """Say why two images on one map are no copies."""
    if tiles.shift > SURE_SHIFT and tiles.agreement >= UNLIKE:
        return replace(found, relation="other shot", reason=f"another shot, the pixels lie {tiles.shift:.1f} off")
    return replace(found, reason=f"other content, the pixels agree to {found.agreement:.2f}")


def _bordered(a: Features, b: Features, matrix: Affine) -> tuple[bool, bool]:
    """Whether what one shows fills the other up to an even border, for both."""

    def fills(inner: Features, outer: Features, into: Affine) -> bool:
        if outer.content == (0.0, 0.0, 1.0, 1.0):
            return False
        corners = np.array([[0, 0], [1, 1]]) * inner.size
        placed = np.sort(apply(into, corners), axis=0) / outer.size
        return bool(np.abs(placed - np.array(outer.content).reshape(2, 2)).max() < 0.03)

    return fills(b, a, inverse(matrix)), fills(a, b, matrix)
