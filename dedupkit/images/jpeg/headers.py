"""The headers of JPEGs, of the plain kind that :mod:`.coefficients` reads; ITU-T T.81 (1992), annex B."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from dedupkit.images.decode import turn_of_jpeg

__all__ = ["Frame", "Table", "read_headers"]

Table = tuple[int, bytes, bytes]
"""A Huffman table: 0 for first and 1 for other coefficients, how many codes of each length, and their symbols."""


@dataclass(frozen=True, slots=True)
class Frame:
    """What the headers of a file say."""

    width: int
    height: int
    sampling: tuple[tuple[int, int], ...]  # of each component: blocks across and down in an MCU
    tables: tuple[Table, ...]  # for each component the one of first and the one of other coefficients
    quantization: bytes  # of the first component, in zigzag order
    scan: int  # where the scan begins
    turned: tuple[bool, bool, bool]


def read_headers(data: bytes, max_pixels: int) -> Frame | None:
    """The headers of a JPEG; None where it is broken or not of the plain kind that ``jpeg`` reads."""
    try:
        return _parse_segments(data, max_pixels)
    except (IndexError, KeyError, ValueError):  # cut off, or naming tables that are not there
        return None


def _parse_segments(data: bytes, max_pixels: int) -> Frame | None:
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
    return Frame(width, height, tuple(sampling), tuple(used), quantization, position, turned)


def _add_huffman(segment: bytes, tables: dict[int, Table]) -> None:
    """Read the tables of one DHT segment.

    Raises:
        ValueError: a table is cut off, has more symbols than a byte has values, or codes that do not fit into 16 bits.
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
    if kind > 1 or len(counts) != 16 or len(symbols) != sum(counts) or len(symbols) > 256:
        raise ValueError("no Huffman table")
    if room >= 1 << 16:  # libjpeg, too, refuses a table in which a code is all ones (T.81, annex C)
        raise ValueError("no Huffman code")
    if kind == 0 and max(symbols, default=0) > 11:
        raise ValueError("no Huffman table of a baseline JPEG")
