"""Whether two images show the same image: local features, one affine map, and the pixels under it.

A descriptor says that two images look alike; what a copy has beyond that is one map under which the pixels agree.
Candidate pairs come from hashes or embeddings; each is decided here on its own, by the cheapest step that can:

1. Corners (:mod:`dedupkit.verification.corners`), matched in both mirrorings, give an affine map by RANSAC. Two images
   rich in corners without a map are strangers.
2. The map is corrected by the pixels, and the images are compared under it, tile by tile
   (:mod:`dedupkit.verification.pixels`). Where tiles agree and lie still, the two are copies; a caption or a logo
   spoils few tiles. Where a block differs and the rest is the same pixel by pixel, they are images of one template.
   Where the pixels agree in part, a few corners may have given a rough map: it is sought again among all corners that
   lie about where it puts them. Pixels that disagree under a map that many corners follow show another scene, or
   another shot of it: depth and motion are not affine, so its tiles do not lie still.
3. What is still open is decided by RootSIFT features (Lowe 2004; Arandjelovic & Zisserman 2012), computed once per
   image: matches are mutual nearest neighbours that pass the ratio test (Lowe 2004, section 7.1). A mirrored copy needs
   no second set: the descriptor of a mirrored patch is a permutation of the patch's own (Guo et al. 2009, "MIFT"). How
   the matches err from the map counts too: edits leave noise of a fraction of a pixel, while matches that depth or
   motion moved err in the direction of their neighbours.

Images in which SIFT finds little (sky, logos, thumbnails) are compared in place, in four mirrorings, by their pixels,
to a stricter standard. Nothing here draws random numbers that depend on anything but the pair.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dedupkit.errors import import_optional
from dedupkit.verification.corners import corner_matches, matches_nearby
from dedupkit.verification.features import Features, ImageLike, features_of, local_features
from dedupkit.verification.maps import Affine, Verification, apply, inverse
from dedupkit.verification.pixels import BLOCK, Tiles, align, compare_pixels

__all__ = ["Features", "Verification", "local_features", "verify_pair"]

LENGTH = 255.0**2  # squared norm of a descriptor: the nearest is that with the largest product
RATIO = 0.8  # nearest over second nearest descriptor, Lowe 2004, figure 11
REACH = 3.0  # pixels of the reduced b within which a match follows a map while the map is sought
MAX_DEVIATION = 1.2  # median distance of matches from the map, in pixels of the coarser image
MAX_COHERENCE, EXACT = 0.45, 0.25  # of deviations from the map, where their median exceeds EXACT pixels
NEIGHBOUR = 40.0  # pixels within which two matches are neighbours
MAX_STRETCH = 4.0  # change of the aspect
MIN_OVERLAP = 0.4  # of the image of which more is shared: less is a neighbouring view, not a copy
OTHER = 0.4  # mean correlation of a block of tiles below which it shows something else
FEW, FEW_AGREEMENT, FEW_TILES = 5, 0.9, 12  # fewer inliers do, down to FEW, where so many tiles agree so well
ENOUGH = 100  # features of an image that would match if there were anything to match
FEWEST = 4  # corners on a map that is worth a look at the pixels; strangers hardly reach so many
MANY = 20  # corners on a map that is none by chance
RICH = 100  # corners of an image that would give a map if there were one
SURE, SURE_SHIFT = 0.93, 0.2  # agreement and shift of a copy that needs no further look
LIKE, UNLIKE = 0.75, 0.5  # agreement below which images on a map of many corners, and of few, are no copies
FAINTLY = 0.3  # agreement of a map of few corners from which on it may be the right one, seen vaguely
AGAIN = (8.0, 5.0)  # pixels of the reduced b around the place of a corner in which it is sought again
MOVED = 0.5  # shift of the pixels of another shot, however well they agree
LAYOUT, COMMON = (
    0.6,
    0.25,
)  # of a template: area of both images on the map; share of the textured tiles that is the same
IN_PLACE = 0.9  # agreement where no features help, of what rows and columns do not explain

# A 128-value descriptor is 4 rows x 4 columns x 8 directions, in the frame of the feature's own orientation. Mirroring
# reverses the rows, and the sense in which directions are counted.
_MIRROR = np.arange(128).reshape(4, 4, 8)[::-1, :, -np.arange(8) % 8].reshape(-1)


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
        a: One image: a PIL image, an array (h, w) or (h, w, 3) uint8, the bytes of a file; or its features, where it
            is compared with several others (:func:`~dedupkit.verification.features.features_of`).
        b: The other.
        min_inliers: Number of local features that must follow one map; with fewer the pixels must agree all the better.
        min_agreement: Correlation of pixels that 60 % of the shared, textured area must reach.

    Returns:
        The verdict, and the map from a to b where one was found.

    Raises:
        ImageError: One of the two is no image that can be used.
        MissingExtraError: OpenCV is not installed.
    """
    cv2 = import_optional("cv2", "verify")
    a, b = features_of(a), features_of(b)
    found = _by_corners(cv2, a, b, min_agreement)
    return found or replace(_by_sift(cv2, a, b, min_inliers, min_agreement), by_sift=True)


