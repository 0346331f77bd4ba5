"""What an affine map between two images says: what they share, how one was edited, how well the pixels agree under it.

Coordinates are pixels of the full images, continuous, with the origin at the outer corner of the top left pixel: a
plain resize is a pure scaling, and the centre of the first pixel lies at (0.5, 0.5).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from dedupkit.neighbors.verify import Features

__all__ = ["Affine", "Box", "Verification", "apply", "compare_pixels", "inverse", "shared_polygon"]

Affine = NDArray[np.float64]
Box = tuple[float, float, float, float]

WHOLE = 0.96  # from this share of its area on, an image counts as seen in full: maps are good to about 1 %
TURNED = 1.0  # degrees below which a rotation goes unmentioned
RESIZED = 0.05  # relative change of size, or of the aspect, that goes unmentioned

GRID, TILES = 128, 8  # the shared area is compared on a grid of up to GRID pixels a side, in TILES x TILES tiles
MARGIN = 3  # grid pixels beside an edge of either image, which blurring mixes with what lies beyond
FLAT, FAINT = 4.0, 1.5  # standard deviation in grey levels below which a tile is even; the second for `detail`
SPOILED = 0.4  # share of the textured tiles that captions and logos may spoil
BLOCK = 3  # tiles a side of the smallest area in which other content is looked for


def apply(matrix: Affine, points: NDArray[np.floating]) -> NDArray[np.float64]:
    """Map points (k, 2) by a (2, 3) matrix."""
    mapped: NDArray[np.float64] = points @ matrix[:, :2].T + matrix[:, 2]
    return mapped


def inverse(matrix: Affine) -> Affine:
    """The (2, 3) matrix of the inverse map."""
    linear = np.linalg.inv(matrix[:, :2])
    return np.column_stack([linear, -linear @ matrix[:, 2]])


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
        verified: whether the two show the same picture by the map.
        reason: why not, as a phrase; empty where verified.
        matrix: (2, 3) float64 from pixels of a to pixels of b; None where no map was found.
        size_a: (width, height) of a in pixels.
        size_b: (width, height) of b in pixels.
        inliers: local features of the two that agree with the map; 0 where pixels alone were compared.
        deviation: median distance of the matched features from the map, in pixels of the coarser image.
        coherence: correlation of these deviations between neighbouring features, -1..1.
        agreement: correlation of the pixels that 60 % of the shared, textured area reach, -1..1.
        bordered: (a, b): whether what the other shows is all but an even border of it.
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
        """The larger of :attr:`shares`: 1 where one picture is wholly seen in the other."""
        return max(self.shares)

    @property
    def scale(self) -> float:
        """Pixels of b for a pixel of a, along a side; the geometric mean where the map stretches."""
        return 0.0 if self.matrix is None else math.sqrt(abs(float(np.linalg.det(self.matrix[:, :2]))))

    @property
    def stretch(self) -> float:
        """Change of the aspect, at least 1: the ratio of the map's largest to its smallest scaling."""
        if self.matrix is None:
            return 1.0
        large, small = np.linalg.svd(self.matrix[:, :2], compute_uv=False)
        return float(large / small)

    @property
    def mirrored(self) -> bool:
        """Whether one is a mirror image of the other."""
        return self.matrix is not None and float(np.linalg.det(self.matrix[:, :2])) < 0

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
        matrix = None
        if self.matrix is not None:
            linear = np.linalg.inv(self.matrix[:, :2])
            matrix = np.column_stack([linear, -linear @ self.matrix[:, 2]])
        return replace(
            self, matrix=matrix, size_a=self.size_b, size_b=self.size_a, bordered=(self.bordered[1], self.bordered[0])
        )

    def describe(self, other: str = "the kept image") -> str:
        """Say in a few words what a is of ``other``, which is b.

        For example ``a 78 % crop, mirrored, of the kept image``, ``the same picture, 50 % size``, ``the same picture
        inside a border`` or, where the two are not the same, ``not the kept image: 3 matching points``.
        """
        if not self.verified:
            return f"not {other}: {self.reason}"
        share_a, share_b = self.shares
        what, of = "the same picture", ""
        if share_a >= WHOLE > share_b:
            if self.bordered[1]:
                what = "the same picture without a border"
            else:
                what, of = f"a {_percent(share_b)} crop", f" of {other}"
        elif share_b >= WHOLE > share_a:
            if self.bordered[0]:
                what = "the same picture inside a border"
            else:
                what, of = "a wider picture", f" with {other} in {_percent(share_a)} of it"
        elif max(share_a, share_b) < WHOLE and not self._only_turned():
            what, of = "a picture", f" that shares {_percent(share_a)} of its area with {other}"
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
        """Whether only the corners are lost, as when a picture is rotated within its frame."""
        return abs(self.rotation) >= TURNED and min(self.shares) >= 0.65 and max(self.shares) / min(self.shares) < 1.05

    def _shared_a(self) -> NDArray[np.float64]:
        return np.empty((0, 2)) if self.matrix is None else shared_polygon(self.matrix, self.size_a, self.size_b)


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %" if share >= 0.01 else "under 1 %"


