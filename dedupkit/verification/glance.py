"""A first look at two images under a map, reduced to some 64 pixels: whether there is anything to align.

A few corners agree on a map by chance, and the same person or scene gives maps that many corners follow. Copies agree
under a map that is right to some pixels when both are reduced so far that these pixels do not count; so do images of
one template in the block that they share. The rest, most of all maps, is told here in a twentieth of the time of an
alignment.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from dedupkit.verification.features import Features
from dedupkit.verification.maps import Affine, inverse, mean_scaling

__all__ = ["worth_aligning"]

SIDE = 64  # pixels of the longer side of an image that is compared with one about as large
TILE = 8  # pixels of a side of a tile
MOSTLY, LIKE, FAINTLY = 0.4, 0.4, 0.25  # share of the tiles that may differ in copies; correlation that others reach
PARTLY, SAME = 0.8, 0.9  # the same of images of one template


def worth_aligning(a: Features, b: Features, matrix: Affine, *, sure: bool) -> bool:
    """Whether two images may be copies, or of one template, under a map that is about right.

    Args:
        a: One image.
        b: The other.
        matrix: (2, 3) from a to b.
        sure: Whether the map is none by chance; where it may be, it is rough too, and less is asked for.
    """
    from dedupkit.verification.kernels import correlate_reduced

    wider = max(a.size) * mean_scaling(matrix) / max(b.size)
    if wider < 1:  # the tiles are those of the image that shows more
        a, b, matrix, wider = b, a, inverse(matrix), 1 / wider
    side = SIDE if wider < math.sqrt(2) else 2 * SIDE
    first, second = a.reduced(side), b.reduced(2 ** round(math.log2(max(side / wider, SIDE / 4))))
    shrink_a, shrink_b = (np.array(plane.shape[::-1]) / image.size for plane, image in ((first, a), (second, b)))
    linear = matrix[:, :2] * shrink_b[:, None] / shrink_a
    to_second = np.column_stack([linear, matrix[:, 2] * shrink_b + linear @ (0.5, 0.5) - 0.5])
    found = np.empty((-(-first.shape[0] // TILE), -(-first.shape[1] // TILE)))
    correlate_reduced(first, _bounds(first, a), second, _bounds(second, b), to_second, TILE, found)
    told = np.sort(found[np.isfinite(found)])
    if not len(told):
        return True
    mostly, partly = (told[int(share * len(told))] for share in (MOSTLY, PARTLY))
    return bool(mostly >= (LIKE if sure else FAINTLY) or (sure and partly >= SAME))


def _bounds(plane: NDArray[np.uint8], image: Features) -> NDArray[np.float64]:
    """(2, 2) from where to where x and y of pixels lie in the content."""
    size = plane.shape[::-1]
    bounds: NDArray[np.float64] = np.array(image.content).reshape(2, 2) * size + [[0], [-1]]
    return bounds
