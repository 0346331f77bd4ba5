"""How well the pixels of two images agree under an affine map, tile by tile."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dedupkit.verification.features import FLAT, Features
from dedupkit.verification.maps import Affine, Box, apply, shared_polygon

__all__ = ["BLOCK", "Tiles", "align", "compare_pixels"]

GRID, TILES = 128, 8  # the shared area is compared on a grid of up to GRID pixels a side, in TILES x TILES tiles
MARGIN = 3  # grid pixels beside an edge of either image, which blurring mixes with what lies beyond
FAINT = 1.5  # as FLAT, for `detail`
SPOILED = 0.4  # share of the textured tiles that captions and logos may spoil
BLOCK = 3  # tiles a side of the smallest area in which other content is looked for
ROUNDS, SETTLED = 5, 0.15  # of alignment at most; grid pixels that its last correction moves a corner at most
HOPELESS = 0.3  # agreement below which the second correction finds no copy either
ALIKE = 0.5  # correlation of a tile from which on its displacement means something
UNSURE = 0.3  # squared gradient, in grey levels a pixel, of what noise moves
SAME, STILL = 0.9, 0.3  # correlation and displacement, in grid pixels, of a tile that shows the same


@dataclass(frozen=True)  # no slots: what is asked for again and again is kept
class Tiles:
    """How the area that two images share agrees.

    Attributes:
        matrix: (2, 3) the map from a to b.
        correlation: (down, across) of the pixels of each tile; takes no notice of brightness and contrast.
        textured: (down, across) which tiles say something: those that are even in both images do not.
        displacement: (down, across) pixels of the grid by which what a tile shows lies off the map.
        bounds: (left, top, right, bottom) of the tiles together, in pixels of a.
    """

    matrix: Affine
    correlation: NDArray[np.floating]
    textured: NDArray[np.bool_]
    displacement: NDArray[np.floating]
    bounds: Box

    @cached_property
    def count(self) -> int:
        """Number of textured tiles."""
        return int(self.textured.sum())

    @cached_property
    def agreement(self) -> float:
        """The correlation that all textured tiles but the share ``SPOILED`` reach."""
        return _quantile(self.correlation[self.textured], SPOILED) if self.count else 0.0

    @cached_property
    def worst(self) -> float:
        """The least mean correlation of BLOCK x BLOCK neighbouring tiles, most of them textured; 1 where none is."""
        if min(self.textured.shape) < BLOCK:
            return 1.0
        pair = (self.correlation * self.textured, self.textured)
        windows = (np.lib.stride_tricks.sliding_window_view(x, (BLOCK, BLOCK)) for x in pair)
        total, count = (window.sum(axis=(2, 3)) for window in windows)
        full = count > 2 / 3 * BLOCK**2
        return float((total[full] / count[full]).min(initial=1.0))

    @cached_property
    def shift(self) -> float:
        """Median displacement of the tiles that look alike, in pixels of the grid; infinite where none does.

        Copies follow one map to a tenth of a pixel. Other shots of a scene do not: depth and motion are not affine.
        """
        alike = self.displacement[self.textured & (self.correlation > ALIKE)]
        return _quantile(alike, 0.5) if alike.size else float("inf")

    @property
    def same(self) -> NDArray[np.bool_]:
        """(down, across) which tiles show the same, pixel by pixel."""
        found: NDArray[np.bool_] = self.textured & (self.correlation >= SAME) & (self.displacement <= STILL)
        return found

    def box(self, mask: NDArray[np.bool_], size: tuple[int, int]) -> Box:
        """Bounds of some tiles, (left, top, right, bottom) as fractions of a, whose (width, height) is given."""
        if not mask.any():
            return (0.0, 0.0, 0.0, 0.0)
        left, top, right, bottom = self.bounds
        sides = []
        for axis, start, end, length in ((0, left, right, size[0]), (1, top, bottom, size[1])):
            used = np.flatnonzero(mask.any(axis=axis))
            step = (end - start) / mask.shape[1 - axis]
            sides.append(((start + used[0] * step) / length, (start + (used[-1] + 1) * step) / length))
        (x0, x1), (y0, y1) = np.clip(sides, 0, 1).tolist()
        return (x0, y0, x1, y1)


def _quantile(values: NDArray[np.floating], share: float) -> float:
    """As ``np.quantile``, which takes twenty times as long for so few values."""
    ordered = np.sort(values)
    place = share * (len(ordered) - 1)
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return float(ordered[low] + (ordered[high] - ordered[low]) * (place - low))


def compare_pixels(cv2: Any, a: Features, b: Features, matrix: Affine, *, detail: bool = False) -> Tiles:
    """Correlate the two images tile by tile over the area that they share.

    Args:
        cv2: The module.
        a: One image.
        b: The other.
        matrix: (2, 3) from a to b.
        detail: Whether to take off what rows and columns explain (gradients, a vignette, a horizon), which many
            images share.
    """
    grid = _Grid.of(cv2, a, b, matrix)
    return _nothing(matrix) if grid is None else grid.tiles(matrix, detail=detail)


def align(cv2: Any, a: Features, b: Features, matrix: Affine) -> Tiles:
    """Correct a map by the pixels, and compare the images under it.

    The tiles' displacements (Lucas & Kanade 1981) are explained by an affine correction as far as one explains them,
    again until it settles; what is left is :attr:`Tiles.displacement`.

    Args:
        cv2: The module.
        a: One image.
        b: The other.
        matrix: (2, 3) from a to b, right to some pixels of the grid.
    """
    grid = _Grid.of(cv2, a, b, matrix)
    if grid is None:
        return _nothing(matrix)
    best = grid.tiles(matrix)
    for done in range(ROUNDS):
        if not best.count or best.shift <= SETTLED or (done and best.agreement < HOPELESS):
            break  # nothing is left to correct, or to hope for
        corrected, moved = grid.correction()
        if moved <= SETTLED:
            break
        tiles = grid.tiles(corrected)
        if tiles.agreement < best.agreement:
            break
        best = tiles
    return best


def _nothing(matrix: Affine) -> Tiles:
    none = np.zeros((1, 1))
    return Tiles(matrix, none, none > 0, none, (0.0, 0.0, 0.0, 0.0))


class _Grid:
    """The area that two images share, as pixels of a grid that lies straight in a.

    Args:
        cv2: The module.
        a: One image.
        b: The other.
        to_a: (2, 3) from the grid to a.
        shape: (rows, columns).
    """

    def __init__(self, cv2: Any, a: Features, b: Features, to_a: Affine, shape: tuple[int, int]) -> None:
        self._cv2, self._b, self._to_a, self._shape = cv2, b, to_a, shape
        self._first = _sampled(cv2, _blurred(cv2, a, to_a), _of_plane(a, to_a), shape)
        self._inside_a = _inside(a, to_a, shape)
        # Of b, for the first map; the others are much the same.
        self._plane: NDArray[np.float32] | None = None
        self._inside: NDArray[np.bool_] | None = None
        counts = [max(1, min(TILES, length // 6)) for length in shape]
        self._cuts = [np.linspace(0, n, k + 1).round().astype(np.int64) for n, k in zip(shape, counts, strict=True)]
        y, x = ((cut[1:] + cut[:-1]) / 2 for cut in self._cuts)
        self._places = np.stack([*np.meshgrid(x, y), np.ones(counts)], axis=2)  # middles of the tiles
        into_a = np.vstack([to_a, (0, 0, 1)])
        self._into_a, self._from_a = into_a, np.linalg.inv(into_a)
        self._matrix = to_a  # of the last comparison, with its displacements

    @classmethod
    def of(cls, cv2: Any, a: Features, b: Features, matrix: Affine) -> _Grid | None:
        """Lay the grid over the shared area; None where there is none."""
        corners = shared_polygon(matrix, a.size, b.size)
        if len(corners) < 3:
            return None
        start, extent = corners.min(axis=0), np.ptp(corners, axis=0)
        scale = np.sqrt(abs(np.linalg.det(matrix[:, :2])))
        step = max(extent.max() / GRID, a.pixel, b.pixel / scale)  # pixels of a to a pixel of the grid
        columns, rows = (max(1, round(length / step)) for length in extent.tolist())
        to_a = np.array([[extent[0] / columns, 0, start[0]], [0, extent[1] / rows, start[1]]])
        return cls(cv2, a, b, to_a, (rows, columns))

    def tiles(self, matrix: Affine, *, detail: bool = False) -> Tiles:
        """Compare under a map."""
        from dedupkit.verification.kernels import compare_tiles

        to_b = np.column_stack([matrix[:, :2] @ self._to_a[:, :2], apply(matrix, self._to_a[:, 2])])
        if self._inside is None:
            self._inside = self._inside_a & _inside(self._b, to_b, self._shape)
        inside = self._inside
        if not inside.any():
            return _nothing(matrix)
        if self._plane is None:
            self._plane = _blurred(self._cv2, self._b, to_b)
        first, second = self._first, _sampled(self._cv2, self._plane, _of_plane(self._b, to_b), self._shape)
        if detail:
            first, second = (_uneven(grid) for grid in (first, second))
        found = np.empty((6, *self._places.shape[:2]))
        compare_tiles(first, second, inside, *self._cuts, UNSURE, found)
        area, spread_a, spread_b, correlation, self._x, self._y = found
        textured = np.maximum(spread_a, spread_b) > (FAINT if detail else FLAT) ** 2 + 1
        textured &= area >= 0.5 * np.outer(*(np.diff(cut) for cut in self._cuts))
        self._matrix, self._usable = matrix, textured & (correlation > ALIKE)
        left, top = self._to_a[:, 2].tolist()
        right, bottom = apply(self._to_a, np.array([self._shape[::-1]]))[0].tolist()
        return Tiles(matrix, correlation, textured, np.hypot(self._x, self._y), (left, top, right, bottom))

    def correction(self) -> tuple[Affine, float]:
        """The last map with the affine part of the tiles' displacements taken off, and by how much it moves corners."""
        if self._usable.sum() < 6:
            return self._matrix, 0.0
        places = self._places[self._usable]
        moves = np.column_stack([self._x[self._usable], self._y[self._usable]]).clip(-2, 2)
        weight = 1 / (np.abs(moves - np.median(moves, axis=0)).max(axis=1, keepdims=True) + 0.5)
        field = np.linalg.lstsq(places * weight, moves * weight, rcond=None)[0].T  # (2, 3), in pixels of the grid
        rows, columns = self._shape
        corners = np.array([[0, 0, 1], [columns, 0, 1], [0, rows, 1], [columns, rows, 1]])
        correction = np.eye(3)
        correction[:2] += field
        moved = float(np.abs(corners @ field.T).max())
        return self._matrix @ self._into_a @ correction @ self._from_a, moved


