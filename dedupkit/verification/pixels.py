"""Compare the pixels of two images under an affine map, tile by tile, and correct the map by them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dedupkit.verification.features import FLAT, Features
from dedupkit.verification.maps import Affine, apply, mean_scaling, shared_polygon
from dedupkit.verification.tiles import ALIKE, Tiles

__all__ = ["align", "compare_details"]

GRID, TILES = 128, 8  # the shared area is compared on a grid of up to GRID pixels a side, in TILES x TILES tiles
MARGIN = 3  # grid pixels beside an edge of either image, which blurring mixes with what lies beyond
FAINT = 1.5  # as FLAT, for `detail`
ROUNDS, SETTLED = 5, 0.15  # of alignment at most; grid pixels that its last correction moves a corner at most
HOPELESS = 0.3  # agreement below which the second correction finds no copy either
UNSURE = 0.3  # squared gradient, in grey levels a pixel, of what noise moves


def compare_details(cv2: Any, a: Features, b: Features, maps: Iterable[Affine]) -> Iterator[Tiles]:
    """Correlate the two images tile by tile, without what rows and columns explain, under one map after the other.

    Rows and columns explain gradients, a vignette, a horizon, which many images share.

    Args:
        cv2: The module.
        a: One image.
        b: The other.
        maps: (2, 3) each, from a to b; under all of them the same area is shared, at the same scale.
    """
    grid: _Grid | None = None
    for matrix in maps:
        grid = grid or _Grid.of(cv2, a, b, matrix)
        yield _nothing(matrix) if grid is None else grid.tiles(matrix, detail=True)


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
        scale = mean_scaling(matrix)
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
    sigma = 0.8 * mean_scaling(_of_plane(image, to_full))
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
    margin = MARGIN * mean_scaling(to_full)
    x, y = np.arange(columns) + 0.5, np.arange(rows)[:, None] + 0.5
    left, top, right, bottom = np.array(image.content) * (*image.size, *image.size)
    across, down = (line[0] * x + line[1] * y + line[2] for line in to_full)
    inside: NDArray[np.bool_] = (
        (across > left + margin) & (across < right - margin) & (down > top + margin) & (down < bottom - margin)
    )
    return inside
