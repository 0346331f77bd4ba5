"""Exact join of 64- or 256-bit hashes: every pair within a Hamming radius, each once, in bounded memory.

Method: multi-index hashing (Norouzi, Punjani and Fleet, "Fast Search in Hamming Space with Multi-Index Hashing",
CVPR 2012, section 3), as a join and in two levels. Let the parts of a hash have radii r_1..r_m such that
(r_1 + 1) + ... + (r_m + 1) = r + 1. If every part differed in r_i + 1 bits or more, the whole would differ in more
than r; so a pair within r has a part within its r_i. The parts are the words of 64 bits, and then the chunks of a
word. Only pairs that come so close in a chunk are looked at, and comparing the word throws nearly all of them out
again. That is cheaper than comparing hashes, and cutting twice loses nothing if the radii come out even.

The hashes are sorted by one chunk after the other. Bucket v is joined with bucket v ^ f for every mask f of at
most as many bits as the chunk's radius. A pair is emitted by the first chunk, in a fixed order, that qualifies for
it, which depends on the pair alone: no set of pairs is kept, and threads and blocks do not change the result.

`make_plan` takes the cheapest number of chunks by the cost model beside it. A word may be one chunk of no bits,
whose single bucket holds everything: brute force, best for few hashes or a large radius.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dedupkit.neighbors.hamming.plan import Chunk, cost, make_plan, make_probe
from dedupkit.startup.cores import worker_count

if TYPE_CHECKING:
    from dedupkit.neighbors.hamming.kernels import Probe, Side

__all__ = ["Pairs", "hamming_pairs", "iter_hamming_pairs"]

BLOCK_PAIRS = 1 << 22
MOST_ROWS = 2**31 - 64  # rows are kept as int32

MOST_AHEAD = 4  # chunks that are sorted ahead, each in 24 bytes a row

TASK = 3e6  # what a task should take, so that starting it does not count


@dataclass(frozen=True, slots=True)
class Pairs:
    """Pairs of rows with their Hamming distance.

    Attributes:
        a: int64 (m,), row in the first set.
        b: int64 (m,), row in the second set; a < b where a set was joined with itself.
        distance: uint16 (m,), in bits.
    """

    a: NDArray[np.int64]
    b: NDArray[np.int64]
    distance: NDArray[np.uint16]

    def __len__(self) -> int:
        return len(self.a)

    @staticmethod
    def gather(blocks: Iterable[Pairs]) -> Pairs:
        """Join blocks into one, sorted by (a, b)."""
        columns = [(block.a, block.b, block.distance) for block in (_NO_PAIRS, *blocks)]
        a, b, distance = (np.concatenate(column) for column in zip(*columns, strict=True))
        order = np.argsort(a << 32 | b)  # rows fit in 31 bits; one key sorts much faster than two
        return Pairs(a[order], b[order], distance[order])


_NO_PAIRS = Pairs(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.uint16))


def hamming_pairs(
    hashes: ArrayLike,
    max_distance: int,
    other: ArrayLike | None = None,
    *,
    workers: int | None = None,
    block_pairs: int = BLOCK_PAIRS,
) -> Pairs:
    """Find every pair of hashes that differ in at most `max_distance` bits.

    Args:
        hashes: (n, 8) or (n, 32) uint8: 64 or 256 bits a row.
        max_distance: the radius in bits, inclusive.
        other: (k, same width) uint8 to join with; without it, `hashes` is joined with itself.
        workers: threads, at least 1; by default one for each core that this process may use.
        block_pairs: pairs that wait in buffers at any time, about.

    Returns:
        All the pairs, sorted by (a, b).

    Raises:
        ValueError: an array of another shape or type, two widths, or a number out of range.
    """
    blocks = iter_hamming_pairs(hashes, max_distance, other, workers=workers, block_pairs=block_pairs)
    return Pairs.gather(blocks)


def iter_hamming_pairs(
    hashes: ArrayLike,
    max_distance: int,
    other: ArrayLike | None = None,
    *,
    workers: int | None = None,
    block_pairs: int = BLOCK_PAIRS,
) -> Iterator[Pairs]:
    """As `hamming_pairs`, but in blocks: in no order, each pair once, memory bounded by `block_pairs`."""
    left = as_words(hashes)
    right = None if other is None else as_words(other)
    if right is not None and left.shape[1] != right.shape[1]:
        raise ValueError(f"hashes have {left.shape[1] * 8} bytes a row, other has {right.shape[1] * 8}")
    settings = Settings.checked(max_distance, workers, block_pairs)
    return join(left, right, settings, folded=(False,) * left.shape[1])


def as_words(hashes: ArrayLike) -> NDArray[np.uint64]:
    """View (n, 8) or (n, 32) uint8 as uint64 (n, 1) or (n, 4); copies what is not contiguous and writable.

    Raises:
        ValueError: another shape or type, or too many rows.
    """
    array = np.asarray(hashes)
    if array.dtype != np.uint8 or array.ndim != 2 or array.shape[1] not in (8, 32):
        raise ValueError(f"hashes must be uint8 of shape (n, 8) or (n, 32), not {array.dtype} {array.shape}")
    if len(array) > MOST_ROWS:
        raise ValueError(f"at most {MOST_ROWS} hashes can be joined, not {len(array)}; use `other` to join parts")
    # One kind of array only: the kernels would be compiled anew for a read-only or unaligned one.
    return np.require(np.ascontiguousarray(array).view(np.uint64), requirements=["C", "A", "W"])


class Settings(NamedTuple):
    """The arguments that all joins share.

    Attributes:
        radius: The largest distance, in bits.
        workers: Number of threads.
        block_pairs: Pairs that wait in buffers at any time, about.
        chunks: Chunks of a word, 0 for brute force; as many as cost least by default.
    """

    radius: int
    workers: int = 1
    block_pairs: int = BLOCK_PAIRS
    chunks: int | None = None

    @staticmethod
    def checked(radius: int, workers: int | None, block_pairs: int) -> Settings:
        """Raise ValueError for a number out of range; fill in the default of workers."""
        settings = Settings(radius, worker_count(workers, least=1), block_pairs)
        if radius < 0:
            raise ValueError(f"max_distance must not be negative, but is {radius}")
        if block_pairs < 1:
            raise ValueError(f"block_pairs must be at least 1, but is {block_pairs}")
        return settings


class Sorter:
    """Sorts sets of up to `rows` hashes by chunks of up to `buckets` keys, in memory that is used again.

    Where pages are slow to come, touching fresh memory takes longer than sorting.
    """

    def __init__(self, rows: int, buckets: int) -> None:
        from dedupkit.neighbors.hamming import kernels

        self.kernels = kernels
        self.words = np.empty((2, rows + kernels.PADDING), np.uint64)
        self.ids = np.empty((2, rows), np.int32)
        self.starts = np.empty(buckets + 1, np.int32)

    def sort(self, codes: NDArray[np.uint64], chunk: Chunk, probe: Probe) -> Side:
        """Sort codes, uint64 (rows, words); what the last call returned is overwritten."""
        starts = self.starts[: chunk.buckets + 1]
        self.words[0, : len(codes)] = codes[:, chunk.word]
        self.kernels.sort_by_chunk(tuple(probe), self.words[0], self.ids[0], self.words[1], self.ids[1], starts)
        return self.kernels.Side(self.words[0], self.ids[0], starts, codes)


def join(
    left: NDArray[np.uint64],
    right: NDArray[np.uint64] | None,
    settings: Settings,
    folded: Sequence[bool],
    turn: int = 0,
    other: NDArray[np.uint64] | None = None,
) -> Iterator[Pairs]:
    """Join left with right, or with itself; `kernels.scan` explains turn and other.

    One chunk is scanned after the other: each thread has a range of left positions and returns when its buffer is
    full. Meanwhile the next chunks are sorted. Only as many scans as threads are under way, so that results
    cannot pile up before a slow reader.
    """
    if len(left) == 0 or (right is not None and len(right) == 0):
        return
    from dedupkit.neighbors.hamming import kernels as kernels

    workers = settings.workers
    sets = [left] if right is None else [left, right]
    radii, chunks = make_plan(settings.radius, [len(codes) for codes in sets], folded, settings.chunks)
    buckets = max(chunk.buckets for chunk in chunks)
    slots = min(workers, MOST_AHEAD) + 1
    sorters = [[Sorter(len(codes), buckets) for codes in sets] for _ in range(min(slots, len(chunks)))]
    capacity = max(kernels.LANES, settings.block_pairs // (2 * workers))  # one being filled, one being read
    buffers = [np.empty((capacity, 3), np.int64) for _ in range(workers)]

    def prepare(index: int) -> tuple[Any, ...]:
        probe = make_probe(radii, chunks, index, folded)
        pairs = zip(sorters[index % slots], sets, strict=True)
        sides = [tuple(sorter.sort(codes, chunks[index], probe)) for sorter, codes in pairs]
        return sides[0], sides[-1], left if other is None else other, tuple(probe), turn, right is None

    def scan(sides: tuple[Any, ...], begin: int, end: int, state: NDArray[np.int64]) -> tuple[Any, ...]:
        out = buffers.pop()
        count = kernels.scan(*sides, settings.radius, begin, end, state, out)
        a, b, distance = out[:count].T
        pairs = Pairs(a.copy(), b.copy(), distance.astype(np.uint16))
        buffers.append(out)
        return pairs, (begin, end, state)

    def scan_all(sides: tuple[Any, ...], ranges: Iterator[tuple[Any, ...]]) -> Iterator[Pairs]:
        running = {pool.submit(scan, sides, *part) for part in itertools.islice(ranges, workers)}
        while running:
            finished, running = wait(running, return_when=FIRST_COMPLETED)
            for future in finished:
                pairs, part = future.result()
                following = part if part[-1][0] >= 0 else next(ranges, None)
                if following:
                    running.add(pool.submit(scan, sides, *following))
                if len(pairs):
                    yield pairs

    pool = ThreadPoolExecutor(workers)
    try:
        ahead = deque(pool.submit(prepare, index) for index in range(len(chunks))[: slots - 1])
        for index, chunk in enumerate(chunks):
            sides = ahead.popleft().result()
            if index + slots - 1 < len(chunks):  # the sorter of the chunk before is free now
                ahead.append(pool.submit(prepare, index + slots - 1))
            work = cost(chunk, radii[chunk.word], len(left), len(sets[-1]))
            parts = min(8 * workers, 1 + int(work / TASK))
            stride = -(-len(left) // parts)
            ranges = ((at, min(at + stride, len(left)), np.zeros(3, np.int64)) for at in range(0, len(left), stride))
            yield from scan_all(sides, ranges)
    finally:
        pool.shutdown(cancel_futures=True)
