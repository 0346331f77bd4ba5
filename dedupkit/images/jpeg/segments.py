"""The segments of a JPEG: markers with a length, and how many scans follow; ITU-T T.81 (1992), annex B."""

from __future__ import annotations

import re
from collections.abc import Iterator

__all__ = ["DHT", "DQT", "SOS", "count_scans", "is_frame", "segments"]

SOS, DHT, DQT = 0xDA, 0xC4, 0xDB
_STAND_ALONE = frozenset([0x01, *range(0xD0, 0xD9)])  # markers without a length
_EOI = 0xD9
_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")  # in coded data a zero follows each 0xFF, or it is a restart marker


def segments(data: bytes, position: int = 2) -> Iterator[tuple[int, int, int]]:
    """Walk the segments from a marker on, up to the next scan.

    Args:
        data: The stored bytes of a JPEG.
        position: The offset of a marker; fill bytes before a marker are skipped.

    Yields:
        Marker, first and last (exclusive) offset of the contents, which may lie beyond the end of a damaged file. The
        last segment is the scan header; without one, the walk ends where no marker follows.

    >>> [(hex(marker), end - start) for marker, start, end in segments(bytes.fromhex("ffd8 ffff fe0003 41"))]
    [('0xfe', 1)]
    """
    size = len(data)
    while position + 4 <= size and data[position] == 0xFF:
        marker = data[position + 1]
        if marker == 0xFF:
            position += 1
            continue
        start = position + 4
        end = position + 2 + (data[position + 2] << 8 | data[position + 3])
        yield marker, start, end
        if marker == SOS:
            return
        position = end


def is_frame(marker: int) -> bool:
    """Whether a marker begins a frame header (SOF), of any coding process."""
    return 0xC0 <= marker <= 0xCF and marker not in (DHT, 0xC8, 0xCC)


def count_scans(data: bytes, most: int) -> int:
    """Count the scans of a JPEG as a decoder meets them, junk between segments included.

    Args:
        data: The stored bytes.
        most: The count at which to stop.

    Returns:
        The number of scans, at most ``most``.

    >>> count_scans(bytes.fromhex("ffd8 ffda 0002 12ff00 ffda 0002 34 ffd9"), 9)
    2
    """
    scans, position = 0, 2
    while scans < most:
        found = _MARKER.search(data, position)
        if found is None:
            break
        marker, position = data[found.start() + 1], found.end()
        if marker == _EOI:
            break
        if marker not in _STAND_ALONE:
            scans += marker == SOS
            position += max(2, int.from_bytes(data[position : position + 2], "big"))
    return scans
