"""How many pairs verification looks at: by nearest neighbours and by a threshold, and how that grows.

python benchmarks/candidates.py                      # made vectors, 5,000 to 80,000 of 512 dimensions
python benchmarks/candidates.py --most 1280000       # up to 1,280,000; 4 GiB of memory
python benchmarks/candidates.py --tasks              # and the same search as the tasks of a large run, one by one
python benchmarks/candidates.py --data SHARDS        # and `thorough` beside `copies` on images of yours

The made vectors are those of benchmarks/cosine.py: 30 % are copies of others. For each size the table says how many
pairs an image has above the floor, how many are candidates by nearest neighbours, the exponent by which these grow from
the size before, what share of the images that have a copy have none in their list, so that the limit may lose the pair
(the rest of a large group follows in later rounds), and what the search takes: processor time, and memory beside the
vectors. Threads of torch that wait for one another count as busy; ``OMP_NUM_THREADS=1`` leaves them out.
"""

from __future__ import annotations

import argparse
import math
import tempfile
import time
from pathlib import Path

import numpy as np
from cosine import make, timed

import dedupkit as dk
from dedupkit.neighbors import cosine_neighbors, cosine_pairs
from dedupkit.neighbors.cosine.list_pieces import COLUMNS
from dedupkit.neighbors.cosine.neighbors import planned_search
from dedupkit.neighbors.cosine.pieces import ASSIGNED, PLANNED, planned
from dedupkit.signals import JoinSettings
from dedupkit.signals.vector_join import list_length
from dedupkit.signals.vector_plan import PlanFiles, PlannedJoin, cell_groups, save, search_settings, write_assigned
from dedupkit.signals.vector_tasks import write_lists, write_nearest, write_pairs

FLOOR, COPY = 0.45, 0.6  # where candidates begin; from here on a pair counts as a copy
SAMPLE = 5_000  # images whose pairs are all known


def in_tasks(vectors: Path, size: int, k: int, seed: int) -> int:
    """Find the candidates as the tasks of a run in many do, one by one; returns their number."""
    home = vectors.parent / "tasks"
    home.mkdir(exist_ok=True)

    def paths(kind: str, names: tuple[str, ...], number: int) -> tuple[str, ...]:
        return tuple(str(home / f"{kind}-{name}-{number}.npy") for name in names)

    how = search_settings(JoinSettings(math.inf, seed=seed, floor=FLOOR))
    distinct, cells, _ = planned_search(np.load(vectors, mmap_mode="r"), k, how)
    plan, arrays = planned(distinct, cells)
    files = PlanFiles(str(vectors), str(home / "leaders.npy"), paths("plan", PLANNED, 0), "")
    save((files.leaders, *files.plan), [np.arange(size), *arrays])
    ranges = [(paths("cells", ASSIGNED, number), rows) for number, rows in enumerate(plan.ranges())]
    join = PlannedJoin(files, plan, how, tuple(made for made, _ in ranges))
    groups = [(paths("near", COLUMNS, number), cells) for number, cells in enumerate(cell_groups(plan))]
    lists = [(paths("list", COLUMNS, number), rows) for number, rows in enumerate(plan.spans())]
    for made, rows in ranges:
        write_assigned(made, join, rows)
    for made, group in groups:
        write_nearest(made, join, k, group)
    for made, rows in lists:
        write_lists(made, join, k, rows, [near for near, _ in groups])
    pairs = [write_pairs(str(home / "pairs.parquet"), join, rows, [made for made, _ in lists]) for _, rows in lists]
    return sum(each["edges"] for each in pairs)


def growth(folder: Path, most: int, seed: int, tasks: bool) -> None:
    """Print a row for each size."""
    heads = (
        f"{'images':>10}{'k':>4}{'above the floor':>17}{'candidates':>12}{'growth':>8}{'lost':>9}{'CPU s':>8}{'GiB':>7}"
    )
    print(heads + (f"{'in tasks':>10}{'CPU s':>8}{'GiB':>7}" if tasks else ""))
    size, before = 5_000, (0, 0)
    while size <= most:
        path = folder / f"{size}.npy"
        make(path, size, seed)
        vectors = np.load(path, mmap_mode="r")
        k = list_length(size, 0.99)
        took = timed(lambda k=k, vectors=vectors: cosine_neighbors(vectors, k, FLOOR, seed=seed))
        found = took.result
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
        print(f"{size:>10,}{k:>4}{above:>17.1f}{len(found) / size:>12.2f}{slope:>8.2f}{lost:>9.4%}", end="")
        print(f"{took.cpu:>8.1f}{took.memory:>7.2f}", end="" if tasks else "\n", flush=True)
        if tasks:
            took = timed(lambda k=k, path=path, size=size: in_tasks(path, size, k, seed))
            print(f"{took.result / size:>10.2f}{took.cpu:>8.1f}{took.memory:>7.2f}", flush=True)
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
    parser.add_argument("--tasks", action="store_true", help="search in tasks too")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        growth(Path(folder), options.most, options.seed, options.tasks)
        if options.data:
            images(options.data, Path(folder), options.workers)


if __name__ == "__main__":
    main()
