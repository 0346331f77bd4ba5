"""How fast the exact Hamming joins are, as ratios measured in one run.

python benchmarks/hamming.py                        # 100,000 and 1,000,000 hashes
python benchmarks/hamming.py --large                # and 10,000,000
python benchmarks/hamming.py --hashes hashes.npy    # and your own: uint8 (n, 32)
python benchmarks/hamming.py --pieces 10000000 30000000 # in pieces from files, and nothing else
python benchmarks/hamming.py --pieces 2000000 --turned --chunks 3 --rows-a-piece 2000000 # in others than a run's
"""

from __future__ import annotations

import argparse
import math
import os
import resource
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory

import faiss
import numpy as np
from numpy.typing import NDArray

from dedupkit.neighbors.hamming.dihedral import class_words, dihedral_pairs, transpose
from dedupkit.neighbors.hamming.join import Pairs, as_words, hamming_pairs
from dedupkit.neighbors.hamming.ranges import MOST_ROWS, HashFiles, KeyRange, Search, cut, join_range, readings

RADIUS = 31
Hashes = NDArray[np.uint8]


def planted(n: int, seed: int = 0) -> Hashes:
    """Random 256-bit hashes, 2 % of them near copies of others, at 0 to 40 bits."""
    rng = np.random.default_rng(seed)
    hashes = rng.integers(0, 256, (n, 32), dtype=np.uint8)
    copies = n // 50
    flips = rng.random((copies, 256)) < rng.uniform(0, 40 / 256, (copies, 1))
    hashes[-copies:] = hashes[:copies] ^ np.packbits(flips, axis=1)
    return hashes


