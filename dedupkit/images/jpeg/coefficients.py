"""Baseline JPEGs to the low frequencies of their luminance, without turning them into pixels.

A JPEG stores each block of 8x8 pixels as 8x8 coefficients of a cosine transform. What is filtered and decimated after
decoding depends on the lowest of them alone, and linearly, so the inverse transform can be left out: the coefficients
are read, dequantised and laid out as a plane (:mod:`dedupkit.hashing.decimator` goes on from there).

Only files that follow the standard exactly are read here: 8 bits, Huffman codes, one scan, grey or YCbCr with
full luminance, no restart markers, and not a bit missing or too many. All others, and doubtful
ones, are left to :func:`dedupkit.images.decode_luma`.

Source: ITU-T T.81 (1992), A.3.3 (the cosine transform) and F.2 (sequential Huffman decoding).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dedupkit.images.jpeg.checks import check_sizes
from dedupkit.images.jpeg.headers import Frame, Table, read_headers
from dedupkit.images.jpeg.layout import (
    BLOCKS_DOWN,
    DEFINITION,
    JOB_COLUMNS,
    KEEP_COLUMNS,
    KEEP_ROWS,
    MCU_ROWS,
    PADDING,
    PLACES,
    PLANE,
    READ,
    STATE,
    STREAMS,
    STRIDE,
    TABLE_SIZE,
)
from dedupkit.startup.compiled import compiled_function

__all__ = ["Coefficients", "read_coefficients"]

_MAX_PIXELS = 16_000_000  # larger images are decoded at an eighth of their size, where this gains less
_TOGETHER = 64  # in one call of the kernel


@dataclass(frozen=True, slots=True)
class Coefficients:
    """The low frequencies of an image's luminance.

    Attributes:
        plane: (8x8 blocks down, rows kept, blocks across * columns kept) int16, dequantised: of each block the lowest
            vertical frequencies as rows and horizontal ones as columns. The blocks cover the image and, on the right
            and at the bottom, what the file fills up.
        height: Height of the stored image, in pixels.
        width: Width of the stored image, in pixels.
        keep: Number of rows and of columns kept of each block, 1 to 8.
        turned: Orientation from its EXIF block: whether the image is transposed first, then whether its rows and its
            columns are flipped.
    """

    plane: NDArray[np.int16]
    height: int
    width: int
    keep: tuple[int, int]
    turned: tuple[bool, bool, bool]


def read_coefficients(
    images: Sequence[bytes], keep: Callable[[int], int], *, min_side: int = 1, max_pixels: int = _MAX_PIXELS
) -> list[Coefficients | None]:
    """Read the low frequencies of many baseline JPEGs, four at a time.

    Args:
        images: The stored bytes.
        keep: Function from a side in pixels to the number of frequencies kept along it, 1 to 8.
        min_side: The shortest side of an image that is read, in pixels.
        max_pixels: The most pixels of an image that is read.

    Returns:
        For each image its coefficients; None where it is not of the plain kind that is read here, or not whole; None
        for all where the loops cannot be compiled.

    >>> read_coefficients([b"not a JPEG"], lambda length: 8)
    [None]
    """
    found: list[Coefficients | None] = [None] * len(images)
    plain: list[tuple[int, Frame]] = []
    for place, image in enumerate(images):
        frame = read_headers(image, max_pixels)
        if frame is not None and min(frame.width, frame.height) >= min_side:
            plain.append((place, frame))
    if not plain or _kernel() is None:
        return found
    for start in range(0, len(plain), _TOGETHER):
        some = plain[start : start + _TOGETHER]
        read = _read([images[place] for place, _ in some], [frame for _, frame in some], keep)
        for (place, _), coefficients in zip(some, read, strict=True):
            found[place] = coefficients
    return found


def _read(images: list[bytes], frames: list[Frame], keep: Callable[[int], int]) -> list[Coefficients | None]:
    definitions: dict[Table, int] = {}  # each once, counted from 1
    quantizations: dict[bytes, int] = {}
    start = plane = most_blocks = 0
    jobs = np.zeros((len(images), JOB_COLUMNS), np.int64)
    for job, image, frame in zip(jobs, images, frames, strict=True):
        (across, down), *chroma = frame.sampling
        columns, rows = -(-frame.width // (8 * across)), -(-frame.height // (8 * down))
        keep_rows, keep_columns = keep(frame.height), keep(frame.width)
        stride = columns * across * keep_columns
        blocks = [a * d for a, d in chroma] or [0, 0]
        tables = [definitions.setdefault(table, len(definitions) + 1) for table in frame.tables]
        quantization = quantizations.setdefault(frame.quantization, len(quantizations))
        job[:] = (
            start + frame.scan, start + len(image), columns, rows, across, down, *blocks,
            *tables, *[0] * (6 - len(tables)), keep_rows, keep_columns, plane, stride, quantization, 0,
        )  # fmt: skip
        start += len(image)
        plane += rows * down * (keep_rows + 1) * stride
        most_blocks = max(most_blocks, columns * rows * (across * down + sum(blocks)))
    planes = _decode(
        np.frombuffer(b"".join(images), np.uint8),
        jobs,
        np.frombuffer(b"".join(map(_defined, definitions)), np.uint8),
        np.frombuffer(b"".join(quantizations), np.uint8).astype(np.int32),
        np.empty(plane + 9 * int(jobs[:, STRIDE].max()), np.int16),
        longest=max(map(len, images)),
        most_blocks=most_blocks,
        spare=plane,
    )
    return [
        _coefficients(job, planes, frame) if job[READ] else None
        for job, frame in zip(jobs.tolist(), frames, strict=True)
    ]


def _defined(table: Table) -> bytes:
    """A Huffman table as the kernel takes it."""
    kind, counts, symbols = table
    definition = (bytes([kind]) + counts + symbols).ljust(DEFINITION, b"\0")
    if len(definition) != DEFINITION or sum(counts) != len(symbols):
        raise ValueError(f"a Huffman table of {len(symbols)} symbols does not fit into its place")
    return definition


def _coefficients(job: list[int], planes: NDArray[np.int16], frame: Frame) -> Coefficients:
    keep = job[KEEP_ROWS], job[KEEP_COLUMNS]
    shape = (job[MCU_ROWS] * job[BLOCKS_DOWN], keep[0] + 1, job[STRIDE])
    mine = planes[job[PLANE] :][: shape[0] * shape[1] * shape[2]].reshape(shape)
    return Coefficients(mine[:, : keep[0]], frame.height, frame.width, keep, frame.turned)


def _decode(
    raw: NDArray[np.uint8],
    jobs: NDArray[np.int64],
    definitions: NDArray[np.uint8],
    quantization: NDArray[np.int32],
    planes: NDArray[np.int16],
    *,
    longest: int,
    most_blocks: int,
    spare: int,
) -> NDArray[np.int16]:
    """Call the kernel.

    Args:
        raw: The files, one after the other.
        jobs: (n, JOB_COLUMNS); READ is set where an image was whole.
        definitions: (tables * DEFINITION,), of the Huffman tables from number 1 on.
        quantization: (tables * 64,), in zigzag order.
        planes: Array that takes the coefficients.
        longest: Size of the longest file, in bytes.
        most_blocks: Greatest number of blocks of an image.
        spare: Place in ``planes`` from which on a row of blocks is never read.

    Returns:
        The planes.
    """
    number = definitions.size // DEFINITION
    tables = np.empty((number + 1) * TABLE_SIZE, np.uint32)
    data = np.empty((STREAMS, longest + PADDING), np.uint8)  # a scan
    blocks = np.empty((STREAMS, 4 * (most_blocks + 1)), np.int32)  # where each block goes, and its two tables
    places = np.empty((STREAMS, PLACES), np.int32)  # where each coefficient goes in its block, and its factor
    state = np.zeros((STREAMS, STATE), np.int64)
    sizes = np.array(
        [raw.size, len(jobs), number, quantization.size // 64, planes.size, data.shape[1], blocks.shape[1], spare]
    )
    arrays = (raw, jobs, definitions, tables, quantization, planes, data, blocks, places, state, sizes)
    check_sizes(*arrays)
    _call(arrays)
    return planes


def _call(arrays: tuple[NDArray[Any], ...]) -> None:
    """Call the kernel; a test puts each array between inaccessible pages here."""
    _kernel()(*[array.ctypes.data for array in arrays])


def _kernel() -> Any:
    """The compiled loops; None where there is no compiler."""
    return compiled_function("dedupkit.images.jpeg.kernel", "decode_scans", 11, ("dedupkit.images.jpeg.layout",))
