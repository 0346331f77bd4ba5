"""How fast the clustered cosine join is beside exact tiles, and what it finds, measured in one run.

python benchmarks/cosine.py                     # 1,000,000 vectors of 512 dimensions, written to a temporary file
python benchmarks/cosine.py --quick             # 100,000
python benchmarks/cosine.py --data vectors.npy  # your own, (n, d); made first if there is no such file

The made vectors have the spectrum of a copy descriptor (background cosine 0.00 +- 0.07, participation ratio 190), in
clusters of two levels and unequal size. 30 % of them are copies of others, at a cosine drawn from 0.6 to 0.99, up to
30 of one vector, half of the difference along the data's own directions and half in any.

Exact search of a million takes long: it is timed on a block of rows against all and scaled to n^2 / 2. The true pairs
of these rows, which the join does not know, are also what recall is checked with here. Times are given as wall time
and as processor time, because other programs disturb the former.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dedupkit.neighbors.cosine.distinct import collapse
from dedupkit.neighbors.cosine.join import Join, ScoredPairs
from dedupkit.neighbors.cosine.overlap import Overlap
from dedupkit.neighbors.cosine.recall import Recall
from dedupkit.neighbors.cosine.rows import Rows
from dedupkit.neighbors.cosine.settings import Settings
from dedupkit.neighbors.cosine.tiles import Engine, dots, join_tiles

DIMS, CHUNK = 512, 50_000
KEEP_ROWS = 16384


def units(x: NDArray[Any]) -> NDArray[Any]:
    """Scale rows to length 1."""
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def make(path: Path, n: int, seed: int = 0) -> None:
    """Write n float16 vectors as the module describes them."""
    rng = np.random.default_rng(seed)
    out = np.lib.format.open_memmap(path, mode="w+", dtype=np.float16, shape=(n, DIMS))
    spectrum = np.arange(1, DIMS + 1) ** -0.3
    spectrum = (spectrum / np.linalg.norm(spectrum)).astype(np.float32)
    turn = np.linalg.qr(rng.standard_normal((DIMS, DIMS)))[0].astype(np.float32)

    def draw(m: int) -> NDArray[np.float32]:
        return units(rng.standard_normal((m, DIMS), dtype=np.float32) * spectrum)

    clusters = max(10, n // 250)
    coarse = draw(max(3, clusters // 50))
    centres = units(0.6 * coarse[rng.integers(0, len(coarse), clusters)] + 0.8 * draw(clusters))
    sizes = np.arange(1, clusters + 1) ** -0.6
    originals = n - 3 * n // 10
    groups = np.minimum(rng.zipf(2.2, n - originals), 30)
    groups = groups[: np.searchsorted(np.cumsum(groups), n - originals) + 1]
    parent = np.repeat(rng.choice(originals, len(groups), replace=False), groups)[: n - originals]
    place = rng.permutation(n)
    for at in range(0, originals, CHUNK):
        m = min(CHUNK, originals - at)
        cluster = rng.choice(clusters, m, p=sizes / sizes.sum())
        out[place[at : at + m]] = units(0.35**0.5 * centres[cluster] + 0.65**0.5 * draw(m)) @ turn
    for at in range(0, n - originals, CHUNK):
        original = units(out[place[parent[at : at + CHUNK]]].astype(np.float32))
        m = len(original)
        change = units(draw(m) @ turn + units(rng.standard_normal((m, DIMS), dtype=np.float32)))
        change = units(change - (change * original).sum(axis=1, keepdims=True) * original)
        cosine = rng.uniform(0.6, 0.99, (m, 1)).astype(np.float32)
        out[place[originals + at : originals + at + m]] = cosine * original + (1 - cosine**2) ** 0.5 * change
    out.flush()


class Timed(NamedTuple):
    """What a run took, in seconds and GiB beside the mapped file and what was there before, and what it returned."""

    wall: float
    cpu: float
    memory: float
    result: Any


def anonymous() -> float:
    """Memory of this process that is not a mapped file, in GiB (Linux; elsewhere 0)."""
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    return sum(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) / 2**20


def timed(run: Callable[[], Any]) -> Timed:
    """Run it, and look at its memory twenty times a second."""
    before, peak, done = anonymous(), 0.0, threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.05):
            peak = max(peak, anonymous())

    watcher = threading.Thread(target=watch)
    watcher.start()
    wall, cpu = time.perf_counter(), time.process_time()
    result = run()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    done.set()
    watcher.join()
    return Timed(wall, cpu, max(0.0, peak - before), result)


def keys(a: NDArray[np.int64], b: NDArray[np.int64], n: int) -> NDArray[np.int64]:
    """One number for each pair, whatever its order."""
    return np.unique(np.minimum(a, b) * n + np.maximum(a, b))


def exact_block(
    engine: Engine, rows: Rows, block: NDArray[np.int64], floor: float
) -> list[tuple[NDArray[Any], NDArray[Any]]]:
    """The true pairs of some rows with all."""
    return [(i, j) for i, j, _ in join_tiles(engine, rows, block, rows, None, floor, KEEP_ROWS)]


def main() -> int:
    """Run the benchmark; 1 if the join misses its target."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--quick", action="store_true", help="100,000 rows")
    parser.add_argument("--data", type=Path, help="a .npy file; made if missing")
    parser.add_argument("--floor", type=float, default=0.6)
    parser.add_argument("--target", type=float, default=0.995, help="recall to reach")
    parser.add_argument("--block", type=int, default=4096, help="rows that exact search is timed on")
    arguments = parser.parse_args()
    n = 100_000 if arguments.quick else arguments.rows
    with tempfile.TemporaryDirectory() as folder:
        path = arguments.data or Path(folder) / "vectors.npy"
        if not path.exists():
            make(path, n)
        return compare(np.load(path, mmap_mode="r"), arguments.floor, arguments.target, arguments.block)


