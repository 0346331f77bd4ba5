"""How the area that two images share agrees, tile by tile: what a comparison of pixels finds."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from dedupkit.verification.maps import Affine, Box

__all__ = ["ALIKE", "BLOCK", "Tiles"]

SPOILED = 0.4  # share of the textured tiles that captions and logos may spoil
BLOCK = 3  # tiles a side of the smallest area in which other content is looked for
ALIKE = 0.5  # correlation of a tile from which on its displacement means something
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
