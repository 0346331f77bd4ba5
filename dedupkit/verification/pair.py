"""Whether two images show the same image: local features, one affine map, and the pixels under it.

A descriptor says that two images look alike; what a copy has beyond that is one map under which the pixels agree.
Candidate pairs come from hashes or embeddings; each is decided here on its own, by the cheapest step that can:

1. Corners (:mod:`dedupkit.verification.corners`), matched in both mirrorings, give an affine map by RANSAC. Two images
   rich in corners without a map are strangers.
2. Both images, reduced to some 64 pixels, are compared under the map (:mod:`dedupkit.verification.glance`): most maps
   are by chance, or of another shot, and end here.
3. The map is corrected by the pixels, and the images are compared under it, tile by tile
   (:mod:`dedupkit.verification.pixels`). Where tiles agree and lie still, the two are copies; a caption or a logo
   spoils few tiles. Where a block differs and the rest is the same pixel by pixel, they are images of one template.
   Where the pixels agree in part, a few corners may have given a rough map: it is sought again among all corners that
   lie about where it puts them. Pixels that disagree under a map that many corners follow show another scene, or
   another shot of it: depth and motion are not affine, so its tiles do not lie still.
4. What is still open is decided by RootSIFT features (:mod:`dedupkit.verification.sift`), computed once per image.
   Images in which SIFT finds little (sky, logos, thumbnails) are compared in place, in four mirrorings, by their
   pixels, to a stricter standard; where even corners are few, that is all that is done.

Small images, such as CIFAR's, are aligned by all their pixels instead (:mod:`dedupkit.verification.small`).
Nothing here draws random numbers that depend on anything but the pair.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dedupkit.errors import import_optional
from dedupkit.images import ImageLike
from dedupkit.verification.corners import corner_matches, matches_nearby
from dedupkit.verification.criteria import (
    FEW_TILES,
    MIN_OVERLAP,
    MOVED,
    OTHER,
    SURE,
    SURE_SHIFT,
    UNLIKE,
    as_copy,
    fit,
    measured,
    refused,
)
from dedupkit.verification.features import Features, features_of, local_features
from dedupkit.verification.glance import worth_aligning
from dedupkit.verification.maps import Affine, Verification, apply, determinant
from dedupkit.verification.pixels import align
from dedupkit.verification.sift import by_sift
from dedupkit.verification.small import by_all_pixels, is_small
from dedupkit.verification.tiles import Tiles

__all__ = ["Features", "Verification", "local_features", "verify_pair"]

FEWEST = 4  # corners on a map that is worth a look at the pixels; strangers hardly reach so many
MANY = 20  # corners on a map that is none by chance
RICH = 100  # corners of an image that would give a map if there were one
LIKE = 0.75  # agreement below which images on a map of many corners are no copies
FAINTLY = 0.3  # agreement of a map of few corners from which on it may be the right one, seen vaguely
AGAIN = (8.0, 5.0)  # pixels of the reduced b around the place of a corner in which it is sought again


def verify_pair(
    a: Features | ImageLike, b: Features | ImageLike, *, min_inliers: int = 15, min_agreement: float = 0.85
) -> Verification:
    """Decide whether two images show the same content, one perhaps a crop, a mirror image or an edit of the other.

    >>> from PIL import Image, ImageOps
    >>> noise = np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8)
    >>> image = Image.fromarray(noise).resize((640, 480), Image.Resampling.BICUBIC)
    >>> found = verify_pair(ImageOps.mirror(image.crop((60, 40, 560, 440))), image)
    >>> found.verified, found.mirrored, found.describe("the other")
    (True, True, 'a 65 % crop, mirrored, of the other')

    Args:
        a: One image: a PIL image, an array (h, w), (h, w, 3) or (h, w, 4) uint8, the bytes of a file; or its features,
            where it is compared with several others (:func:`~dedupkit.verification.features.features_of`).
        b: The other.
        min_inliers: Number of local features that must follow one map; with fewer the pixels must agree all the better.
        min_agreement: Correlation of pixels that 60 % of the shared, textured area must reach.

    Returns:
        The verdict, and the map from a to b where one was found.

    Raises:
        ImageError: One of the two is no image that can be used.
        TypeError: One of the two is no image.
        MissingExtraError: OpenCV is not installed.
    """
    cv2 = import_optional("cv2", "verify")
    a, b = features_of(a), features_of(b)
    if is_small(a) or is_small(b):
        return by_all_pixels(cv2, a, b, min_agreement)
    found = _by_corners(cv2, a, b, min_agreement)
    return found or replace(by_sift(cv2, a, b, min_inliers, min_agreement), by_sift=True)


def _by_corners(cv2: Any, a: Features, b: Features, min_agreement: float) -> Verification | None:
    """The verdict where corners and pixels are enough for one, else None."""
    best: _Look | None = None
    unlike = Verification(False, "no matching points", None, a.size, b.size)
    template: Verification | None = None  # only where the other mirroring shows no copy
    for matrix, inliers in _corner_maps(cv2, a, b):
        if not worth_aligning(a, b, matrix, sure=inliers >= MANY):
            unlike = replace(unlike, reason="other content on the best map", matrix=matrix, inliers=inliers)
            continue
        look = _Look.along(cv2, a, b, matrix, inliers)
        if look.sure(min_agreement):
            return as_copy(look.found)
        if look.found.relation == "template":
            template = template or look.found
        best = look.better_than(best)
    if template is not None:
        return template
    if best is None:
        rich = min(len(a.corners), len(b.corners)) >= RICH
        return unlike if rich or unlike.matrix is not None else None
    many = best.inliers >= MANY
    certain = UNLIKE if not many else LIKE if best.tiles.shift <= MOVED else SURE
    if best.agreement >= (certain if many else FAINTLY):
        for radius in AGAIN:
            again = _look_again(cv2, a, b, best.tiles.matrix, radius)
            if again is None:
                break
            if again.found.relation == "template":
                return again.found
            if again.sure(min_agreement):
                return as_copy(again.found)
            if again.agreement <= best.agreement:
                break
            best = again
    return refused(best.found, best.tiles) if best.agreement < certain else None


@dataclass(frozen=True, slots=True)
class _Look:
    """The images under a map that corners propose.

    Attributes:
        inliers: Corners that follow it.
        tiles: What the pixels say of it, corrected by them.
        found: The same in words.
    """

    inliers: int
    tiles: Tiles
    found: Verification

    @classmethod
    def along(cls, cv2: Any, a: Features, b: Features, matrix: Affine, inliers: int) -> _Look:
        tiles = align(cv2, a, b, matrix)
        return cls(inliers, tiles, measured(a, b, tiles, inliers, tiles.shift))

    @property
    def agreement(self) -> float:
        return self.found.agreement

    def better_than(self, other: _Look | None) -> _Look:
        return self if other is None or self.agreement > other.agreement else other

    def sure(self, min_agreement: float) -> bool:
        """Whether the images are copies beyond doubt."""
        tiles = self.tiles
        sure = tiles.shift <= SURE_SHIFT and tiles.agreement >= max(SURE, min_agreement) and tiles.worst >= OTHER
        return sure and tiles.count >= FEW_TILES and self.found.overlap >= MIN_OVERLAP


def _corner_maps(cv2: Any, a: Features, b: Features) -> Iterator[tuple[Affine, int]]:
    """The maps that corners propose, one for each mirroring; one of few corners only where none has many."""
    found, many = [], False
    for mirror in (False, True):
        matches = corner_matches(a.corners, b.corners, mirror=mirror)
        matrix, inliers = fit(cv2, a, b, _places(a, b, matches), mirror)
        if matrix is not None and inliers >= MANY:
            many = True
            yield matrix, inliers
        elif matrix is not None and inliers >= FEWEST:
            found.append((inliers, matrix))
    if not many:
        yield from ((matrix, inliers) for inliers, matrix in sorted(found, key=lambda fit: -fit[0]))


def _look_again(cv2: Any, a: Features, b: Features, matrix: Affine, radius: float) -> _Look | None:
    """Seek the map again among all corners that look alike and lie about where the map puts them."""
    mirror = determinant(matrix) < 0
    placed = apply(matrix, a.corners.points)
    matches = matches_nearby(a.corners, b.corners, placed, radius * b.pixel, mirror=mirror)
    better, inliers = fit(cv2, a, b, _places(a, b, matches), mirror)
    return None if better is None else _Look.along(cv2, a, b, better, inliers)


def _places(a: Features, b: Features, matches: NDArray[np.intp]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    return a.corners.points[matches[:, 0]], b.corners.points[matches[:, 1]]