def skewed(n: int, seed: int = 0) -> Hashes:
    """Bits set with probabilities from 0.2 to 0.8, and 5 % of the hashes in tight clusters of 500."""
    rng = np.random.default_rng(seed)
    rate = rng.uniform(0.2, 0.8, 256)
    hashes = np.concatenate([np.packbits(rng.random((part, 256)) < rate, axis=1) for part in split(n)])
    clustered = n // 20
    centres = hashes[rng.integers(0, n, max(1, clustered // 500))]
    rows = rng.choice(n, clustered, replace=False)
    flips = np.packbits(rng.random((clustered, 256)) < 0.03, axis=1)
    hashes[rows] = centres[rng.integers(0, len(centres), clustered)] ^ flips
    return hashes


def split(n: int, size: int = 100_000) -> list[int]:
    """Cut n into parts of at most `size`."""
    return [min(size, n - at) for at in range(0, n, size)]


def best(run: Callable[[], Pairs], repeats: int) -> tuple[float, Pairs]:
    """Least wall time in seconds, and the result."""
    times = []
    for _ in range(repeats):
        begin = time.perf_counter()
        pairs = run()
        times.append(time.perf_counter() - begin)
    return min(times), pairs


def faiss_pairs(hashes: Hashes) -> Pairs:
    """All pairs by `IndexBinaryFlat.range_search`, which reports distances below its radius."""
    index = faiss.IndexBinaryFlat(256)
    index.add(hashes)
    limits, distance, b = index.range_search(hashes, RADIUS + 1)
    a = np.repeat(np.arange(len(hashes)), np.diff(limits.astype(np.int64)))
    upper = a < b
    return Pairs.gather([Pairs(a[upper], b[upper], distance[upper].astype(np.uint16))])


def same(x: Pairs, y: Pairs) -> bool:
    """Whether two results are equal."""
    return all(np.array_equal(getattr(x, name), getattr(y, name)) for name in ("a", "b", "distance"))


def row(what: str, seconds: float, pairs: int, ratio: str = "") -> None:
    """Print a line of the table."""
    print(f"{what:<52} {seconds:>9.3f} {pairs:>12,}  {ratio}", flush=True)


def lay_down(folder: Path, n: int, *, turned: bool) -> HashFiles:
    """Write planted hashes as a join in pieces maps them, a part at a time."""
    files = HashFiles(folder / "codes.npy", folder / "turned.npy" if turned else None)
    shape = (n, 4)
    codes = np.lib.format.open_memmap(files.codes, "w+", np.uint64, shape)
    other = np.lib.format.open_memmap(files.turned, "w+", np.uint64, shape) if files.turned else None
    at = 0
    for seed, size in enumerate(split(n, 500_000)):
        hashes = planted(size, seed)
        codes[at : at + size] = class_words(hashes) if turned else as_words(hashes)
        if other is not None:
            other[at : at + size] = transpose(codes[at : at + size])
        at += size
    return files


def join_one(files: HashFiles, search: Search, piece: KeyRange) -> tuple[int, float, float]:
    """One piece, in a process of its own: pairs, processor seconds, and the most memory of the process in GiB."""
    small = Search(100, 4, 0, search.turned)
    with TemporaryDirectory() as folder:  # compiles, or loads what was compiled
        sum(map(len, join_range(lay_down(Path(folder), small.rows, turned=small.turned), small, cut(small)[0])))
    begin = time.process_time()
    pairs = sum(map(len, join_range(files, search, piece)))
    return pairs, time.process_time() - begin, most_memory()


def most_memory() -> float:
    """The most memory of this process so far in GiB."""
    status = Path("/proc/self/status")
    if status.exists():  # ru_maxrss of Linux begins with that of the process that started this one
        lines = dict(line.split(":", 1) for line in status.read_text().splitlines())
        return int(lines["VmHWM"].split()[0]) / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**30


def in_pieces(
    sizes: Sequence[int], scratch: str | None, *, turned: bool, one_of_each: bool, chunks: int | None, most_rows: int
) -> None:
    """Join planted hashes in pieces, one process after the other, and print how time grows with their number."""
    print(f"radius {RADIUS} of 256 bits, {'eight orientations' if turned else 'one orientation'}, processor seconds")
    before: tuple[int, float] | None = None
    for n in sizes:
        with TemporaryDirectory(dir=scratch) as folder:
            files, search = lay_down(Path(folder), n, turned=turned), Search(n, 4, RADIUS, turned, chunks=chunks)
            pieces = cut(search, most_rows)
            kinds: dict[tuple[int, ...], list[KeyRange]] = {}
            for piece in pieces:
                chunk = search.halves[piece.half].chunks[piece.chunk]
                kinds.setdefault((piece.half, chunk.width, chunk.radius, piece.bits), []).append(piece)
            pairs = seconds = peak = longest = 0.0
            for alike in kinds.values():
                chosen = alike[len(alike) // 2 :][:1] if one_of_each else alike
                for piece in chosen:
                    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
                        found, took, most = pool.submit(join_one, files, search, piece).result()
                    pairs, seconds = pairs + found, seconds + took * len(alike) / len(chosen)
                    peak, longest = max(peak, most), max(longest, took)
        counted = f"{len(kinds)} of {len(pieces)}" if one_of_each else f"{len(pieces)}"
        grows = f", grows with n to the {math.log(seconds / before[1]) / math.log(n / before[0]):.2f}" if before else ""
        read = 32 * n * sum(readings(search, piece) for piece in pieces) / 1e9
        print(f"{n:>13,} hashes: {counted} pieces, {pairs:,.0f} pairs, {seconds:.1f} s, {read:,.1f} GB read, at most "
              f"{longest:.1f} s and {peak:.2f} GiB a piece{grows}", flush=True)  # fmt: skip
        before = n, seconds


def main() -> int:
    """Run the benchmark; 1 if results differ."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--large", action="store_true", help="also join 10,000,000 hashes (a minute, 1.5 GiB)")
    parser.add_argument("--hashes", help="a .npy file of uint8 (n, 32) to join as well")
    parser.add_argument("--repeats", type=int, default=3, help="runs of which the best counts")
    parser.add_argument("--pieces", type=int, nargs="+", metavar="N", help="numbers of hashes to join in pieces")
    parser.add_argument("--turned", action="store_true", help="with --pieces: in any orientation, as PDQ hashes are")
    parser.add_argument(
        "--one-of-each", action="store_true", help="with --pieces: one piece of each kind, times their number"
    )
    parser.add_argument("--chunks", type=int, help="with --pieces: chunks of a word, instead of those of the plan")
    parser.add_argument(
        "--rows-a-piece", type=int, default=MOST_ROWS, metavar="N", help="with --pieces: hashes that a piece may sort"
    )
    parser.add_argument("--scratch", help="with --pieces: a folder for 32 bytes a hash, or 64 with --turned")
    arguments = parser.parse_args()
    if arguments.pieces:
        in_pieces(
            arguments.pieces,
            arguments.scratch,
            turned=arguments.turned,
            one_of_each=arguments.one_of_each,
            chunks=arguments.chunks,
            most_rows=arguments.rows_a_piece,
        )
        return 0

    print(f"{os.cpu_count()} processors, radius {RADIUS} of 256 bits, best of {arguments.repeats}")
    print(f"{'':<52} {'seconds':>9} {'pairs':>12}  ratio")
    small, million = planted(100_000), planted(1_000_000)
    hamming_pairs(small, RADIUS)  # compiles, or loads what was compiled
    dihedral_pairs(small[:10_000], RADIUS)

    faiss_time, expected = best(lambda: faiss_pairs(small), 1)
    row("faiss IndexBinaryFlat, 100,000", faiss_time, len(expected), "1")
    small_time, found = best(lambda: hamming_pairs(small, RADIUS), arguments.repeats)
    equal = same(found, expected)
    verdict = "identical pairs" if equal else "DIFFERENT PAIRS"
    row("hamming_pairs, 100,000", small_time, len(found), f"{faiss_time / small_time:.0f}x faster, {verdict}")
    million_time, found = best(lambda: hamming_pairs(million, RADIUS), arguments.repeats)
    row(
        "hamming_pairs, 1,000,000",
        million_time,
        len(found),
        f"{100 * faiss_time / million_time:.0f}x faster than faiss x 100 (n squared)",
    )

    for hashes, plain in ((small, small_time), (million, million_time)):
        seconds, found = best(lambda hashes=hashes: dihedral_pairs(hashes, RADIUS), arguments.repeats)
        # Without it: a join with itself, and one with each of the seven other orientations of the set.
        other_time, _ = best(lambda hashes=hashes: hamming_pairs(hashes, RADIUS, hashes), arguments.repeats)
        ratio = f"{(plain + 7 * other_time) / seconds:.1f}x faster than eight joins, {seconds / plain:.1f} x one"
        row(f"dihedral_pairs, {len(hashes):,}", seconds, len(found), ratio)

    samples = [("skewed", skewed(100_000)), ("skewed", skewed(1_000_000))]
    if arguments.hashes:
        samples.append((arguments.hashes.rsplit("/", 1)[-1], np.load(arguments.hashes)))
    for name, hashes in samples:
        seconds, found = best(lambda hashes=hashes: hamming_pairs(hashes, RADIUS), arguments.repeats)
        even = million_time if len(hashes) == len(million) else small_time if len(hashes) == len(small) else None
        ratio = f"{seconds / even:.1f} x random hashes" if even else ""
        row(f"hamming_pairs, {name}, {len(hashes):,}", seconds, len(found), ratio)

    if arguments.large:
        del samples, expected
        ten = planted(10_000_000)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        seconds, found = best(lambda: hamming_pairs(ten, RADIUS), 1)
        exponent = math.log10(seconds / million_time)
        row(
            "hamming_pairs, 10,000,000",
            seconds,
            len(found),
            f"grows with n to the {exponent:.2f} from 1,000,000",
        )
        # Linux counts in KiB, macOS in bytes.
        unit = 2**30 if sys.platform == "darwin" else 2**20
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
        print(f"peak memory {peak:.2f} GiB ({before / unit:.2f} GiB before, with the hashes)")
    return 0 if equal else 1


if __name__ == "__main__":
    sys.exit(main())
