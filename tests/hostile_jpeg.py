"""Mutated JPEGs for the compiled coefficient reader, with each of its arrays between inaccessible pages.

    python tests/hostile_jpeg.py 1000000 [SEED]    # prints what was tried; a write outside an array ends the process

A batch holds an image that is not mutated: its coefficients must stay what they are alone.
"""

from __future__ import annotations

import ctypes
import io
import mmap
import random
import sys
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
from PIL import Image

from dedupkit.images.jpeg import coefficients

_GUARD = 64 << 20  # address space alone
_ROOM = 16 << 20
BATCH = 64
"""JPEGs that are read together, one of which is not mutated."""
_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
_libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]


class Guarded:
    """Memory for one array, between pages that nobody may touch."""

    def __init__(self) -> None:
        size = _ROOM + 2 * _GUARD
        base = _libc.mmap(None, size, 0, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x4000, -1, 0)  # MAP_NORESERVE
        assert base not in (None, ctypes.c_void_p(-1).value)
        self.start = base + _GUARD
        assert _libc.mprotect(self.start, _ROOM, mmap.PROT_READ | mmap.PROT_WRITE) == 0

    def place(self, array: np.ndarray, at_end: bool) -> np.ndarray:
        """A copy of an array that touches the page after it, or the one before it."""
        assert array.nbytes <= _ROOM
        address = self.start + (_ROOM - array.nbytes if at_end else 0)
        buffer = (ctypes.c_char * array.nbytes).from_address(address)
        placed = np.frombuffer(buffer, array.dtype).reshape(array.shape)
        placed[...] = array
        return placed


@dataclass
class File:
    """A JPEG taken apart."""

    segments: list[tuple[int, bytes]] = field(default_factory=list)
    scan: bytes = b""

    @classmethod
    def of(cls, data: bytes) -> File:
        file, position = cls(), 2
        while True:
            marker, size = data[position + 1], int.from_bytes(data[position + 2 : position + 4], "big")
            file.segments.append((marker, data[position + 4 : position + 2 + size]))
            position += 2 + size
            if marker == 0xDA:
                file.scan = data[position:]
                return file

    def join(self) -> bytes:
        parts = [b"\xff\xd8"]
        for marker, body in self.segments:
            parts += [bytes([0xFF, marker]), (2 + len(body) & 0xFFFF).to_bytes(2, "big"), body]
        return b"".join([*parts, self.scan])


@cache
def _pool() -> list[Guarded]:
    return [Guarded() for _ in range(11)]


