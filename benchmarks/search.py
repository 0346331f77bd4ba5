"""Latency and memory of looking up one hash, and one vector, among many; on one core.

Usage: python benchmarks/search.py [--rows 1000000] [--dim 0]

Hashes and vectors are random, which spreads hashes evenly over the buckets; those of photos cluster more.
"""

from __future__ import annotations

import argparse
import os
import resource
import tempfile
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

from dedupkit.neighbors.cosine.lookup import VectorLookup
from dedupkit.neighbors.hamming.lookup import HashLookup

_QUERIES = 200


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--dim", type=int, default=0, help="also vectors of so many values")
    given = parser.parse_args()
    rng = np.random.default_rng(0)
    hashes = rng.integers(0, 256, (given.rows, 32), dtype=np.uint8)
    with tempfile.TemporaryDirectory() as place:
        started = time.perf_counter()
        HashLookup.of(hashes).save(Path(place))
        print(f"{given.rows:,} hashes: built in {time.perf_counter() - started:.1f} s")
        lookup = HashLookup.open(Path(place))
        found = 0
        taken = []
        for row in rng.integers(0, given.rows, _QUERIES):
            bits = np.unpackbits(hashes[row])
            bits[rng.choice(256, 31, replace=False)] ^= 1
            started = time.perf_counter()
            rows, _ = lookup.within(np.packbits(bits), 31)
            taken.append(1000 * (time.perf_counter() - started))
            found += int(row in rows)
        _tell("hash", taken[1:], found)
    if given.dim:
        vectors = rng.standard_normal((given.rows, given.dim), dtype=np.float32).astype(np.float16)
        vectors /= np.linalg.norm(vectors.astype(np.float32), axis=1, keepdims=True).astype(np.float16)
        with tempfile.TemporaryDirectory() as place:
            started = time.perf_counter()
            VectorLookup.of(vectors, np.arange(given.rows)).save(Path(place))
            print(f"{given.rows:,} vectors of {given.dim}: built in {time.perf_counter() - started:.1f} s")
            near = VectorLookup.open(Path(place))
            taken, found = [], 0
            for row in rng.integers(0, given.rows, _QUERIES):
                started = time.perf_counter()
                samples, _ = near.nearest(vectors[row][None].astype(np.float32), 10)
                taken.append(1000 * (time.perf_counter() - started))
                found += int(row in samples)
            _tell("vector", taken[1:], found)
    print(f"peak memory of the process {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:,.0f} MiB")


def _tell(what: str, taken: list[float], found: int) -> None:
    middle, late = np.percentile(taken, [50, 99])
    print(f"  a {what}: median {middle:.2f} ms, 99th percentile {late:.2f} ms, {found} of {_QUERIES} found")


if __name__ == "__main__":
    main()
