"""The exact join of one set of hashes in pieces: one chunk and one range of its keys at a time, from files.

The method is that of :mod:`dedupkit.neighbors.hamming.join`, whose kernels scan. The keys of a chunk are cut into
ranges by their highest bits. A range meets those ranges alone that a flip leads to, and a pair is emitted by the first
chunk that qualifies for it, and there by the range of its smaller key. So pieces need nothing of one another, and
together they emit what the join in memory does, each pair once.

A piece reads the file twice from start to end, so the fewer pieces, the less is read. It holds 12 bytes for each hash
in reach and 4 for each key; of the mapped file it holds the pages that it compares hashes on, and gives them back now
and then.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dedupkit.neighbors.hamming.dihedral import FOLDED
from dedupkit.neighbors.hamming.join import Pairs
from dedupkit.neighbors.hamming.plan import SORT_ROW, Chunk, ball, cost, make_plan, make_probe

if TYPE_CHECKING:
    from dedupkit.neighbors.hamming.kernels import Probe, Side

__all__ = ["HashFiles", "KeyRange", "Search", "cut", "join_range", "memory_of", "readings", "seconds_of"]

MOST_ROWS = 200_000_000
"""Hashes that a piece may sort, where keys are spread evenly: 2.4 GB, so that it needs less than 4 GiB in all."""

PIECE = 120e9
"""Nanoseconds that a piece should take at most, by the cost model of the plan."""

_READ_ROW = 8.0  # nanoseconds in which a row is read and its key looked at, beside the cost model of the plan
_READ = 1 << 18  # rows read at a time
_PAIRS = 1 << 18  # pairs of a block
_PAGES = 64 << 10  # bytes that come with a mapped page
_HITS = 2_000  # after about as many the mapped pages are given back; each may have brought two times these


class _Half(NamedTuple):
    """One of the joins that find all pairs: one, or for any orientation two (see ``dihedral``)."""

    turn: int
    """As :func:`dedupkit.neighbors.hamming.kernels.scan` takes it."""
    radii: list[int]
    chunks: list[Chunk]
    lookups: float

    @property
    def itself(self) -> bool:
        """Whether the set is joined with itself, and not with its transposed hashes."""
        return self.turn < 2


@dataclass(frozen=True)
class Search:
    """What is sought; with it every piece derives the same plan.

    Attributes:
        rows: Number of hashes.
        words: Words of 64 bits in a hash, 1 or 4.
        radius: The radius in bits, inclusive.
        turned: Whether in any orientation; of PDQ hashes as class words, 4 of them.
        blank: Whether hashes of zeros are none.
        chunks: For tests: chunks of a word, 0 for brute force.
    """

    rows: int
    words: int
    radius: int
    turned: bool = False
    blank: bool = False
    chunks: int | None = None

    @property
    def folded(self) -> tuple[bool, ...]:
        """For each word, whether its complement counts as equal."""
        return FOLDED if self.turned else (False,) * self.words

    @cached_property
    def halves(self) -> list[_Half]:
        """The joins that find all pairs."""
        made = []
        for turn in (1, 2) if self.turned else (0,):
            sizes = [self.rows] if turn < 2 else [self.rows, self.rows]
            radii, chunks = make_plan(self.radius, sizes, self.folded, self.chunks)
            made.append(_Half(turn, radii, chunks, self.rows / 2 if turn < 2 else self.rows))
        return made


class KeyRange(NamedTuple):
    """A piece of a search.

    Attributes:
        half: Number of the join.
        chunk: Number of the chunk in it.
        bits: Number of highest bits of a key that say in which range it is.
        top: Their value.
    """

    half: int
    chunk: int
    bits: int
    top: int


class HashFiles(NamedTuple):
    """Where hashes lie, as ``.npy``.

    Attributes:
        codes: uint64 (n, words).
        turned: The same transposed (:func:`dedupkit.neighbors.hamming.dihedral.transpose`), for a search in any
            orientation.
    """

    codes: Path
    turned: Path | None = None


def cut(search: Search, most_rows: int = MOST_ROWS, piece: float = PIECE) -> list[KeyRange]:
    """The pieces of a search.

    Args:
        search: What is sought.
        most_rows: Hashes that a piece may sort, if keys are spread evenly and have bits enough to be cut by.
        piece: Nanoseconds that a piece should take at most.

    Example:
        >>> pieces = cut(Search(rows=100_000_000, words=4, radius=31))
        >>> len(pieces), len({piece.chunk for piece in pieces})
        (12, 12)
        >>> turned = Search(rows=100_000_000, words=4, radius=31, turned=True)
        >>> len(cut(turned)), len(cut(turned, most_rows=100_000_000))
        (44, 251)
    """
    pieces = []
    for half, of in enumerate(search.halves):
        for number, chunk in enumerate(of.chunks):
            bits, work = 0, cost(chunk, of.radii[chunk.word], of.lookups, search.rows)
            while bits < _key_bits(chunk) and (
                work / 2**bits > piece or search.rows * _share(of, chunk, bits) > most_rows
            ):
                bits += 1
            pieces += [KeyRange(half, number, bits, top) for top in range(1 << bits)]
    return pieces


def seconds_of(search: Search, piece: KeyRange) -> float:
    """Processor time of a piece, by the cost model of the plan; it reads and sorts more than its share of the rows."""
    half = search.halves[piece.half]
    chunk = half.chunks[piece.chunk]
    joined = cost(chunk, half.radii[chunk.word], half.lookups / (1 << piece.bits), search.rows)
    beyond = SORT_ROW * search.rows * (_share(half, chunk, piece.bits) - 1)  # the plan's cost sorts each row once
    return (joined + beyond + _READ_ROW * search.rows * readings(search, piece)) / 1e9


def memory_of(search: Search, piece: KeyRange) -> int:
    """Bytes that a piece holds, if keys are spread evenly."""
    half = search.halves[piece.half]
    chunk = half.chunks[piece.chunk]
    return int(12 * search.rows * _share(half, chunk, piece.bits)) + 4 * chunk.buckets + 2 * _HITS * _PAGES


def readings(search: Search, piece: KeyRange) -> int:
    """How often a piece reads a file of all hashes from start to end."""
    return 2 if search.halves[piece.half].itself else 4


def join_range(files: HashFiles, search: Search, piece: KeyRange) -> Iterator[Pairs]:
    """The pairs of one piece, in blocks; rows are those of the files, a < b.

    Args:
        files: The hashes.
        search: What is sought.
        piece: One of :func:`cut`.
    """
    from dedupkit.neighbors.hamming import kernels

    half = search.halves[piece.half]
    chunk = half.chunks[piece.chunk]
    probe = make_probe(half.radii, half.chunks, piece.chunk, search.folded)
    low = _key_bits(chunk) - piece.bits
    mine = np.zeros(1 << piece.bits, np.bool_)
    mine[piece.top] = True
    reach = np.zeros(1 << piece.bits, np.bool_)
    reach[(probe.flips >> np.uint64(low)) ^ np.uint64(piece.top)] = True
    if half.itself:
        reach[: piece.top] = False  # smaller keys emit their own pairs
    with _Mapped(files.codes) as codes, _Mapped(files.turned or files.codes) as turned:
        there = codes if half.itself else turned
        right = _sort(there, chunk, probe, low, reach, search.blank)
        left = right if half.itself else _sort(codes, chunk, probe, low, mine, search.blank)
        other = (turned if half.itself else codes).rows
        begin, end = (int(left.starts[top << low]) for top in (piece.top, piece.top + 1))
        out = np.empty((_PAIRS, 3), np.int64)
        stride = _stride(half, chunk, search.rows)
        for at in range(begin, end, stride):
            state = np.zeros(3, np.int64)
            while state[0] >= 0:
                count = kernels.scan(
                    tuple(left), tuple(right), other, tuple(probe), half.turn, half.itself, search.radius,
                    at, min(at + stride, end), state, out,
                )  # fmt: skip
                if count:
                    a, b, distance = out[:count].T
                    yield Pairs(a.copy(), b.copy(), distance.astype(np.uint16))
            codes.release()
            turned.release()


def _key_bits(chunk: Chunk) -> int:
    return chunk.buckets.bit_length() - 1


def _share(half: _Half, chunk: Chunk, bits: int) -> float:
    """Share of the hashes that the largest piece sorts, if a chunk's keys are cut by so many bits."""
    reached = ball(bits, chunk.radius) + (ball(bits, chunk.radius - 1) if chunk.folded and chunk.radius else 0)
    return (min(reached, 1 << bits) + (not half.itself)) / (1 << bits)


