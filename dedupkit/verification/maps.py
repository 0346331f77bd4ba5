"""What an affine map between two images says: what they share, and how one was edited.

Coordinates are pixels of the full images, continuous, with the origin at the outer corner of the top left pixel: a
plain resize is a pure scaling, and the centre of the first pixel lies at (0.5, 0.5).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "Affine",
    "Box",
    "Relation",
    "Verification",
    "apply",
    "determinant",
    "inverse",
    "mean_scaling",
    "scalings",
    "shared_polygon",
]

Affine = NDArray[np.float64]
Box = tuple[float, float, float, float]
Relation = Literal["copy", "template", "other shot", "other"]
"""The same content; the same layout with other content in a block of it; a scene or person seen again; neither."""

WHOLE = 0.96  # from this share of its area on, an image counts as seen in full: maps are good to about 1 %
TURNED = 1.0  # degrees below which a rotation goes unmentioned
RESIZED = 0.05  # relative change of size, or of the aspect, that goes unmentioned


def apply(matrix: Affine, points: NDArray[np.floating]) -> NDArray[np.float64]:
    """Map points (k, 2) by a (2, 3) matrix."""
    mapped: NDArray[np.float64] = points @ matrix[:, :2].T + matrix[:, 2]
    return mapped


def inverse(matrix: Affine) -> Affine:
    """The (2, 3) matrix of the inverse map."""
    linear = np.linalg.inv(matrix[:, :2])
    return np.column_stack([linear, -linear @ matrix[:, 2]])


def determinant(matrix: Affine) -> float:
    """Pixels of area to one, negative where the map mirrors."""
    ((a, b, _), (c, d, _)) = matrix.tolist()
    return float(a * d - b * c)


def mean_scaling(matrix: Affine) -> float:
    """Pixels to one along a side; the geometric mean where the map stretches."""
    return math.sqrt(abs(determinant(matrix)))


def scalings(matrix: Affine) -> tuple[float, float]:
    """The largest and the smallest scaling of a map: its singular values, which two rows have in closed form."""
    ((a, b, _), (c, d, _)) = matrix.tolist()
    similar, rest = math.hypot(a + d, b - c) / 2, math.hypot(a - d, b + c) / 2
    return similar + rest, abs(similar - rest)


def shared_polygon(matrix: Affine, size_a: tuple[int, int], size_b: tuple[int, int]) -> NDArray[np.float64]:
    """The part of image a that lies inside image b: corners (k, 2) in pixels of a, k = 0 where they do not meet.

    Clips the frame of b, mapped into a, by the four sides of a (Sutherland & Hodgman 1974).

    Args:
        matrix: (2, 3) from a to b, invertible.
        size_a: (width, height) of a in pixels.
        size_b: (width, height) of b in pixels.
    """
    frame = np.array([[0, 0], [1, 0], [1, 1], [0, 1]]) * np.array(size_b, dtype=np.float64)
    corners = list(apply(inverse(matrix), frame))
    width, height = size_a
    for inside in (lambda p: p[0], lambda p: width - p[0], lambda p: p[1], lambda p: height - p[1]):
        corners = _clip(corners, inside)
    return np.array(corners).reshape(-1, 2)


def _clip(
    corners: list[NDArray[np.float64]], inside: Callable[[NDArray[np.float64]], float]
) -> list[NDArray[np.float64]]:
    kept = []
    for index, corner in enumerate(corners):
        before = corners[index - 1]
        from_side, to_side = inside(before), inside(corner)
        if (from_side >= 0) != (to_side >= 0):
            kept.append(before + (corner - before) * (from_side / (from_side - to_side)))
        if to_side >= 0:
            kept.append(corner)
    return kept


def _area(corners: NDArray[np.float64]) -> float:
    x, y = corners[:, 0], corners[:, 1]
    return abs(float(x @ np.roll(y, 1) - y @ np.roll(x, 1))) / 2 if len(corners) > 2 else 0.0


def _box(corners: NDArray[np.float64], size: tuple[int, int]) -> Box:
    if not len(corners):
        return (0.0, 0.0, 0.0, 0.0)
    left, top = (corners.min(axis=0) / size).clip(0, 1)
    right, bottom = (corners.max(axis=0) / size).clip(0, 1)
    return (float(left), float(top), float(right), float(bottom))


@dataclass(frozen=True, slots=True)
class Verification:
    """What comparing image a with image b gave.

    Attributes:
        verified: whether the two show the same image by the map.
        reason: why not, as a phrase; empty where verified.
        matrix: (2, 3) float64 from pixels of a to pixels of b; None where no map was found.
        size_a: (width, height) of a in pixels.
        size_b: (width, height) of b in pixels.
        inliers: local features of the two that agree with the map; 0 where pixels alone were compared.
        deviation: median distance of the matched features from the map, in pixels of the coarser image.
        coherence: correlation of these deviations between neighbouring features, -1..1.
        agreement: correlation of the pixels that 60 % of the shared, textured area reach, -1..1.
        bordered: (a, b): whether what the other shows is all but an even border of it.
        relation: what the two are to each other; ``copy`` where verified.
        same: share of the textured area under the map that shows the same, pixel by pixel.
        by_sift: whether corners and pixels were not enough, so that SIFT features decided.
        differs: bounds of the rest of it, (left, top, right, bottom) as fractions of a.
    """

    verified: bool
    reason: str
    matrix: Affine | None
    size_a: tuple[int, int]
    size_b: tuple[int, int]
    inliers: int = 0
    deviation: float = 0.0
    coherence: float = 0.0
    agreement: float = 0.0
    bordered: tuple[bool, bool] = (False, False)
    relation: Relation = "other"
    same: float = 0.0
    differs: Box = (0.0, 0.0, 0.0, 0.0)
    by_sift: bool = False

    @property
    def box_a(self) -> Box:
        """Bounds of the part of a that is seen in b: (left, top, right, bottom) as fractions of a."""
        return _box(self._shared_a(), self.size_a)

    @property
    def box_b(self) -> Box:
        """Bounds of the part of b that is seen in a: (left, top, right, bottom) as fractions of b."""
        corners = self._shared_a()
        return _box(corners if self.matrix is None else apply(self.matrix, corners), self.size_b)

    @property
    def shares(self) -> tuple[float, float]:
        """Share of the area of a that is seen in b, and of b that is seen in a."""
        if self.matrix is None:
            return (0.0, 0.0)
        area = _area(self._shared_a())
        (wide_a, high_a), (wide_b, high_b) = self.size_a, self.size_b
        return (min(1.0, area / (wide_a * high_a)), min(1.0, area * self.scale**2 / (wide_b * high_b)))

    @property
    def overlap(self) -> float:
        """The larger of :attr:`shares`: 1 where one image is wholly seen in the other."""
        return max(self.shares)

    @property
    def scale(self) -> float:
        """Pixels of b for a pixel of a, along a side; the geometric mean where the map stretches."""
        return 0.0 if self.matrix is None else mean_scaling(self.matrix)

    @property
    def stretch(self) -> float:
        """Change of the aspect, at least 1: the ratio of the map's largest to its smallest scaling."""
        if self.matrix is None:
            return 1.0
        large, small = scalings(self.matrix)
        return large / small

    @property
    def mirrored(self) -> bool:
        """Whether one is a mirror image of the other."""
        return self.matrix is not None and determinant(self.matrix) < 0

    @property
    def rotation(self) -> float:
        """Degrees, -180..180, by which a is turned counter-clockwise against b (after mirroring left to right).

        The angle of the rotation in the polar decomposition of the map.
        """
        if self.matrix is None:
            return 0.0
        turn = self.matrix[:, :2] * ((-1, 1) if self.mirrored else (1, 1))
        return math.degrees(math.atan2(turn[1, 0] - turn[0, 1], turn[0, 0] + turn[1, 1]))

    def swapped(self) -> Verification:
        """The same comparison with a and b exchanged."""
        matrix = None if self.matrix is None else inverse(self.matrix)
        differs = self.differs
        if self.matrix is not None and differs != (0.0, 0.0, 0.0, 0.0):
            left, top, right, bottom = differs
            corners = np.array([[left, top], [right, top], [right, bottom], [left, bottom]]) * self.size_a
            differs = _box(apply(self.matrix, corners), self.size_b)
        return replace(
            self,
            matrix=matrix,
            size_a=self.size_b,
            size_b=self.size_a,
            bordered=(self.bordered[1], self.bordered[0]),
            differs=differs,
        )

    def describe(self, other: str = "the kept image") -> str:
        """Say in a few words what a is of ``other``, which is b.

        For example ``a 78 % crop, mirrored, of the kept image``, ``the same image, 50 % size``, ``the same image
        inside a border``, ``the template of the kept image with other content, 71 % of it the same`` or, where the two
        are not the same, ``not the kept image: 3 matching points``.
        """
        if self.relation == "template":
            return f"the template of {other} with other content, {_percent(self.same)} of it the same"
        if not self.verified:
            return f"not {other}: {self.reason}"
        share_a, share_b = self.shares
        what, of = "the same image", ""
        if share_a >= WHOLE > share_b:
            if self.bordered[1]:
                what = "the same image without a border"
            else:
                what, of = f"a {_percent(share_b)} crop", f" of {other}"
        elif share_b >= WHOLE > share_a:
            if self.bordered[0]:
                what = "the same image inside a border"
            else:
                what, of = "a wider image", f" with {other} in {_percent(share_a)} of it"
        elif max(share_a, share_b) < WHOLE and not self._only_turned():
            what, of = "an image", f" that shares {_percent(share_a)} of its area with {other}"
        edits = self._edits()
        return ", ".join([what, *edits]) + ("," if edits and of else "") + of

    def _edits(self) -> list[str]:
        angle = self.rotation
        upside_down = self.mirrored and abs(angle) > 180 - TURNED
        edits = ["flipped top to bottom"] if upside_down else ["mirrored"] if self.mirrored else []
        if abs(angle) >= TURNED and not upside_down:
            edits.append(f"rotated by {abs(angle):.0f} degrees")
        if abs(self.scale - 1) > RESIZED:
            edits.append(f"{_percent(1 / self.scale)} size")
        if self.stretch > 1 + RESIZED:
            edits.append("stretched")
        return edits

    def _only_turned(self) -> bool:
        """Whether only the corners are lost, as when an image is rotated within its frame."""
        return abs(self.rotation) >= TURNED and min(self.shares) >= 0.65 and max(self.shares) / min(self.shares) < 1.05

    def _shared_a(self) -> NDArray[np.float64]:
        return np.empty((0, 2)) if self.matrix is None else shared_polygon(self.matrix, self.size_a, self.size_b)


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %" if share >= 0.01 else "under 1 %"
