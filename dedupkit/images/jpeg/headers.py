"""The headers of JPEGs, of the plain kind that :mod:`.coefficients` reads; ITU-T T.81 (1992), annex B.

What libjpeg or Pillow refuses or warns of is refused here, and so is everything that a plain file does not need.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache

from dedupkit.images.jpeg.segments import DHT, DQT, SOS, segments
from dedupkit.images.orientation import Turn, jpeg_turn

__all__ = ["Frame", "Table", "read_headers"]

Table = tuple[int, bytes, bytes]
"""A Huffman table: 0 for first and 1 for other coefficients, how many codes of each length, and their symbols."""

_MAX_SIDE = 65_500  # libjpeg's
_MAX_BLOCKS = 10  # of an MCU (T.81, B.2.3)
_MIN_BITS = 2  # of a block: a code for its first coefficient and one for its end


@dataclass(frozen=True, slots=True)
class Frame:
    """What the headers of a file say.

    Attributes:
        width: In pixels, as stored.
        height: In pixels, as stored.
        sampling: For each component the blocks across and down in an MCU.
        tables: For each component the Huffman table of its first coefficients and that of the others.
        quantization: (64,) bytes of the first component, in zigzag order.
        scan: Offset of the scan's data.
        turned: How the EXIF block turns the image.
    """

    width: int
    height: int
    sampling: tuple[tuple[int, int], ...]
    tables: tuple[Table, ...]
    quantization: bytes
    scan: int
    turned: Turn


class _NotPlainError(ValueError):
    """The file is broken, or of a kind that is left to libjpeg."""


@dataclass(slots=True)
class _Headers:
    tables: dict[int, Table] = field(default_factory=dict)
    quantizations: dict[int, bytes] = field(default_factory=dict)
    frame: bytes = b""
    ycbcr: bool = False


def read_headers(data: bytes, max_pixels: int) -> Frame | None:
    """Read the headers of a JPEG.

    Args:
        data: The stored bytes.
        max_pixels: The most pixels of an image that is read.

    Returns:
        The headers; None where the file is broken or not of the plain kind that ``jpeg`` reads.
    """
    if data[:2] != b"\xff\xd8":
        return None
    headers = _Headers()
    try:
        for marker, start, end in segments(data):
            if not start <= end <= len(data):
                return None
            if marker == SOS:
                return _frame(headers, data, start, end, max_pixels)
            _add_segment(headers, marker, data[start:end])
    except (IndexError, KeyError, _NotPlainError):  # cut off, or naming tables that are not there
        return None
    return None


def _add_segment(headers: _Headers, marker: int, segment: bytes) -> None:
    if marker == DHT:
        _add_huffman(segment, headers.tables)
    elif marker == DQT:
        _add_quantization(segment, headers.quantizations)
    elif marker in (0xC0, 0xC1):
        if headers.frame:
            raise _NotPlainError
        headers.frame = segment
    elif marker == 0xE0:
        if segment[:4] == b"JFIF":
            if len(segment) < 14 or segment[4:6] != b"\0\1":  # libjpeg warns of a version that is not 1
                raise _NotPlainError
            headers.ycbcr = True
    elif marker == 0xE2:
        if segment[:4] == b"MPF\0" or (segment[:11] == b"ICC_PROFILE" and len(segment) < 14):
            raise _NotPlainError
    elif marker == 0xEE:
        if segment[:5] == b"Adobe":
            if segment[11] != 1:  # the colours are not YCbCr
                raise _NotPlainError
            headers.ycbcr = True
    elif not (0xE1 <= marker <= 0xEF or marker == 0xFE):
        raise _NotPlainError


def _frame(headers: _Headers, data: bytes, start: int, end: int, max_pixels: int) -> Frame:
    """Check frame and scan against each other and against the tables."""
    frame, scan = headers.frame, data[start:end]
    count = frame[5]
    if frame[0] != 8 or count not in (1, 3) or len(frame) != 6 + 3 * count or len(scan) != 4 + 2 * count:
        raise _NotPlainError
    height, width = frame[1] << 8 | frame[2], frame[3] << 8 | frame[4]
    if not (0 < width <= _MAX_SIDE and 0 < height <= _MAX_SIDE and width * height <= max_pixels):
        raise _NotPlainError
    names, samplings, quantizers = frame[6::3], frame[7::3], frame[8::3]
    if scan[0] != count or scan[1:-3:2] != names or scan[-3:] != b"\x00\x3f\x00" or len(set(names)) != count:
        raise _NotPlainError
    if not (headers.ycbcr or count == 1 or names == b"\1\2\3"):
        raise _NotPlainError
    sampling = _sampling(samplings)
    tables = tuple(
        headers.tables[number] for both in scan[2:-3:2] for number in (both >> 4, 0x10 | both & 15)
    )  # a number above 15 is no table's
    if any(both & 15 > 3 for both in scan[2:-3:2]):
        raise _NotPlainError
    quantization, *_ = [headers.quantizations[number] for number in quantizers]
    across, down = sampling[0]
    mcus = -(-width // (8 * across)) * -(-height // (8 * down))
    if mcus * sum(a * d for a, d in sampling) * _MIN_BITS > 8 * (len(data) - end):
        raise _NotPlainError  # more blocks than the scan can hold
    return Frame(width, height, sampling, tables, quantization, end, jpeg_turn(data, end))


def _sampling(factors: bytes) -> tuple[tuple[int, int], ...]:
    sampling = tuple((both >> 4, both & 15) for both in factors)
    across, down = sampling[0]
    for a, d in sampling:
        if not (0 < a <= across <= 4 and 0 < d <= down <= 4) or across % a or down % d:
            raise _NotPlainError
    if len(sampling) == 1:
        return ((1, 1),)  # a scan of one component has one block in an MCU (T.81, A.2.2)
    if sum(a * d for a, d in sampling) > _MAX_BLOCKS:
        raise _NotPlainError
    return sampling


def _add_quantization(segment: bytes, quantizations: dict[int, bytes]) -> None:
    """Read the tables of one DQT segment: 8 bits, one or more."""
    if len(segment) % 65 or not segment:
        raise _NotPlainError
    for start in range(0, len(segment), 65):
        if segment[start] > 3:  # 16 bits, or no table's number
            raise _NotPlainError
        quantizations[segment[start]] = segment[start + 1 : start + 65]


def _add_huffman(segment: bytes, tables: dict[int, Table]) -> None:
    """Read the tables of one DHT segment.

    Raises:
        _NotPlainError: A table is cut off, has more symbols than a byte has values, or
            codes that do not fit into 16 bits.
    """
    start = 0
    while start < len(segment):
        number = segment[start]
        counts = segment[start + 1 : start + 17]
        end = start + 17 + sum(counts)
        table = (number >> 4, counts, segment[start + 17 : end])
        if number & 15 > 3 or not _is_huffman(table):
            raise _NotPlainError
        tables[number] = table
        start = end


@lru_cache(maxsize=256)
def _is_huffman(table: Table) -> bool:
    kind, counts, symbols = table
    if kind > 1 or len(counts) != 16 or len(symbols) != sum(counts) or len(symbols) > 256:
        return False
    # libjpeg, too, refuses a table in which a code is all ones (T.81, annex C).
    if sum(count << (15 - length) for length, count in enumerate(counts)) >= 1 << 16:
        return False
    # The coefficients of 8-bit images have at most 11 bits, and 10 but for the first (T.81, F.1.2).
    return max(symbols, default=0) <= 11 if kind == 0 else all(symbol & 15 <= 10 for symbol in symbols)
