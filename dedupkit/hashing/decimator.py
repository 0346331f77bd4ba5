"""PDQ's filter and decimation: a luminance plane to 64x64 values, by two small banded products.

Filtering with two box passes and picking 64 positions is linear and separable, so for an image of height h and width
w the buffer is ``A(h) @ luma @ A(w).T`` with one (64, n) matrix per side length. A row of ``A`` is a triangle over
about n / 64 pixels and zero elsewhere; four slabs of 16 rows hold what is not zero, and each side is one batched
product of them.

Where the decoder delivers means over blocks of pixels, the pixels are first put back as a parabola per block that has
the block's mean and meets its neighbours' (Colella and Woodward, "The Piecewise Parabolic Method", J. Comput. Phys.
54, 1984, equations 1.5 to 1.9, without the limiter). That is linear as well, so it only changes ``A``: the hash moves
by half as many bits as with constant blocks, at no cost per image.

The coefficients of a JPEG are one more linear step before the pixels: there ``A`` takes the cosines of each block.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from dedupkit.images import Luma
from dedupkit.images.jpeg.coefficients import Coefficients

__all__ = ["SIDE", "coefficient_buffers", "frequencies", "luma_buffer"]

SIDE = 64
_SLABS = 4
_ROWS = SIDE // _SLABS
_REACH = 2  # blocks on either side that a block's parabola depends on


def luma_buffer(luma: Luma) -> NDArray[np.float32]:
    """Filter and decimate a luminance plane to the (64, 64) float32 buffer that PDQ transforms."""
    top, left = luma.trimmed
    rows = _of_pixels(luma.height, luma.block, top)
    columns = _of_pixels(luma.width, luma.block, left)
    return _apply(rows, luma.plane.astype(np.float32, order="C"), columns)


def coefficient_buffers(image: Coefficients, views: Sequence[float] = ()) -> NDArray[np.float32]:
    """The same buffers from the low frequencies of a JPEG, turned as its EXIF block says.

    Args:
        image: Coefficients read with ``frequencies``.
        views: Parts of the sides, each for a view of the middle of the image. Their filter would let higher frequencies
            through than are there; on photos that changes a few bits.

    Returns:
        (1 + views, 64, 64) float32: of the image and of each view.
    """
    blocks, keep_rows, values = image.plane.shape
    plane = image.plane.astype(np.float32, order="C").reshape(blocks * keep_rows, values)
    buffers = [_view(image, plane, part) for part in (1.0, *views)]
    return np.array(buffers) + np.float32(128)  # the level that JPEG subtracts


def _view(image: Coefficients, plane: NDArray[np.float32], part: float) -> NDArray[np.float32]:
    transpose, *flip = image.turned
    if transpose:
        flip.reverse()
    slabs: list[Slabs] = []
    begin, end = [], []
    for length, keep, flipped in zip((image.height, image.width), image.keep, flip, strict=True):
        start = round(length * (1 - part) / 2)
        view = length - 2 * start
        first, last = start // 8, -(-(start + view) // 8)  # blocks
        slabs.append(_of_frequencies(view, start - 8 * first, keep, last - first, flipped))
        begin.append(first * keep)
        end.append(last * keep)
    buffer = _apply(slabs[0], plane, slabs[1], (begin[0], begin[1], end[1] - begin[1]))
    return buffer.T if transpose else buffer


def frequencies(length: int) -> int:
    """How many of a JPEG's eight frequencies along a side of ``length`` pixels the filter lets through.

    The two boxes of ``window`` pixels leave less than a hundredth of the first that is left out.
    """
    return max(1, min(8, round(15 / _window(length))))


Part = tuple[int, int, int]
Slabs = tuple[NDArray[np.float32], int]
"""The matrix of one axis as (4, 16, reach) and a step: slab s applies to ``plane[s * step : s * step + reach]``."""


def _apply(rows: Slabs, plane: NDArray[np.float32], columns: Slabs, part: Part | None = None) -> NDArray[np.float32]:
    """``rows @ plane @ columns.T``, or of a part of a plane: its first row and column, and its width."""
    top, left, width = part or (0, 0, plane.shape[1])
    pitch = plane.strides[0]
    slabs, step = rows
    shape = (_SLABS, slabs.shape[2], width)
    windows = np.ndarray(shape, np.float32, plane, top * pitch + 4 * left, (step * pitch, pitch, 4))
    half = np.matmul(slabs, windows).reshape(SIDE, width)
    slabs, step = columns
    windows = np.ndarray((_SLABS, SIDE, slabs.shape[2]), np.float32, half, 0, (4 * step, 4 * width, 4))
    buffer: NDArray[np.float32] = np.matmul(windows, slabs.transpose(0, 2, 1)).transpose(1, 0, 2).reshape(SIDE, SIDE)
    return buffer


@lru_cache(maxsize=1024)
def _of_pixels(length: int, block: int, trimmed_front: bool) -> Slabs:
    """The matrix of an axis that holds pixels, or means over blocks of them."""
    columns = -(-length // block)
    first, weights = _bands(length)
    if block > 1 and trimmed_front:  # blocks were counted from the other end before the plane was mirrored
        start, shares = _onto_blocks(length - first - weights.shape[1], weights[:, ::-1], block)
        start, weights = columns - start - shares.shape[1], shares[:, ::-1]
    elif block > 1:
        start, weights = _onto_blocks(first, weights, block)
    else:
        start = first
    return _in_slabs(start, weights, columns)


@lru_cache(maxsize=2048)
def _of_frequencies(length: int, start: int, keep: int, blocks: int, flipped: bool) -> Slabs:
    """The matrix of an axis that holds the ``keep`` lowest frequencies of each block of 8 pixels.

    Args:
        length: Number of pixels that are decimated.
        start: Number of pixels of the first block that come before them.
        keep: Number of frequencies kept of each block.
        blocks: Number of blocks.
        flipped: Whether the axis runs backwards.
    """
    first, bands = _bands(length)
    if flipped:
        first, bands = length - first - bands.shape[1], bands[:, ::-1]
    block, by_block = _by_block(start + first, bands, 8)
    pixel, frequency = np.arange(8)[:, None], np.arange(keep)
    waves = np.cos((2 * pixel + 1) * frequency * np.pi / 16) * np.where(frequency == 0, np.sqrt(1 / 8), 1 / 2)
    weights = (by_block @ waves).reshape(SIDE, -1)  # what reaches beyond the last block is zero
    return _in_slabs(block * keep, weights, blocks * keep)


def _in_slabs(start: NDArray[np.int64], weights: NDArray[np.float64], columns: int) -> Slabs:
    """A (64, columns) matrix of which row i is zero but for ``weights[i]`` from column ``start[i]`` on."""
    # Beyond a border the image goes on as its last block; where a band ends early its weights are zero.
    column = np.clip(start[:, None] + np.arange(weights.shape[1]), 0, columns - 1)
    by_slab = column.reshape(_SLABS, -1)
    begin, end = by_slab.min(axis=1), by_slab.max(axis=1) + 1
    number = np.arange(_SLABS)
    step = int((begin[1:] // number[1:]).min())
    while (_SLABS - 1) * step + int((end - number * step).max()) > columns:  # ends at step 0 at the latest
        step -= 1
    reach = int((end - number * step).max())
    place = np.arange(SIDE)[:, None] * reach + column - (np.arange(SIDE) // _ROWS * step)[:, None]
    slabs = np.bincount(place.ravel(), weights.ravel(), minlength=SIDE * reach)
    return slabs.reshape(_SLABS, _ROWS, reach).astype(np.float32), step


def _window(length: int) -> int:
    """Side of the box filter in pixels."""
    return -(-length // (2 * SIDE))


def _bands(length: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The filter and decimation of ``length`` pixels: (64,) first pixels and (64, width) weights from there on."""
    window = _window(length)
    after = (window + 2) // 2
    index = np.arange(length)
    first = np.maximum(index + after - window, 0)  # the box around each position, cut at the borders
    last = np.minimum(index + after, length)
    centres = ((np.arange(SIDE) + 0.5) * length / SIDE).astype(np.int64)
    # The second pass averages the boxes of the positions around a centre; each box is a step up and a step down.
    around = first[centres, None] + np.arange(window + 1)
    inside = around < last[centres, None]
    around = np.minimum(around, length - 1)
    weight = inside / ((last - first)[around] * (last - first)[centres, None])
    start = first[around[:, 0]]
    width = 2 * window + 2
    row = width * np.arange(SIDE)[:, None] - start[:, None]
    up, down = (
        np.bincount((row + edge[around]).ravel(), weight.ravel(), minlength=SIDE * width) for edge in (first, last)
    )
    weights = np.cumsum((up - down).reshape(SIDE, width), axis=1)
    weights[np.abs(weights) < 1e-12] = 0  # rounding errors where the weight is zero
    return start, weights