def _uneven(grid: NDArray[np.floating]) -> NDArray[np.floating]:
    rest: NDArray[np.floating] = grid - grid.mean(axis=0) - grid.mean(axis=1, keepdims=True) + grid.mean()
    return rest


def _of_plane(image: Features, to_full: Affine) -> Affine:
    """The map to the pixels of the plane as OpenCV counts them, from the centre of the first one."""
    shrink = np.array(image.plane.shape[::-1]) / image.size
    matrix = to_full * shrink[:, None]
    matrix[:, 2] += matrix[:, :2] @ (0.5, 0.5) - 0.5
    return matrix


def _blurred(cv2: Any, image: Features, to_full: Affine) -> NDArray[np.float32]:
    """The plane, blurred to the resolution of the grid."""
    sigma = 0.8 * np.sqrt(abs(np.linalg.det(_of_plane(image, to_full)[:, :2])))
    plane = image.plane.astype(np.float32)
    if sigma > 0.4:
        plane = cv2.GaussianBlur(plane, (0, 0), sigma, borderType=cv2.BORDER_REPLICATE)
    return plane


def _sampled(cv2: Any, plane: NDArray[np.float32], matrix: Affine, shape: tuple[int, int]) -> NDArray[np.float32]:
    """Values of the plane (rows, columns) at the grid's pixels."""
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    sampled: NDArray[np.float32] = cv2.warpAffine(
        plane, matrix, shape[::-1], flags=flags, borderMode=cv2.BORDER_REPLICATE
    )
    return sampled


def _inside(image: Features, to_full: Affine, shape: tuple[int, int]) -> NDArray[np.bool_]:
    """Which of the grid's pixels (rows, columns) lie in the content of the image, clear of its edges."""
    rows, columns = shape
    margin = MARGIN * np.sqrt(abs(np.linalg.det(to_full[:, :2])))
    x, y = np.arange(columns) + 0.5, np.arange(rows)[:, None] + 0.5
    left, top, right, bottom = np.array(image.content) * (*image.size, *image.size)
    across, down = (line[0] * x + line[1] * y + line[2] for line in to_full)
    inside: NDArray[np.bool_] = (
        (across > left + margin) & (across < right - margin) & (down > top + margin) & (down < bottom - margin)
    )
    return inside
