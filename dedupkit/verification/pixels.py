"""How well the pixels of two images agree under an affine map."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from dedupkit.verification.features import FLAT, Features
from dedupkit.verification.maps import Affine, apply, shared_polygon

__all__ = ["BLOCK", "compare_pixels"]

GRID, TILES = 128, 8  # the shared area is compared on a grid of up to GRID pixels a side, in TILES x TILES tiles
MARGIN = 3  # grid pixels beside an edge of either image, which blurring mixes with what lies beyond
FAINT = 1.5  # as FLAT, for `detail`
SPOILED = 0.4  # share of the textured tiles that captions and logos may spoil
BLOCK = 3  # tiles a side of the smallest area in which other content is looked for


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