def _by_corners(cv2: Any, a: Features, b: Features, min_agreement: float) -> Verification | None:
    """The verdict where corners and pixels are enough for one, else None."""
    best: _Look | None = None
    template: Verification | None = None  # only where the other mirroring shows no copy
    for matrix, inliers in _corner_maps(cv2, a, b):
        look = _Look.along(cv2, a, b, matrix, inliers)
        if look.sure(min_agreement):
            return _copy(look.found)
        if look.found.relation == "template":
            template = template or look.found
        best = look.better_than(best)
    if template is not None:
        return template
    if best is None:
        rich = min(len(a.corners), len(b.corners)) >= RICH
        return Verification(False, "no matching points", None, a.size, b.size) if rich else None
    certain = LIKE if best.inliers >= MANY else UNLIKE
    if best.agreement >= (UNLIKE if best.inliers >= MANY else FAINTLY):
        for radius in AGAIN:
            again = _look_again(cv2, a, b, best.tiles.matrix, radius)
            if again is None:
                break
            if again.found.relation == "template":
                return again.found
            if again.sure(min_agreement):
                return _copy(again.found)
            best = again.better_than(best)
    return _refused(best.found, best.tiles) if best.agreement < certain else None


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
        return cls(inliers, tiles, _measured(a, b, tiles, inliers, tiles.shift))

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
    """The maps that corners propose, one for each mirroring; the other one where the first does not settle it."""
    found = []
    for mirror in (False, True):
        matches = corner_matches(a.corners, b.corners, mirror=mirror)
        matrix, inliers = _fit(cv2, a, b, _places(a, b, matches), mirror)
        if matrix is not None and inliers >= MANY:
            yield matrix, inliers
        elif matrix is not None and inliers >= FEWEST:
            found.append((inliers, matrix))
    yield from ((matrix, inliers) for inliers, matrix in sorted(found, key=lambda fit: -fit[0]))


def _look_again(cv2: Any, a: Features, b: Features, matrix: Affine, radius: float) -> _Look | None:
    """Seek the map again among all corners that look alike and lie about where the map puts them."""
    mirror = bool(np.linalg.det(matrix[:, :2]) < 0)
    placed = apply(matrix, a.corners.points)
    matches = matches_nearby(a.corners, b.corners, placed, radius * b.pixel, mirror=mirror)
    better, inliers = _fit(cv2, a, b, _places(a, b, matches), mirror)
    return None if better is None else _Look.along(cv2, a, b, better, inliers)