def compare(vectors: NDArray[Any], floor: float, target: float, block_rows: int) -> int:
    """Measure and print the table."""
    n, dims = vectors.shape
    dots(*np.zeros((2, 1, 1), np.float32), *np.zeros((2, 1), np.int64), np.empty(1, np.float32))  # compiles or loads
    distinct = collapse(vectors)
    rows = distinct.rows
    engine = Engine.choose(None, n * n / 2, dims, floor)
    if engine.torch is None:
        print("torch is not installed: NumPy multiplies")
    block = np.sort(np.random.default_rng(12345).choice(len(rows), min(block_rows, len(rows)), replace=False))
    exact_block(engine, rows, block[:64], floor)
    exact = timed(lambda: exact_block(engine, rows, block, floor))
    found = [np.concatenate(column) for column in zip(*exact.result, strict=True)]
    apart = found[0] != found[1]
    truth = keys(rows.ids[found[0][apart]], rows.ids[found[1][apart]], n)
    scale = n / 2 / len(block)
    rate = len(block) * len(rows) / exact.wall / 1e9
    print(
        f"{n:,} x {dims} {vectors.dtype}, {len(rows):,} distinct; floor {floor}; engine {engine.kind}: "
        f"{rate:.3f} Gpair/s, {2 * rate * dims:.0f} GFLOP/s by wall time"
    )
    print(
        f"exact: {len(block):,} rows against all in {exact.wall:.1f} s ({exact.cpu:.1f} s CPU), scaled by {scale:.1f}"
    )
    print(f"recall is checked on the {len(truth):,} true pairs of these rows\n")
    head = ("", "wall s", "CPU s", "wall ratio", "CPU ratio", "pairs", "recall", "own estimate [95 %]", "GiB")
    print("{:<26}{:>9}{:>9}{:>12}{:>11}{:>12}{:>9}{:>26}{:>6}".format(*head))
    print(f"{'exact tiles (scaled)':<26}{exact.wall * scale:>9.0f}{exact.cpu * scale:>9.0f}{1:>12}{1:>11}", flush=True)
    recalls = []
    for name, overlap in ((f"cells, target {target}", None), ("one cell per vector", Overlap(1, 0.0))):
        settings = Settings(floor, "cells", target, overlap=overlap)
        run = timed(lambda settings=settings: Join(vectors, None, settings).pairs())
        pairs: ScoredPairs = run.result
        recall = float(np.isin(truth, keys(pairs.a, pairs.b, n)).mean())
        own: Recall = pairs.recall
        print(
            f"{name:<26}{run.wall:>9.1f}{run.cpu:>9.1f}{exact.wall * scale / run.wall:>11.1f}x"
            f"{exact.cpu * scale / run.cpu:>10.1f}x{len(pairs):>12,}{recall:>9.4f}"
            f"{f'{own.estimate:.4f} [{own.low:.4f}, {own.high:.4f}]':>26}{run.memory:>6.2f}",
            flush=True,
        )
        recalls.append(recall)
    return 0 if recalls[0] >= target else 1


if __name__ == "__main__":
    sys.exit(main())
