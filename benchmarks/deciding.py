"""Deciding at scale: 10,000,000 samples and 30,000,000 edges, from signals in memory to every verdict.

    python benchmarks/deciding.py [--samples 10000000] [--edges 30000000]

Targets: under a minute and under 4 GiB for the process. The graph is a random one with the skew of web data: group
sizes fall off as a power law, and a tenth of the samples are byte copies.
"""

from __future__ import annotations

import argparse
import resource
import time

import numpy as np

from dedupkit.clustering import Matches, decide, parse_policy, parse_rule


def make(samples: int, edges: int, seed: int = 0) -> tuple[Matches, Matches]:
    """Signals ``exact`` and ``pdq`` over some samples."""
    draw = np.random.default_rng(seed)
    first = np.arange(samples, dtype=np.int32)
    copies = draw.choice(samples, samples // 10, replace=False)
    originals = (copies * draw.power(3, len(copies))).astype(np.int32)
    first[copies] = first[originals]
    while not np.array_equal(first[first], first):
        first = first[first]
    first = np.minimum(first, np.arange(samples, dtype=np.int32))
    leaders = np.flatnonzero(first == np.arange(samples))
    # Neighbours in a shuffled order are neighbours in the graph, so that dense groups form.
    position = (len(leaders) * draw.power(0.7, edges)).astype(np.int64)
    step = draw.zipf(1.8, edges).clip(1, 1000)
    left, right = leaders[position], leaders[np.minimum(position + step, len(leaders) - 1)]
    apart = left != right
    a = np.minimum(left[apart], right[apart]).astype(np.int32)
    b = np.maximum(left[apart], right[apart]).astype(np.int32)
    score = draw.integers(0, 32, len(a)).astype(np.float32)
    return Matches.identity(first, "bytes"), Matches(first, a, b, score)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=10_000_000)
    parser.add_argument("--edges", type=int, default=30_000_000)
    options = parser.parse_args()
    kinds = {"exact": "identity", "pdq": "distance"}
    warm_exact, warm_pdq = make(1000, 3000)
    rule = parse_rule("exact or pdq<=31", kinds)
    decide(rule, {"exact": warm_exact, "pdq": warm_pdq}, np.arange(1000), np.ones(1000, bool))

    exact, pdq = make(options.samples, options.edges)
    draw = np.random.default_rng(1)
    columns = {"pixels": draw.integers(1e4, 1e6, options.samples), "nbytes": draw.integers(1e3, 1e6, options.samples)}
    readable = np.ones(options.samples, bool)
    started = time.perf_counter()
    order = parse_policy("-pixels, -nbytes, sample").order(columns, options.samples)
    ordered = time.perf_counter()
    decision = decide(rule, {"exact": exact, "pdq": pdq}, order, readable)
    finished = time.perf_counter()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"{options.samples:,} samples, {len(pdq.a):,} edges, {decision.vertices:,} vertices after twins collapsed")
    print(f"removed {np.count_nonzero(decision.witness >= 0):,}, groups {len(np.unique(decision.group)):,}")
    print(f"order by the policy   {ordered - started:6.1f} s")
    print(f"decide                {finished - ordered:6.1f} s")
    print(f"together              {finished - started:6.1f} s   (target: under 60 s)")
    print(f"peak memory           {peak:6.2f} GiB (target: under 4 GiB; the input takes part of it)")


if __name__ == "__main__":
    main()