def _places(a: Features, b: Features, matches: NDArray[np.intp]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    return a.corners.points[matches[:, 0]], b.corners.points[matches[:, 1]]


def _by_sift(cv2: Any, a: Features, b: Features, min_inliers: int, min_agreement: float) -> Verification:
    """The verdict by all that there is."""
    best = Verification(False, "no matching points", None, a.size, b.size)
    for mirror in (False, True):
        matches = _matches(a.descriptors[:, _MIRROR] if mirror else a.descriptors, b.descriptors)
        points = a.keypoints[matches[:, 0]], b.keypoints[matches[:, 1]]
        matrix, inliers = _fit(cv2, a, b, points, mirror)
        if matrix is not None and inliers > best.inliers:
            best = _judge(cv2, a, b, matrix, points, inliers, min_inliers, min_agreement)
        if best.verified:
            return best
    if best.inliers >= min_inliers or min(len(a.keypoints), len(b.keypoints)) >= ENOUGH:
        return best
    for matrix in _placements(a, b):
        tiles = compare_pixels(cv2, a, b, matrix, detail=True)
        if tiles.count >= FEW_TILES and tiles.agreement >= IN_PLACE and tiles.worst >= OTHER:
            return _copy(_measured(a, b, tiles, 0, 0.0))
    return best


def _measured(
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


def _copy(found: Verification) -> Verification:
    return replace(found, verified=True, reason="", relation="copy")


def _refused(found: Verification, tiles: Tiles) -> Verification:
    """Say why two images on one map are no copies."""
    if tiles.shift > SURE_SHIFT and tiles.agreement >= UNLIKE:
        return replace(found, relation="other shot", reason=f"another shot, the pixels lie {tiles.shift:.1f} off")
    return replace(found, reason=f"other content, the pixels agree to {found.agreement:.2f}")


def _judge(
    cv2: Any,
    a: Features,
    b: Features,
    matrix: Affine,
    points: tuple[NDArray[np.float32], NDArray[np.float32]],
    inliers: int,
    min_inliers: int,
    min_agreement: float,
) -> Verification:
    """Hold a map that SIFT features propose against every criterion."""
    unit = max(b.pixel, a.pixel * float(np.sqrt(abs(np.linalg.det(matrix[:, :2])))))
    placed = apply(matrix, points[0]) / unit
    errors = placed - points[1] / unit
    deviation = float(np.median(np.linalg.norm(errors, axis=1)))
    if inliers < FEW:
        few = f"{inliers} matching points"
        return Verification(False, few, matrix, a.size, b.size, inliers, deviation)
    coherence = _coherence(placed, errors)
    tiles = align(cv2, a, b, matrix)
    found = _measured(a, b, tiles, inliers, deviation, coherence)
    convinces = tiles.count >= FEW_TILES and tiles.agreement >= max(FEW_AGREEMENT, min_agreement)
    if inliers < min_inliers and not convinces:
        return replace(found, reason=f"{inliers} matching points", relation="other")
    if found.relation == "template":
        return found
    if found.overlap < MIN_OVERLAP:
        return replace(found, reason=f"only {100 * found.overlap:.0f} % of the area is shared")
    if deviation > MAX_DEVIATION or (deviation > EXACT and coherence > MAX_COHERENCE):
        off = f"another shot, matching points lie {deviation:.1f} pixels off"
        return replace(found, reason=off, relation="other shot")
    still = tiles.shift <= (MOVED if tiles.agreement >= SURE else SURE_SHIFT)
    agree = tiles.agreement >= min_agreement and tiles.worst >= OTHER
    return _copy(found) if still and agree and tiles.count >= BLOCK else _refused(found, tiles)


def _coherence(points: NDArray[np.float64], errors: NDArray[np.float64]) -> float:
    """Correlate the errors of matches with those of their neighbours: about 0 for noise, near 1 for depth and motion.

    Args:
        points: (k, 2) where the map puts the matches, in pixels.
        errors: (k, 2) how far off that is, in pixels; matches outside ``REACH`` do not count.
    """
    follows = np.linalg.norm(errors, axis=1) < REACH
    every = 1 + int(follows.sum()) // 300
    points, errors = points[follows][::every], errors[follows][::every]
    if len(points) < 8:
        return 0.0
    apart = np.linalg.norm(points[:, None] - points, axis=2)
    apart[apart < REACH] = np.inf  # one corner can give several features, which err together
    nearest = apart.argmin(axis=1)
    near = apart.min(axis=1) < NEIGHBOUR
    here, there = errors[near], errors[nearest[near]]
    return float(2 * (here * there).sum() / max(float((here**2).sum() + (there**2).sum()), 1e-9))


def _matches(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> NDArray[np.intp]:
    """Rows (i, j) of mutual nearest neighbours that are clearly nearer than the second nearest, on both sides."""
    if min(len(a), len(b)) < 2:
        return np.empty((0, 2), dtype=np.intp)
    x, y = a.astype(np.float32), b.astype(np.float32)
    product = x @ y.T
    across = np.ascontiguousarray(product.T)
    rows, nearest = np.arange(len(x)), product.argmax(axis=1)
    mutual = across.argmax(axis=1)[nearest] == rows
    rows, nearest = rows[mutual], nearest[mutual]
    best = product[rows, nearest]
    product[rows, nearest] = across[nearest, rows] = -np.inf
    second = np.maximum(product[rows].max(axis=1), across[nearest].max(axis=1))
    clear = LENGTH - best < RATIO * RATIO * (LENGTH - second)
    return np.column_stack([rows[clear], nearest[clear]])


def _fit(
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
    large, small = np.linalg.svd(found[:, :2], compute_uv=False)
    if small < 1 / 32 or large > MAX_STRETCH * small or (np.linalg.det(found[:, :2]) < 0) != mirror:
        return None, 0
    return matrix, int(follows.sum())


def _placements(a: Features, b: Features) -> list[Affine]:
    """Content of a upon content of b, and frame upon frame, each in four mirrorings."""
    whole = (0.0, 0.0, 1.0, 1.0)
    boxes = [(a.content, b.content)] + ([(whole, whole)] if (a.content, b.content) != (whole, whole) else [])
    maps = []
    for box_a, box_b in boxes:
        (left, top), (right, bottom) = (np.array(box_a).reshape(2, 2) * a.size).tolist()
        (x0, y0), (x1, y1) = (np.array(box_b).reshape(2, 2) * b.size).tolist()
        for p, q, r, s in ((x0, x1, y0, y1), (x1, x0, y0, y1), (x0, x1, y1, y0), (x1, x0, y1, y0)):
            across, down = (q - p) / (right - left), (s - r) / (bottom - top)
            if max(abs(across), abs(down)) <= MAX_STRETCH * min(abs(across), abs(down)):
                maps.append(np.array([[across, 0, p - across * left], [0, down, r - down * top]]))
    return maps


def _bordered(a: Features, b: Features, matrix: Affine) -> tuple[bool, bool]:
    """Whether what one shows fills the other up to an even border, for both."""

    def fills(inner: Features, outer: Features, into: Affine) -> bool:
        if outer.content == (0.0, 0.0, 1.0, 1.0):
            return False
        corners = np.array([[0, 0], [1, 1]]) * inner.size
        placed = np.sort(apply(into, corners), axis=0) / outer.size
        return bool(np.abs(placed - np.array(outer.content).reshape(2, 2)).max() < 0.03)

    return fills(b, a, inverse(matrix)), fills(a, b, matrix)