@cache
def originals() -> list[bytes]:
    """Small JPEGs of every kind that Pillow writes."""
    draw, files = np.random.default_rng(1), []
    for n in range(48):
        sides = draw.integers(1, 49, 2)
        image = Image.fromarray(draw.integers(0, 256, (sides[0] // 3 + 1, sides[1] // 3 + 1, 3), np.uint8))
        image = image.resize((int(sides[1]), int(sides[0]))).convert("L" if n % 6 == 0 else "RGB")
        options: dict[str, Any] = {"quality": (5, 40, 75, 95, 100)[n % 5], "optimize": n % 3 == 0}
        if image.mode == "RGB":
            options["subsampling"] = n % 4 % 3
        if n % 16 == 7:
            options["progressive"] = True
        if n % 16 == 9:
            options["restart_marker_blocks"] = 2
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", **options)
        files.append(buffer.getvalue())
    return files


def table(draw: random.Random, kind: int) -> bytes:
    """A Huffman table: plausible, or of any counts."""
    counts, room = [], 1 << 16
    for length in range(1, 17):
        most = max(0, min(255, (room - 1) >> (16 - length)))
        count = draw.choice([0, most, draw.randint(0, most), draw.randint(0, min(most, 4))])
        if draw.random() < 0.02:
            count = draw.randint(0, 255)
        counts.append(count)
        room -= count << (16 - length)
    if draw.random() < 0.7:  # within the 256 symbols of a byte
        while sum(counts) > 256:
            counts[counts.index(max(counts))] //= 2
    symbols = bytes(draw.randint(0, 11) if kind == 0 else draw.randint(0, 15) << 4 | draw.randint(0, 10)
                    for _ in range(sum(counts)))  # fmt: skip
    return bytes(counts) + symbols


def change(body: bytes, draw: random.Random) -> bytes:
    """A byte changed, or some removed or repeated."""
    if not body:
        return draw.randbytes(draw.randint(0, 3))
    at, kind = draw.randrange(len(body)), draw.randrange(6)
    if kind < 4:
        value = draw.choice([0, 1, 255, body[at] ^ 1 << draw.randrange(8), draw.randrange(256)])
        return body[:at] + bytes([value]) + body[at + 1 :]
    length = draw.randint(1, 9)
    return body[:at] + body[at + length :] if kind == 4 else body[: at + length] + body[at:]


def mutate(data: bytes, others: list[bytes], draw: random.Random) -> bytes:
    """One to three changes of the structure or of the bytes."""
    file = File.of(data)
    for _ in range(draw.choice([1, 1, 1, 2, 3])):
        parts, kind = file.segments, draw.randrange(15)
        at = draw.randrange(len(parts))
        marker, body = parts[at]
        if kind <= 3:
            file.scan = change(file.scan, draw)
        elif kind == 4:
            parts[at] = marker, change(body, draw)
        elif kind == 5:
            other = draw.randrange(len(parts))
            parts[at], parts[other] = parts[other], parts[at]
        elif kind == 6:
            parts.insert(draw.randrange(len(parts)), draw.choice(File.of(draw.choice(others)).segments))
        elif kind == 7:
            if len(parts) > 1:
                del parts[at]
        elif kind == 8:
            number = draw.choice([0, 1, 16, 17])
            parts.insert(len(parts) - 1, (0xC4, bytes([number]) + table(draw, number >> 4)))
        elif kind == 9:
            tables = [place for place, (kind_of, _) in enumerate(parts) if kind_of == 0xC4]
            for place in tables:
                number = parts[place][1][:1]
                parts[place] = 0xC4, number + table(draw, number[0] >> 4 if number else 0)
        elif kind in (10, 11):  # dimensions or sampling factors
            frames = [place for place, (kind_of, _) in enumerate(parts) if kind_of in (0xC0, 0xC2)]
            for place in frames:
                frame = bytearray(parts[place][1])
                if len(frame) >= 9 and kind == 10:
                    frame[draw.choice([2, 4])] = draw.randrange(256)
                    frame[draw.choice([1, 3])] = draw.choice([0, 0, 0, 0, 1, 255])
                elif len(frame) >= 9:
                    frame[draw.randrange(7, len(frame), 3)] = draw.choice(
                        [0x11, 0x12, 0x21, 0x22, 0x41, 0x14, 0x44, 0, 0x35]
                    )
                parts[place] = parts[place][0], bytes(frame)
        elif kind == 12:
            scan = File.of(draw.choice(others))
            file.scan = draw.choice([file.scan[:-2], b""]) + bytes([0xFF, 0xDA]) + scan.segments[-1][1] + scan.scan
        elif kind == 13:
            where = draw.randrange(len(file.scan) + 1)
            file.scan = (
                file.scan[:where] + bytes([0xFF, draw.choice([0, 0xD0, 0xD7, 0xD9, 0xDA, 0xFF])]) + file.scan[where:]
            )
        else:
            file.scan = draw.randbytes(draw.randint(0, 300)).replace(b"\xff", b"\xff\0") + b"\xff\xd9"
    joined = file.join()
    return change(joined, draw) if draw.random() < 0.15 else joined


def try_many(count: int, seed: int = 0) -> dict[str, int]:
    """Read mutated JPEGs; each kernel array lies at a forbidden page, before or behind it in turn.

    Returns:
        ``tried``, ``read`` (not refused), ``wrong`` (an untouched neighbour that changed), ``crashes`` (of Python).
    """
    pool, calls = _pool(), 0

    def call(arrays: tuple[np.ndarray, ...]) -> None:
        nonlocal calls
        calls += 1
        placed = [memory.place(array, calls % 2 == 0) for memory, array in zip(pool, arrays, strict=True)]
        original_call(tuple(placed))
        for array, copy in zip(arrays, placed, strict=True):
            if array.flags.writeable:
                array[...] = copy

    original_call, coefficients._call = coefficients._call, call
    draw, files = random.Random(seed), originals()
    result = dict.fromkeys(("tried", "read", "wrong", "crashes"), 0)
    try:
        (innocent,) = coefficients.read_coefficients(files[1:2], lambda length: 6)
        assert innocent is not None
        while result["tried"] < count:
            batch = [mutate(draw.choice(files), files, draw) for _ in range(BATCH - 1)]
            at = draw.randrange(BATCH)
            batch.insert(at, files[1])
            keep = draw.randint(1, 8) if result["tried"] % 3 else 6
            try:
                found = coefficients.read_coefficients(batch, lambda length: keep, max_pixels=300_000)  # noqa: B023
            except Exception as error:
                print(f"{type(error).__name__}: {error}", file=sys.stderr)
                result["crashes"] += 1
                found = []
            result["tried"] += BATCH - 1
            result["read"] += sum(image is not None for image in found)
            if found and keep == 6:
                mine = found[at]
                result["wrong"] += mine is None or not np.array_equal(mine.plane, innocent.plane)
    finally:
        coefficients._call = original_call
    return result


if __name__ == "__main__":
    print(try_many(int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 0))