def compare_pixels(
    cv2: Any, a: Features, b: Features, matrix: Affine, *, detail: bool = False
) -> tuple[float, int, float]:
    """Correlate the two images tile by tile over the area that they share.

    Correlation takes no notice of brightness and contrast. Tiles that are even in both images say nothing; a tile
    that is even in one alone disagrees.

    Args:
        cv2: the module.
        a: one image.
        b: the other.
        matrix: (2, 3) from a to b.
        detail: take off what rows and columns explain (gradients, a vignette, a horizon), which many images share.

    Returns:
        The correlation that all textured tiles but the share ``SPOILED`` reach, the number of textured tiles, and
        the mean correlation of the worst block of them.
    """
    corners = shared_polygon(matrix, a.size, b.size)
    if len(corners) < 3:
        return 0.0, 0, 0.0
    start, extent = corners.min(axis=0), np.ptp(corners, axis=0)
    scale = np.sqrt(abs(np.linalg.det(matrix[:, :2])))
    step = max(extent.max() / GRID, a.pixel, b.pixel / scale)  # pixels of a to a pixel of the grid
    columns, rows = (max(1, round(length / step)) for length in extent.tolist())
    to_a = np.array([[extent[0] / columns, 0, start[0]], [0, extent[1] / rows, start[1]]])
    to_b = np.column_stack([matrix[:, :2] @ to_a[:, :2], apply(matrix, to_a[:, 2])])
    inside = _inside(a, to_a, columns, rows) & _inside(b, to_b, columns, rows)
    down, across = (max(1, min(TILES, length // 6)) for length in (rows, columns))
    if not inside.any():
        return 0.0, 0, 0.0
    weight = inside.astype(np.float32)
    first, second = (_sampled(cv2, image, to, columns, rows) for image, to in ((a, to_a), (b, to_b)))
    if detail:
        first, second = (_uneven(grid) for grid in (first, second))
    first, second = (grid - grid[inside].mean() for grid in (first, second))

    def mean(values: NDArray[np.floating]) -> NDArray[np.floating]:
        result: NDArray[np.floating] = _tile_sums(values * weight, down, across) / np.maximum(area, 1)
        return result

    area = _tile_sums(weight, down, across)
    mean_a, mean_b = mean(first), mean(second)
    spread_a, spread_b = mean(first * first) - mean_a**2, mean(second * second) - mean_b**2
    joint = mean(first * second) - mean_a * mean_b
    correlation = joint / np.sqrt((np.maximum(spread_a, 0) + 1) * (np.maximum(spread_b, 0) + 1))
    textured = np.maximum(spread_a, spread_b) > (FAINT if detail else FLAT) ** 2
    textured &= area >= 0.5 * _tile_sums(np.ones_like(weight), down, across)
    if not textured.any():
        return 0.0, 0, 0.0
    return float(np.quantile(correlation[textured], SPOILED)), int(textured.sum()), _worst_block(correlation, textured)


def _worst_block(correlation: NDArray[np.floating], textured: NDArray[np.bool_]) -> float:
    """The least mean correlation of BLOCK x BLOCK neighbouring tiles, most of them textured; 1 where there is none."""
    if min(textured.shape) < BLOCK:
        return 1.0
    windows = (np.lib.stride_tricks.sliding_window_view(x, (BLOCK, BLOCK)) for x in (correlation * textured, textured))
    total, count = (window.sum(axis=(2, 3)) for window in windows)
    full = count > 2 / 3 * BLOCK**2
    return float((total[full] / count[full]).min(initial=1.0))


def _uneven(grid: NDArray[np.floating]) -> NDArray[np.floating]:
    rest: NDArray[np.floating] = grid - grid.mean(axis=0) - grid.mean(axis=1, keepdims=True) + grid.mean()
    return rest


def _sampled(cv2: Any, image: Features, to_full: Affine, columns: int, rows: int) -> NDArray[np.float32]:
    """Values of the plane (rows, columns) at the grid's pixels, blurred to the grid's resolution first."""
    shrink = np.array(image.plane.shape[::-1]) / image.size
    matrix = to_full * shrink[:, None]
    matrix[:, 2] += matrix[:, :2] @ (0.5, 0.5) - 0.5  # OpenCV counts from the centre of the first pixel
    sigma = 0.8 * np.sqrt(abs(np.linalg.det(matrix[:, :2])))
    plane = image.plane.astype(np.float32)
    if sigma > 0.4:
        plane = cv2.GaussianBlur(plane, (0, 0), sigma, borderType=cv2.BORDER_REPLICATE)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    sampled: NDArray[np.float32] = cv2.warpAffine(
        plane, matrix, (columns, rows), flags=flags, borderMode=cv2.BORDER_REPLICATE
    )
    return sampled


def _inside(image: Features, to_full: Affine, columns: int, rows: int) -> NDArray[np.bool_]:
    """Which of the grid's pixels (rows, columns) lie in the content of the image, clear of its edges."""
    margin = MARGIN * np.sqrt(abs(np.linalg.det(to_full[:, :2])))
    x, y = np.arange(columns) + 0.5, np.arange(rows)[:, None] + 0.5
    left, top, right, bottom = np.array(image.content) * (*image.size, *image.size)
    across, down = (line[0] * x + line[1] * y + line[2] for line in to_full)
    inside: NDArray[np.bool_] = (
        (across > left + margin) & (across < right - margin) & (down > top + margin) & (down < bottom - margin)
    )
    return inside


def _tile_sums(values: NDArray[np.floating], down: int, across: int) -> NDArray[np.floating]:
    rows, columns = (
        np.linspace(0, length, count + 1).round().astype(np.intp)[:-1]
        for length, count in zip(values.shape, (down, across), strict=True)
    )
    sums: NDArray[np.floating] = np.add.reduceat(np.add.reduceat(values, rows, axis=0), columns, axis=1)
    return sums