def _stride(half: _Half, chunk: Chunk, rows: int) -> int:
    """Left positions after which the mapped pages are given back, if hashes are random."""
    free, radius = 64 - chunk.width, half.radii[chunk.word]
    passing = ball(free, min(free, radius)) / 2**free * (2 if chunk.folded else 1)
    hits = ball(chunk.width, chunk.radius) * rows / chunk.buckets * passing
    return max(4096, int(_HITS / max(hits, 1e-9)))


def _sort(codes: _Mapped, chunk: Chunk, probe: Probe, low: int, reach: NDArray[np.bool_], blank: bool) -> Side:
    """Sort the hashes of the ranges in reach by their keys, as :class:`dedupkit.neighbors.hamming.kernels.Side`."""
    from dedupkit.neighbors.hamming import kernels, range_kernels

    fixed = (tuple(probe), np.uint64(low), reach, blank)
    starts = np.zeros(chunk.buckets + 2, np.int32)
    for _, block in codes.blocks():
        range_kernels.count_keys(block, *fixed, starts)
    np.cumsum(starts, out=starts)
    count = int(starts[-1])
    words = np.zeros(count + kernels.PADDING, np.uint64)
    ids = np.empty(count, np.int32)
    for first, block in codes.blocks():
        range_kernels.place_keys(block, first, *fixed, starts, words, ids)
    return kernels.Side(words, ids, starts[:-1], codes.rows)


