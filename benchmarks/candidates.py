"""How many pairs verification looks at: by nearest neighbours and by a threshold, and how that grows.

python benchmarks/candidates.py                      # made vectors, 5,000 to 80,000 of 512 dimensions
python benchmarks/candidates.py --most 1280000       # up to 1,280,000; 4 GiB of memory
python benchmarks/candidates.py --data SHARDS        # and `thorough` with `lite` beside `copies` on images of yours

The made vectors are those of benchmarks/cosine.py: 30 % are copies of others. For each size the table says how many
pairs an image has above the floor, how many are candidates by nearest neighbours, the exponent by which these grow from
the size before, what share of the images that have a copy have none in their list, so that the limit may lose the pair
(the rest of a large group follows in later rounds), and how long the search takes.
"""

from __future__ import annotations

import argparse
import math
import tempfile
import time
from pathlib import Path

import numpy as np
from cosine import make

import dedupkit as dk
from dedupkit.neighbors import cosine_neighbors, cosine_pairs
from dedupkit.signals.vector_join import list_length

FLOOR, COPY = 0.45, 0.6  # where candidates begin; from here on a pair counts as a copy
SAMPLE = 5_000  # images whose pairs are all known


def growth(folder: Path, most: int, seed: int) -> None:
    """Print a row for each size."""
    print(f"{'images':>10}{'k':>4}{'above the floor':>17}{'candidates':>12}{'growth':>8}{'lost':>9}{'seconds':>9}")
    size, before = 5_000, (0, 0)
    while size <= most:
        path = folder / f"{size}.npy"
        make(path, size, seed)
        vectors = np.load(path, mmap_mode="r")
        k = list_length(size, 0.99)
        start = time.perf_counter()
        found = cosine_neighbors(vectors, k, FLOOR)
        seconds = time.perf_counter() - start
        sample = np.random.default_rng(seed).choice(size, min(size, SAMPLE), replace=False)
        pairs = cosine_pairs(np.asarray(vectors[sample]), FLOOR, vectors, method="exact")
        apart = sample[pairs.a] != pairs.b
        above = apart.sum() / len(sample) / 2
        copies = apart & (pairs.score >= COPY)
        low, high = np.minimum(sample[pairs.a], pairs.b), np.maximum(sample[pairs.a], pairs.b)
        listed = np.isin(low[copies] * size + high[copies], found.a * size + found.b)
        image = pairs.a[copies]
        lost = 1 - len(np.unique(image[listed])) / len(np.unique(image))
        slope = math.log(len(found) / before[1]) / math.log(size / before[0]) if before[1] else math.nan
        print(f"{size:>10,}{k:>4}{above:>17.1f}{len(found) / size:>12.2f}{slope:>8.2f}{lost:>9.4%}{seconds:>9.1f}")
        before, size = (size, len(found)), size * 4


def images(data: str, folder: Path, workers: int | None) -> None:
    """Print what `thorough` looks at, and its time beside that of `copies`."""
    seconds = {}
    for rule in ("copies", "thorough"):
        start = time.perf_counter()
        run = dk.dedup(data, folder / rule, rule=rule, workers=workers)
        seconds[rule] = time.perf_counter() - start
    seen, samples = run.summary["verification"], run.summary["samples"]
    print(f"\n{samples:,} samples: copies {seconds['copies']:.1f} s, thorough {seconds['thorough']:.1f} s", end="")
    print(f" ({seconds['thorough'] / seconds['copies']:.1f} times)")
    print(
        f"candidates an image {seen['candidates'] / samples:.2f}, looked at {seen['looked_at'] / samples:.2f}: {seen}"
    )
    print(f"removed {run.summary['remove']:,}: {run.summary['reasons']}")


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--most", type=int, default=80_000)
    parser.add_argument("--data")
    parser.add_argument("--workers", type=int)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        growth(Path(folder), options.most, options.seed)
        if options.data:
            images(options.data, Path(folder), options.workers)


if __name__ == "__main__":
    main()