def _onto_blocks(
    first: NDArray[np.int64], weights: NDArray[np.float64], block: int
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Bands of weights of pixels to bands of weights of the means of blocks of pixels."""
    start, by_block = _by_block(first, weights, block)
    shares = by_block @ _parabolas(block)
    blocks = shares.shape[1]
    result = np.zeros((SIDE, blocks + 2 * _REACH))
    for shift in range(2 * _REACH + 1):
        result[:, shift : shift + blocks] += shares[:, :, shift]
    return start - _REACH, result


def _by_block(
    first: NDArray[np.int64], weights: NDArray[np.float64], block: int
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Bands of weights cut at blocks: (64,) first blocks, and (64, blocks, block) weights."""
    width = weights.shape[1]
    start = first // block
    blocks = (width + 2 * block - 2) // block
    padded = np.zeros((SIDE, blocks * block))
    padded[np.arange(SIDE)[:, None], (first - start * block)[:, None] + np.arange(width)] = weights
    return start, padded.reshape(SIDE, blocks, block)


@lru_cache(maxsize=4)
def _parabolas(block: int) -> NDArray[np.float64]:
    """(block, 5): the pixels of a block as weights of the means of the two blocks before it, itself, and two after."""
    edges = np.linspace(0, 1, block + 1)
    linear = np.diff(edges**2) / 2 * block  # means of x and x * (1 - x) over each pixel
    bump = linear - np.diff(edges**3) / 3 * block
    start, end = np.array([-1, 7, 7, -1, 0]) / 12, np.array([0, -1, 7, 7, -1]) / 12
    mean = np.array([0, 0, 1, 0, 0])
    return start + np.outer(linear, end - start) + np.outer(bump, 6 * mean - 3 * (start + end))