class _Mapped:
    """A mapped file of hashes; a context manager.

    Attributes:
        rows: uint64 (n, words), which must not be written to.
    """

    def __init__(self, path: Path) -> None:
        self._file = path.open("rb")
        np.lib.format.read_magic(self._file)
        shape, _, dtype = np.lib.format.read_array_header_1_0(self._file)
        self._begin = self._file.tell()
        self._map = mmap.mmap(self._file.fileno(), 0, access=mmap.ACCESS_READ)  # a copy would count as memory
        flat = np.frombuffer(self._map, dtype, offset=self._begin)
        self.rows: NDArray[np.uint64] = np.asarray(_Writable(flat)).reshape(shape)

    def blocks(self) -> Iterator[tuple[int, NDArray[np.uint64]]]:
        """The rows block by block, read and not mapped; the number of the first, and a buffer that is used again."""
        buffer = np.empty((_READ, self.rows.shape[1]), np.uint64)
        self._file.seek(self._begin)
        for first in range(0, len(self.rows), _READ):
            block = buffer[: len(self.rows) - first]
            self._file.readinto(block.view(np.uint8).data)
            yield first, block

    def release(self) -> None:
        """Give mapped pages back to the system, which has them in its cache."""
        if hasattr(self._map, "madvise"):
            self._map.madvise(mmap.MADV_DONTNEED)

    def __enter__(self) -> _Mapped:
        return self

    def __exit__(self, *_: Any) -> None:
        self._file.close()  # the map goes with the last array over it


class _Writable:
    """An array that says it can be written to, as those do that the kernels are compiled for."""

    def __init__(self, array: NDArray[Any]) -> None:
        self._array = array  # holds the memory
        self.__array_interface__ = array.__array_interface__ | {"data": (array.ctypes.data, False)}
