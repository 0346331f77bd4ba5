"""Which generated images were extracted from a training set, by the distances of Carlini et al.

Source: "Extracting Training Data from Diffusion Models" (arXiv 2301.13188), section 4.2 for large images: many
generations of one prompt are compared by the largest Euclidean distance over their tiles, and generations that form a
large clique of near-copies are taken for memorized. Section 5 has the distance for small images, which sets how near a
training image lies in relation to that image's own neighbours.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import isqrt

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dedupkit.embedding.pixels import decode_rgb
from dedupkit.errors import DedupkitError

__all__ = ["CLIQUE", "DELTA", "TILES", "TILE_SIDE", "Filter", "adaptive_distance", "at_side", "largest_clique",
    "tile_distances",
]  # fmt: skip

TILES, CLIQUE, DELTA = 16, 10, 0.15
"""What the paper uses: 16 tiles of an image of 512×512, cliques of at least 10 generations, distance 0.15."""

TILE_SIDE = 128
NEIGHBOURS, ALPHA = 50, 0.5  # of the distance for small images

_MOST_TILES = 256  # of 128 pixels: an image of 2,048 pixels a side
_MOST_STEPS = 50_000  # of the search for the largest clique, which in the worst case takes exponential time


@dataclass(frozen=True, slots=True)
class Filter:
    """When generations of one prompt count as near-copies of each other.

    Attributes:
        tiles: Number of tiles of an image, a square number up to 256; an image is compared at 128 pixels a tile and
            side.
        clique: Least number of generations that are all near each other.
        delta: Largest distance of two near images, 0 to 1.

    Raises:
        DedupkitError: One of them is out of range.
    """

    tiles: int = TILES
    clique: int = CLIQUE
    delta: float = DELTA

    def __post_init__(self) -> None:
        if not 1 <= self.tiles <= _MOST_TILES or isqrt(self.tiles) ** 2 != self.tiles:
            raise DedupkitError(
                f"the number of tiles is a square number (1, 4, 16, …) of at most {_MOST_TILES}, not {self.tiles}"
            )
        if self.clique < 2 or not 0 < self.delta <= 1:
            raise DedupkitError("a clique has at least 2 generations, and delta lies above 0 and is at most 1")

    @property
    def side(self) -> int:
        """Side of the square at which images are compared, in pixels."""
        return TILE_SIDE * isqrt(self.tiles)


def at_side(image: bytes, side: int) -> NDArray[np.uint8]:
    """The centre square of an image, as a model sees it in training: (side, side, 3) uint8.

    Raises:
        ImageError: It is no image that can be used.
    """
    rgb = decode_rgb(image, side)
    short = min(rgb.size)
    left, top = (rgb.width - short) / 2, (rgb.height - short) / 2
    box = (left, top, left + short, top + short)
    if rgb.size != (side, side):
        rgb = rgb.resize((side, side), Image.Resampling.BILINEAR, box=box, reducing_gap=3.0)
    return np.asarray(rgb)


def tile_distances(images: NDArray[np.uint8], others: NDArray[np.uint8], tiles: int = TILES) -> NDArray[np.float32]:
    """The largest distance of two images over their tiles, for all pairs.

    The distance of two tiles is Euclidean over values of 0 to 1, divided by the root of their number, so that it lies
    between 0 and 1. One difference in one place is not averaged away by an even background.

    Args:
        images: (n, side, side, 3) uint8.
        others: (m, side, side, 3) uint8.
        tiles: Number of tiles, a square number whose root divides the side.

    Returns:
        (n, m) float32.

    >>> black = np.zeros((1, 8, 8, 3), np.uint8)
    >>> corner = black.copy()
    >>> corner[0, :2, :2] = 255
    >>> tile_distances(black, corner, 16).item(), tile_distances(black, corner, 1).item()
    (1.0, 0.25)
    """
    across = isqrt(tiles)
    step = images.shape[1] // across
    if across * across != tiles or step * across != images.shape[1] or images.shape[1:] != others.shape[1:]:
        raise ValueError(f"{images.shape} and {others.shape} are not squares of {tiles} tiles")
    most = np.zeros((len(images), len(others)), np.float32)
    for top in range(0, images.shape[1], step):
        for left in range(0, images.shape[1], step):
            a = _centred(images[:, top : top + step, left : left + step])
            b = a if others is images else _centred(others[:, top : top + step, left : left + step])
            squares = (a * a).sum(1)[:, None] + (b * b).sum(1)[None] - 2 * (a @ b.T)
            np.maximum(most, squares / a.shape[1], out=most)
    distances: NDArray[np.float32] = np.sqrt(np.maximum(most, 0))
    return distances


def _centred(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """(n, d) float32 about 0, which keeps the differences of products exact to about 1e-6."""
    flat: NDArray[np.float32] = images.reshape(len(images), -1).astype(np.float32)
    flat /= 255
    flat -= 0.5
    return flat


def largest_clique(near: NDArray[np.bool_]) -> list[int]:
    """The largest set of images that are all near each other.

    Branch and bound with a greedy colouring (Tomita and Seki 2003). The search ends after 50,000 steps; what it has
    then is a clique, perhaps not the largest.

    Args:
        near: (n, n) bool, symmetric; the diagonal is not looked at.

    Returns:
        The members, ascending.

    >>> near = np.ones((4, 4), bool)
    >>> near[0, 1] = near[1, 0] = False
    >>> len(largest_clique(near))
    3
    """
    count = len(near)
    linked = near & ~np.eye(count, dtype=bool)
    bits = [int.from_bytes(np.packbits(row, bitorder="little").tobytes(), "little") for row in linked]
    everything = (1 << count) - 1
    best: list[int] = []
    open_ones: list[tuple[list[int], list[tuple[int, int]], int]] = [([], _coloured(everything, bits), everything)]
    for _ in range(_MOST_STEPS):
        if not open_ones:
            break
        chosen, order, candidates = open_ones.pop()
        if not order or len(chosen) + order[-1][1] <= len(best):
            continue
        vertex, _colour = order.pop()
        open_ones.append((chosen, order, candidates & ~(1 << vertex)))
        grown, inner = [*chosen, vertex], candidates & bits[vertex]
        best = max(best, grown, key=len)
        open_ones.append((grown, _coloured(inner, bits), inner))
    return sorted(best)


def _coloured(candidates: int, bits: list[int]) -> list[tuple[int, int]]:
    """The candidates in classes of which no two are linked, each with the number of its class: a bound of a clique."""
    order: list[tuple[int, int]] = []
    colour = 0
    while candidates:
        colour += 1
        free = candidates
        while free:
            vertex = (free & -free).bit_length() - 1
            order.append((vertex, colour))
            candidates &= ~(1 << vertex)
            free &= ~(bits[vertex] | 1 << vertex)
    return order


def adaptive_distance(
    generated: NDArray[np.uint8], training: NDArray[np.uint8], *, neighbours: int = NEIGHBOURS, alpha: float = ALPHA
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """How near small generated images lie to training images, in relation to these images' own neighbours.

    The distance of a generated image to a training image, divided by ``alpha`` times the mean distance of that
    training image to its nearest others; below 1 the paper takes it for extracted. Copies among the training images
    make a training image look close to its neighbours and hide extraction, so give one of each duplicate group.

    Args:
        generated: (n, h, w, 3) uint8.
        training: (m, h, w, 3) uint8, at least two.
        neighbours: Number of neighbours of a training image.
        alpha: Factor of their mean distance.

    Returns:
        For each generated image the training image nearest by this distance, (n,) int64, and the distance, (n,)
        float32.

    Raises:
        ValueError: There are fewer than two training images, or shapes differ.
    """
    if len(training) < 2 or generated.shape[1:] != training.shape[1:]:
        raise ValueError("at least two training images, of the size of the generated ones")
    theirs = _centred(training)
    count = min(neighbours, len(theirs) - 1)
    scale = np.empty(len(theirs), np.float32)
    for start in range(0, len(theirs), 1024):
        block = _euclidean(theirs[start : start + 1024], theirs)
        np.fill_diagonal(block[:, start:], np.inf)  # no image is its own neighbour
        scale[start : start + 1024] = np.partition(block, count - 1, axis=1)[:, :count].mean(axis=1)
    at, best = np.zeros(len(generated), np.int64), np.zeros(len(generated), np.float32)
    for start in range(0, len(generated), 1024):  # as numbers a million of 32x32 pixels take 13 GB
        ratio = _euclidean(_centred(generated[start : start + 1024]), theirs) / np.maximum(alpha * scale, 1e-6)
        at[start : start + 1024] = ratio.argmin(axis=1)
        best[start : start + 1024] = ratio.min(axis=1)
    return at, best


def _euclidean(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float32]:
    squares = (a * a).sum(1)[:, None] + (b * b).sum(1)[None] - 2 * (a @ b.T)
    distances: NDArray[np.float32] = np.sqrt(np.maximum(squares, 0) / a.shape[1])
    return distances
