"""Small images, such as those of CIFAR: too few pixels for corners, few enough to be aligned by all of them.

Small pictures of one photo were cut and squeezed a little differently, brightened, sharpened and compressed. So a map
is sought that scales and shifts along both sides, in four mirrorings, with a gain and an offset of brightness: the one
of the least squared difference, by Gauss-Newton steps along the mean gradient of both images (Lucas & Kanade 1981;
Benhimane & Malis 2004), first blurred, then sharp. Under it, two images are copies where

* all shared pixels correlate, which also silhouettes before a sky do;
* what a blur takes off correlates, too: fine detail of other photos does not, even where their subject is the same;
* no part stands out of the difference: another head, wheel or livery does, where all the rest is alike;
* most of both images is shared: a map that stretches one silhouette onto another shares less.

The bounds come from pairs that people judged (``benchmarks/small.py``).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dedupkit.verification.criteria import as_copy
from dedupkit.verification.features import Features
from dedupkit.verification.maps import Affine, Verification

__all__ = ["SMALL", "by_all_pixels", "is_small"]

SMALL = 40  # longer side of images that are decided here, in pixels
AGREE, DETAIL = 0.93, 0.86  # correlation of all shared pixels, and of what a blur by FINE pixels takes off
STANDS_OUT, WINDOW = 0.45, 7  # difference of a window that shows something else, to the contrast; its pixels a side
SHARED = 0.77  # of the area of both images
FINE, GRAIN = 1.5, 0.8  # pixels by which detail is blurred away, and by which noise is averaged
NOISE = 4.0  # variance of detail, in squared grey levels, that compression leaves in an even area
LIKE = 0.5  # correlation of the blurred images in place, without which no alignment finds a copy
STEPS = ((1.2, 12, 0.7), (0.0, 10, AGREE))  # pixels of blur, rounds of alignment, correlation needed to go on
HOPELESS, EARLY = 0.5, 2  # correlation below which the third round finds no copy either
SETTLED, FARTHEST = 0.02, 3.0  # pixels that a last and any round move a side
MARGIN = 1.0  # pixels beside an edge, which resizing mixed with what lies beyond
FEWEST = 8  # pixels a side of a shared area that can be compared
MIRRORINGS = ((1, 1), (-1, 1), (1, -1), (-1, -1))  # across, down

Plane = NDArray[np.float32]


def is_small(image: Features) -> bool:
    """Whether pairs with this image are decided by :func:`by_all_pixels`."""
    return max(image.size) <= SMALL


def by_all_pixels(cv2: Any, a: Features, b: Features, min_agreement: float = AGREE) -> Verification:
    """Decide about two images of which one is small; the other is reduced to its pixels.

    Args:
        cv2: The module.
        a: One image.
        b: The other.
        min_agreement: Correlation that all shared pixels must reach where it is more than ``AGREE``.

    Returns:
        The verdict; ``agreement`` is the correlation of all shared pixels, ``inliers`` 0.
    """
    shape = (min(a.plane.shape[0], b.plane.shape[0]), min(a.plane.shape[1], b.plane.shape[1]))
    nothing = Verification(False, "other content", None, a.size, b.size)
    if min(shape) < FEWEST:
        return nothing
    first, second = (_resized(cv2, image.plane, shape) for image in (a, b))
    blurred = [cv2.GaussianBlur(plane, (0, 0), 2.0, borderType=cv2.BORDER_REPLICATE) for plane in (first, second)]
    in_place = [(_correlation(blurred[0], blurred[1][::down, ::across]), across, down) for across, down in MIRRORINGS]
    best = nothing
    for like, across, down in sorted(in_place, key=lambda tried: -tried[0]):
        if like < LIKE:
            break
        placed = _aligned(cv2, first, np.ascontiguousarray(second[::down, ::across]))
        if placed is None:
            continue
        found = Verification(False, "", placed.matrix(a, b, across, down), a.size, b.size, agreement=placed.agreement)
        refusal = placed.refusal(cv2, min_agreement)
        if not refusal and min(found.shares) < SHARED:
            refusal = f"only {100 * min(found.shares):.0f} % of the area is shared"
        if not refusal:
            return as_copy(found)
        if best.matrix is None:
            best = Verification(False, refusal, found.matrix, a.size, b.size, agreement=found.agreement)
    return best


@dataclass(frozen=True, slots=True)
class _Placed:
    """What two grids of pixels share under a map along their sides.

    Attributes:
        shape: rows and columns of the grids.
        scales: (2,) pixels of the second to a pixel of the first, across and down.
        shifts: (2,) where the second has the corner of the first.
        corner: (2,) first row and column of the shared area, in the first.
        first: its pixels there, less their mean.
        second: those of the other, less theirs, brought to the contrast of the first.
        contrast: standard deviation of the first, in grey levels.
        agreement: correlation of the two.
    """

    shape: tuple[int, ...]
    scales: NDArray[np.float64]
    shifts: NDArray[np.float64]
    corner: tuple[int, int]
    first: Plane
    second: Plane
    contrast: float
    agreement: float

    @classmethod
    def of(
        cls, cv2: Any, first: Plane, second: Plane, scales: NDArray[np.float64], shifts: NDArray[np.float64]
    ) -> _Placed | None:
        """Sample the second where the first has pixels; None where they hardly meet."""
        lengths = np.array(first.shape[::-1])
        start = np.ceil(np.maximum(MARGIN, (MARGIN - shifts) / scales) - 0.5).astype(int)
        end = np.floor(np.minimum(lengths - MARGIN, (lengths - MARGIN - shifts) / scales) + 0.5).astype(int)
        if (end - start).min() < FEWEST:
            return None
        (left, top), (right, bottom) = start.tolist(), end.tolist()
        x, y = (scales * (start + 0.5) + shifts - 0.5).tolist()  # of the first shared pixel, as OpenCV counts them
        sampled = cv2.warpAffine(
            second,
            np.array([[scales[0], 0, x], [0, scales[1], y]]),
            (right - left, bottom - top),
            flags=cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_REPLICATE,
        )
        here, there = (plane - plane.mean() for plane in (first[top:bottom, left:right], sampled))
        product, spread, other = (
            float(np.vdot(x, y)) / x.size for x, y in ((here, there), (here, here), (there, there))
        )
        agreement = product / math.sqrt((spread + 1) * (other + 1))
        matched = there * np.float32(math.sqrt((spread + 1) / (other + 1)))
        return cls(first.shape, scales, shifts, (top, left), here, matched, math.sqrt(spread + 1), agreement)

    def step(self) -> NDArray[np.floating]:
        """Solve for what moves the second onto the first.

        Returns:
            (4,): pixels of the first to the right, and more of them from side to side; the same down.
        """
        middle, rest = (self.first + self.second) / 2, (self.first - self.second)[1:-1, 1:-1]
        rows, columns = rest.shape
        x = (self.corner[1] + 1.5 + np.arange(columns, dtype=np.float32)) / self.shape[1] - np.float32(0.5)
        y = (self.corner[0] + 1.5 + np.arange(rows, dtype=np.float32)[:, None]) / self.shape[0] - np.float32(0.5)
        across = (middle[1:-1, 2:] - middle[1:-1, :-2]) / 2
        down = (middle[2:, 1:-1] - middle[:-2, 1:-1]) / 2
        even = self.second[1:-1, 1:-1]  # contrast and brightness are corrected with the map
        columns_of = (across, across * x, down, down * y, even, np.ones_like(rest))
        design: NDArray[np.float64] = np.stack([column.ravel() for column in columns_of], axis=1).astype(np.float64)
        normal = design.T @ design
        normal[np.diag_indices(6)] = normal.diagonal() * 1.0001 + 1e-3  # where nothing has a gradient
        found: NDArray[np.floating] = np.linalg.solve(normal, design.T @ rest.ravel())[:4]
        return found

    def refusal(self, cv2: Any, min_agreement: float) -> str:
        """Why the pixels show no copies, as a phrase; empty where they do."""

        def blurred(plane: Plane, pixels: float) -> Plane:
            smooth: Plane = cv2.GaussianBlur(plane, (0, 0), pixels, borderType=cv2.BORDER_REFLECT_101)
            return smooth

        if self.agreement < min_agreement:
            return f"other content, the pixels agree to {self.agreement:.2f}"
        first, second = (plane - blurred(plane, FINE) for plane in (self.first, self.second))
        detail = _correlation(first, second, NOISE)
        if detail < DETAIL:
            return f"other content, fine detail agrees to {detail:.2f}"
        squares = blurred(self.first - self.second, GRAIN) ** 2
        half = WINDOW // 2
        windows = cv2.blur(squares, (WINDOW, WINDOW))[half:-half, half:-half]
        most = math.sqrt(float(windows.max())) / self.contrast
        return f"other content, a part differs by {most:.2f} of the contrast" if most > STANDS_OUT else ""

    def matrix(self, a: Features, b: Features, across: int, down: int) -> Affine:
        """The map from a to b in pixels of the full images; the second grid shows b mirrored as given."""
        into_a, from_b = (np.array(image.size) / self.shape[::-1] for image in (a, b))
        scales, shifts = self.scales * from_b / into_a, self.shifts * from_b
        signs = np.array([across, down])
        return np.column_stack([np.diag(signs * scales), np.where(signs > 0, shifts, b.size - shifts)])


def _aligned(cv2: Any, first: Plane, second: Plane) -> _Placed | None:
    """Seek the map from one grid to another of its shape; None where pixels correlate under none."""
    scales, shifts = np.ones(2), np.zeros(2)
    best: _Placed | None = None
    lengths = np.array(first.shape[::-1])
    for pixels, rounds, needed in STEPS:
        planes = [first, second]
        if pixels:
            planes = [cv2.GaussianBlur(plane, (0, 0), pixels, borderType=cv2.BORDER_REPLICATE) for plane in planes]
        best = None
        for done in range(rounds):
            placed = _Placed.of(cv2, planes[0], planes[1], scales, shifts)
            if placed is None or (best is not None and placed.agreement < best.agreement - 0.02):
                break
            if best is None or placed.agreement > best.agreement:
                best = placed
            move = placed.step()
            move *= min(1.0, FARTHEST / max(float(np.abs(move).max()), 1e-9))
            shifts = shifts + scales * (move[::2] - move[1::2] / 2)
            scales = scales * (1 + move[1::2] / lengths)
            if np.abs(move).max() < SETTLED or (done >= EARLY and best.agreement < HOPELESS):
                break
        if best is None or best.agreement < needed:
            return None
        scales, shifts = best.scales, best.shifts
    return best


def _resized(cv2: Any, plane: NDArray[np.uint8], shape: tuple[int, int]) -> Plane:
    resized: Plane = plane.astype(np.float32)
    return resized if plane.shape == shape else cv2.resize(resized, shape[::-1], interpolation=cv2.INTER_AREA)


def _correlation(first: Plane, second: Plane, noise: float = 1.0) -> float:
    first, second = first - first.mean(), second - second.mean()
    product, left, right = (
        float(np.vdot(x, y)) / x.size for x, y in ((first, second), (first, first), (second, second))
    )
    return product / math.sqrt((left + noise) * (right + noise))
