"""What verification keeps of an image: corners, the reduced luminance, and what lies inside a border."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from dedupkit.errors import import_optional
from dedupkit.images import ImageLike, checked_image, decode_luma, luma_of
from dedupkit.verification.corners import Corners, find_corners
from dedupkit.verification.maps import Box

__all__ = ["FLAT", "Features", "features_of", "local_features"]

MOST = 500  # SIFT features that are kept, those of the highest contrast
FLAT = 4.0  # standard deviation in grey levels below which an area is even


@dataclass(frozen=True)
class Features:
    """What is kept of an image for all the pairs it is in. SIFT features are computed when a pair needs them.

    Attributes:
        width: Width of the full image in pixels.
        height: Height of the full image in pixels.
        corners: corners with their binary descriptors.
        plane: (h, w) uint8, the reduced luminance.
        content: bounds (left, top, right, bottom) of what lies inside an even border, as fractions.
    """

    width: int
    height: int
    corners: Corners
    plane: NDArray[np.uint8]
    content: Box

    @property
    def keypoints(self) -> NDArray[np.float32]:
        """(k, 2) float32, x and y of SIFT features in pixels of the full image; 15 to 25 ms at the first call."""
        return self._sift[0]

    @property
    def descriptors(self) -> NDArray[np.uint8]:
        """(k, 128) uint8, RootSIFT times 255."""
        return self._sift[1]

    @cached_property
    def _sift(self) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
        cv2 = import_optional("cv2", "verify")
        found, raw = [], None
        if min(self.plane.shape) >= 8:
            # Without the precise doubling all points are displaced by a quarter pixel, and in a mirror image otherwise.
            found, raw = cv2.SIFT_create(MOST, enable_precise_upscale=True).detectAndCompute(self.plane, None)
        points = np.array([point.pt for point in found], dtype=np.float32).reshape(-1, 2)
        descriptors = np.zeros((0, 128), dtype=np.uint8) if raw is None else _root(raw)
        return _in_full(points + np.float32(0.5), self.plane, self.size), descriptors

    @cached_property
    def _reduced(self) -> dict[int, NDArray[np.uint8]]:
        return {}

    def reduced(self, side: int) -> NDArray[np.uint8]:
        """The plane with a longer side of at most that many pixels, at least 2 x 2; kept."""
        if side not in self._reduced:
            shrink = side / max(self.plane.shape)
            rows, columns = (max(2, round(length * min(shrink, 1))) for length in self.plane.shape)
            cv2 = import_optional("cv2", "verify")
            self._reduced[side] = cv2.resize(self.plane, (columns, rows), interpolation=cv2.INTER_AREA)
        return self._reduced[side]

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) of the full image."""
        return self.width, self.height

    @property
    def pixel(self) -> float:
        """Side of a pixel of the plane, in pixels of the full image."""
        return max(self.size) / float(max(self.plane.shape))


def features_of(image: Features | ImageLike, *, side: int = 320) -> Features:
    """Compute the features of an image in any form; features come back as they are.

    Args:
        image: A PIL image, pixels (h, w), (h, w, 3) or (h, w, 4) uint8, or the bytes of a file.
        side: The longer side is reduced to this many pixels.

    Raises:
        ImageError: It is no image that can be used.
        TypeError: It is no image.
        MissingExtraError: OpenCV is not installed.
    """
    if isinstance(image, Features):
        return image
    image = checked_image(image)
    luma = decode_luma(image, min_side=side) if isinstance(image, bytes) else luma_of(image, min_side=side)
    return local_features(luma.plane, side=side, size=(luma.width, luma.height))


def local_features(luma: NDArray[np.uint8], *, side: int = 320, size: tuple[int, int] | None = None) -> Features:
    """Compute the features of an image, 2 to 4 ms a core at the default size.

    Args:
        luma: (h, w) uint8, the luminance, of any size.
        side: The longer side is reduced to this many pixels.
        size: (width, height) of the full image where ``luma`` is a reduction of it.

    Raises:
        ValueError: ``luma`` is no plane of bytes.
        MissingExtraError: OpenCV is not installed.
    """
    if luma.ndim != 2 or not luma.size or luma.dtype != np.uint8:
        raise ValueError(f"luma must be a plane (h, w) of uint8, not {luma.shape} of {luma.dtype}")
    cv2 = import_optional("cv2", "verify")
    height, width = luma.shape
    full = size or (width, height)
    shrink = side / max(height, width)
    plane = np.ascontiguousarray(luma)
    if shrink < 1:
        reduced = (max(1, round(width * shrink)), max(1, round(height * shrink)))
        plane = cv2.resize(plane, reduced, interpolation=cv2.INTER_AREA)
    return Features(full[0], full[1], find_corners(cv2, plane, full), plane, _content(plane))


def _in_full(points: NDArray[np.float32], plane: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.float32]:
    """Points in pixels of the plane as points in pixels of the full image."""
    rows, columns = plane.shape
    return points * np.array([size[0] / columns, size[1] / rows], dtype=np.float32)


def _root(raw: NDArray[np.float32]) -> NDArray[np.uint8]:
    """RootSIFT in bytes: whole numbers, so that products of descriptors are exact in whatever order they are summed."""
    share = raw / np.maximum(raw.sum(axis=1, keepdims=True), 1e-9)
    root: NDArray[np.uint8] = np.rint(255 * np.sqrt(share)).astype(np.uint8)
    return root


def _content(plane: NDArray[np.uint8]) -> Box:
    """Trim rows and columns at the edges as long as they are even and of the grey of the edge."""

    def even(lines: NDArray[np.uint8]) -> int:
        for count in (1, 16, len(lines)):  # most images have no border
            values = lines[:count].astype(np.float32)
            means = values.mean(axis=1)
            same = (values.std(axis=1) < FLAT) & (abs(means - means[0]) < 2 * FLAT)
            if not same.all():
                return int(np.argmin(same))
        return len(lines)

    top, left = even(plane), even(plane.T)
    rows, columns = plane.shape
    bottom, right = rows - even(plane[::-1]), columns - even(plane.T[::-1])
    if top >= bottom or left >= right:  # nothing but border, or two even halves that meet
        return (0.0, 0.0, 1.0, 1.0)
    return (left / columns, top / rows, right / columns, bottom / rows)
