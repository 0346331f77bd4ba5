"""How fast the exact Hamming joins are, as ratios measured in one run.

python benchmarks/hamming.py                        # 100,000 and 1,000,000 hashes
python benchmarks/hamming.py --large                # and 10,000,000
python benchmarks/hamming.py --hashes hashes.npy    # and your own: uint8 (n, 32)
"""

from __future__ import annotations

import argparse
import math
import os
import resource
import sys
import time
from collections.abc import Callable

import faiss
import numpy as np
from numpy.typing import NDArray

from dedupkit.neighbors.hamming.dihedral import dihedral_pairs
from dedupkit.neighbors.hamming.join import Pairs, hamming_pairs

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


def main() -> int:
    """Run the benchmark; 1 if results differ."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--large", action="store_true", help="also join 10,000,000 hashes (a minute, 1.5 GiB)")
    parser.add_argument("--hashes", help="a .npy file of uint8 (n, 32) to join as well")
    parser.add_argument("--repeats", type=int, default=3, help="runs of which the best counts")
    arguments = parser.parse_args()

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
