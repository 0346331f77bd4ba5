"""Baseline JPEGs to the low frequencies of their luminance, without turning them into pixels.

A JPEG stores each block of 8x8 pixels as 8x8 coefficients of a cosine transform. What is filtered and decimated after
decoding depends on the lowest of them alone, and linearly, so the inverse transform can be left out: the coefficients
are read, dequantised and laid out as a plane (:mod:`dedupkit.hashing.decimator` goes on from there).

Only files that are exactly as the standard has them are read here: 8 bits, Huffman codes, one scan, grey or YCbCr with
full luminance, no restart markers, and not a bit missing or too many. All others, and every doubt, are for
:func:`dedupkit.images.decode_luma`.

Source: ITU-T T.81 (1992), annexes B (markers), F.2 (sequential Huffman decoding) and K (the cosine transform).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from dedupkit.compiled import compiled_function
from dedupkit.images.decode import turn_of_jpeg
from dedupkit.images.jpeg_layout import (
    BLOCKS_DOWN,
    JOB_COLUMNS,
    KEEP_COLUMNS,
    KEEP_ROWS,
    MCU_ROWS,
    PADDING,
    PLANE,
    READ,
    STREAMS,
    STRIDE,
    TABLE_BITS,
)

__all__ = ["Coefficients", "read_coefficients"]

_MAX_PIXELS = 16_000_000  # larger images are decoded at an eighth of their size, where this has less to win
_UNKNOWN = 64 | 63 << 8 | 63 << 16 | 255 << 24  # entries of a table, see the kernel: runs out of data
_STAY = 64 | 63 << 8 | 255 << 24
_LONG = 16 - TABLE_BITS

Table = tuple[int, bytes, bytes]
"""A Huffman table: 0 for first and 1 for other coefficients, how many codes of each length, and their symbols."""


@dataclass(frozen=True, slots=True)
class Coefficients:
    """The low frequencies of an image's luminance.

    Attributes:
        plane: (8x8 blocks down, rows kept, blocks across * columns kept) int16, dequantised: of each block the lowest
            vertical frequencies as rows and horizontal ones as columns. The blocks cover the image and, on the right
            and at the bottom, what the file fills up.
        height: of the image as it is stored, in pixels.
        width: of the image as it is stored, in pixels.
        keep: rows and columns kept of each block, 1 to 8.
        turned: how its EXIF block turns it: whether it is transposed first, then its rows flipped, its columns
            flipped.
    """

    plane: NDArray[np.int16]
    height: int
    width: int
    keep: tuple[int, int]
    turned: tuple[bool, bool, bool]


@dataclass(frozen=True, slots=True)
class _Frame:
    """What the headers of a file say."""

    width: int
    height: int
    sampling: tuple[tuple[int, int], ...]  # of each component: blocks across and down in an MCU
    tables: tuple[Table, ...]  # for each component the one of first and the one of other coefficients
    quantization: bytes  # of the first component, in zigzag order
    scan: int  # where the scan begins
    turned: tuple[bool, bool, bool]


def read_coefficients(
    images: Sequence[bytes], keep: Callable[[int], int], *, max_pixels: int = _MAX_PIXELS
) -> list[Coefficients | None]:
    """Read the low frequencies of many baseline JPEGs, four at a time.

    Args:
        images: the stored bytes.
        keep: for a side in pixels, how many of the eight frequencies along it are kept, 1 to 8.
        max_pixels: of an image that is read.

    Returns:
        For each image its coefficients; None where it is not of the plain kind that is read here, or not whole.
    """
    frames = [_parse(image, max_pixels) for image in images]
    found: list[Coefficients | None] = [None] * len(images)
    places = [place for place, frame in enumerate(frames) if frame is not None]
    if not places:
        return found
    pools = _Pools()
    start = plane = most_blocks = 0
    jobs = np.zeros((len(places), JOB_COLUMNS), np.int64)
    for job, place in zip(jobs, places, strict=True):
        frame, image = frames[place], images[place]
        assert frame is not None  # noqa: S101 - for the type checker
        (across, down), *chroma = frame.sampling
        columns, rows = -(-frame.width // (8 * across)), -(-frame.height // (8 * down))
        keep_rows, keep_columns = keep(frame.height), keep(frame.width)
        stride = columns * across * keep_columns
        blocks = [a * d for a, d in chroma] or [0, 0]
        tables = [pools.table(table) for table in frame.tables] + [0] * (6 - len(frame.tables))
        job[:] = (
            start + frame.scan, start + len(image), columns, rows, across, down, *blocks, *tables,
            keep_rows, keep_columns, plane, stride, pools.quantization(frame.quantization), 0,
        )  # fmt: skip
        start += len(image)
        plane += rows * down * (keep_rows + 1) * stride
        most_blocks = max(most_blocks, columns * rows * (across * down + sum(blocks)))
    planes = np.empty(plane + 9 * int(jobs[:, STRIDE].max()), np.int16)
    data = np.empty((STREAMS, max(len(images[place]) for place in places) + PADDING), np.uint8)
    blocks_of = np.empty((STREAMS, 4 * (most_blocks + 1)), np.int32)
    raw = np.frombuffer(b"".join([images[place] for place in places]), np.uint8)
    quantization = np.concatenate(pools.quantizations).astype(np.int32)
    _decode(raw, jobs, np.concatenate(pools.tables), quantization, planes, data, blocks_of, plane)
    for done, place in zip(jobs.tolist(), places, strict=True):
        frame = frames[place]
        if done[READ] and frame is not None:
            shape = (done[MCU_ROWS] * done[BLOCKS_DOWN], done[KEEP_ROWS] + 1, done[STRIDE])
            mine = planes[done[PLANE] : done[PLANE] + shape[0] * shape[1] * shape[2]].reshape(shape)
            kept = done[KEEP_ROWS], done[KEEP_COLUMNS]
            found[place] = Coefficients(mine[:, : kept[0]], frame.height, frame.width, kept, frame.turned)
    return found


def _decode(
    raw: NDArray[np.uint8],
    jobs: NDArray[np.int64],
    tables: NDArray[np.uint32],
    quantization: NDArray[np.int32],
    planes: NDArray[np.int16],
    data: NDArray[np.uint8],
    blocks: NDArray[np.int32],
    spare: int,
) -> None:
    """Call the kernel.

    Args:
        raw: the files, one after the other.
        jobs: (n, JOB_COLUMNS); READ is set where an image was whole.
        tables: Huffman tables, the one that stays where it is first.
        quantization: (k * 64,), in zigzag order.
        planes: where the coefficients go.
        data: (STREAMS, bytes): room for a scan.
        blocks: (STREAMS, 4 * blocks): room for where each block goes and its two tables.
        spare: where in ``planes`` nobody reads: a row of blocks from there on.
    """
    places = np.empty((STREAMS, 512), np.int32)
    state = np.zeros((STREAMS, 6), np.int64)
    sizes = np.array(
        [raw.size, len(jobs), tables.size, quantization.size // 64, planes.size, data.shape[1], blocks.shape[1], spare]
    )
    arrays = (raw, jobs, tables, quantization, planes, data, blocks, places, state, sizes)
    decode_scans = compiled_function("dedupkit.images.jpeg_kernel", "decode_scans", len(arrays))
    decode_scans(*[array.ctypes.data for array in arrays])


class _Pools:
    """The tables of one call, each once."""

    def __init__(self) -> None:
        self.tables = [np.full(1 << TABLE_BITS, _STAY, np.uint32)]
        self.quantizations: list[NDArray[np.uint8]] = []
        self._place: dict[Table, int] = {}
        self._row: dict[bytes, int] = {}
        self._size = 1 << TABLE_BITS

    def table(self, table: Table) -> int:
        """Where a Huffman table begins."""
        place = self._place.get(table)
        if place is None:
            place = self._place[table] = self._size
            entries, longer = _huffman_table(table)
            entries = entries.copy()
            entries[longer] += np.uint32(place << 8)  # where second tables begin is told from the first
            self.tables.append(entries)
            self._size += len(entries)
        return place

    def quantization(self, table: bytes) -> int:
        """The row of a quantization table."""
        row = self._row.get(table)
        if row is None:
            row = self._row[table] = len(self.quantizations)
            self.quantizations.append(np.frombuffer(table, np.uint8))
        return row


@lru_cache(maxsize=256)
def _huffman_table(table: Table) -> tuple[NDArray[np.uint32], NDArray[np.int64]]:
    """The entries of a Huffman table (see the kernel), and which of them lead to a second table."""
    others, counts, symbols = table
    lengths = np.repeat(np.arange(1, 17), list(counts))
    symbol = np.frombuffer(symbols, np.uint8).astype(np.int64)
    size = symbol & 15
    run = np.where((size == 0) & (symbol >> 4 != 15), 64, symbol >> 4) * others  # 64: the end of the block
    entry = lengths | (63 - size) << 8 | (lengths + size) << 16 | run << 24
    used = np.repeat(entry, 1 << (16 - lengths))
    full = np.concatenate([used, np.full((1 << 16) - len(used), _UNKNOWN)]).reshape(1 << TABLE_BITS, 1 << _LONG)
    longer = np.flatnonzero((full != full[:, :1]).any(axis=1))
    first = full[:, 0].copy()
    first[longer] = ((1 << TABLE_BITS) + (np.arange(len(longer)) << _LONG)) << 8
    return np.concatenate([first, full[longer].ravel()]).astype(np.uint32), longer


def _parse(data: bytes, max_pixels: int) -> _Frame | None:
    """The headers of a JPEG; None where it is not of the plain kind."""
    try:
        return _parse_segments(data, max_pixels)
    except (IndexError, KeyError, ValueError):  # cut off, or naming tables that are not there
        return None


def _parse_segments(data: bytes, max_pixels: int) -> _Frame | None:
    tables: dict[int, Table] = {}
    quantizations: dict[int, bytes] = {}
    components: list[bytes] = []
    width = height = 0
    ycbcr = exif = False
    if data[:2] != b"\xff\xd8":
        return None
    position = 2
    while True:
        if data[position] != 0xFF:
            return None
        marker = data[position + 1]
        size = data[position + 2] << 8 | data[position + 3]
        segment = data[position + 4 : position + 2 + size]
        if len(segment) != size - 2:
            return None
        position += 2 + size
        if marker == 0xC4:
            _add_huffman(segment, tables)
        elif marker == 0xDB:
            for start in range(0, len(segment), 65):
                quantizations[segment[start]] = segment[start + 1 : start + 65]
        elif marker in (0xC0, 0xC1):
            if components or segment[0] != 8:
                return None
            height, width = segment[1] << 8 | segment[2], segment[3] << 8 | segment[4]
            components = [segment[start : start + 3] for start in range(6, len(segment), 3)]
            if len(components) != segment[5] or not 0 < width * height <= max_pixels:
                return None
        elif marker == 0xDA:
            break
        elif marker == 0xE0:
            ycbcr |= segment[:5] == b"JFIF\0"
        elif marker == 0xE1:
            exif |= segment[:6] == b"Exif\0\0"
        elif marker == 0xEE and segment[:5] == b"Adobe":
            if segment[11] != 1:  # the colours are not YCbCr
                return None
            ycbcr = True
        elif not (0xE1 <= marker <= 0xEF or marker == 0xFE):
            return None
    selectors = [segment[start : start + 2] for start in range(1, 1 + 2 * segment[0], 2)]
    if segment[1 + 2 * segment[0] :] != b"\x00\x3f\x00" or len(selectors) not in (1, 3):
        return None
    names = bytes(component[0] for component in components)
    if bytes(selector[0] for selector in selectors) != names or not (ycbcr or len(names) == 1 or names == b"\1\2\3"):
        return None
    sampling = [(component[1] >> 4, component[1] & 15) for component in components]
    if len(sampling) == 1:
        sampling = [(1, 1)]
    across, down = sampling[0]
    if any(not (0 < a <= across <= 4 and 0 < d <= down <= 4) for a, d in sampling):
        return None
    used = [tables[kind << 4 | number] for _, both in selectors for kind, number in ((0, both >> 4), (1, both & 15))]
    quantization = quantizations[components[0][2]]
    if len(quantization) != 64:
        return None
    turned = turn_of_jpeg(data) if exif else (False, False, False)
    return _Frame(width, height, tuple(sampling), tuple(used), quantization, position, turned)


def _add_huffman(segment: bytes, tables: dict[int, Table]) -> None:
    """Read the tables of one DHT segment.

    Raises:
        ValueError: one is cut off, or its codes do not fit into 16 bits.
    """
    start = 0
    while start < len(segment):
        counts = segment[start + 1 : start + 17]
        end = start + 17 + sum(counts)
        table = (segment[start] >> 4, counts, segment[start + 17 : end])
        _check_huffman(table)
        tables[segment[start]] = table
        start = end


@lru_cache(maxsize=256)
def _check_huffman(table: Table) -> None:
    kind, counts, symbols = table
    room = sum(count << (15 - length) for length, count in enumerate(counts))
    first_only = all(symbol < 12 for symbol in symbols)
    if kind > 1 or len(counts) != 16 or len(symbols) != sum(counts) or room > 1 << 16 or not (kind or first_only):
        raise ValueError("no Huffman table of a baseline JPEG")
