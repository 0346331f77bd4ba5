"""Deciding at scale: a run folder with as many samples and edges as you like goes in, its manifest and groups come out.

    python benchmarks/deciding.py [--samples 10000000] [--edges 30000000] [--workers 2] [--folder DIR]

Target: 100,000,000 samples and 300,000,000 edges in 10 minutes and 6 GiB. No image is behind the samples: the folder is
written as a scan and a join would have left it. Group sizes fall off as a power law, one hundredth of all samples is a
single component, a tenth are byte copies, and the members of a group lie far apart. What is measured runs in a process
of its own; memory is that of this process and of its workers together.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from dedupkit.engine.marker import write_marker
from dedupkit.runfolder import RunConfig, RunFolder
from dedupkit.signals.columns import Edges, write_edges
from dedupkit.stages.scan import sample_schema
from dedupkit.store import write_table

Ints = NDArray[np.int64]

RULE = "exact or pdq<=31"
KEEP = "-pixels, -nbytes, sample"
_SHARD = 100_000
_BLOCK = 1 << 20
_COPIES = 0.16  # share of the further members of a group that are byte copies


class Web:
    """A graph of samples: they stand in a line, group by group, and their numbers are scattered over it.

    Args:
        samples: How many.
        edges: How many pairs under PDQ, about.
    """

    def __init__(self, samples: int, edges: int) -> None:
        self.samples, self.edges = samples, edges
        self._step = next(step for step in range(int(samples * 0.618) | 1, 2 * samples) if np.gcd(step, samples) == 1)
        self._back = pow(self._step, -1, samples)
        self._blocks = [0, max(samples // 100, 1)]
        while self._blocks[-1] < samples:
            self._blocks.append(min(self._blocks[-1] + _BLOCK, samples))
        self.content = np.zeros(samples, np.int32)
        """For each place in the line the place of the first sample with the same bytes."""

    def places(self, low: int, high: int) -> Ints:
        """The places of the samples of a range."""
        return np.arange(low, high) * self._back % self.samples

    def pairs(self) -> Iterator[Edges]:
        """Edges between the first samples of distinct contents; fills ``content`` on the way."""
        wide = self._neighbours()
        for number, (low, high) in enumerate(pairwise(self._blocks)):
            draw = np.random.default_rng([1, number])
            starts = np.zeros(high - low, bool)
            ends = np.cumsum(_sizes(draw, high - low)) if number else np.zeros(1, np.int64)
            starts[[0, *ends[ends < high - low]]] = True
            copy = ~starts & (draw.random(high - low) < _COPIES)
            content = np.flatnonzero(~copy)
            self.content[low:high] = low + content[np.cumsum(~copy) - 1]
            first = np.minimum.reduceat(np.arange(low, high) * self._step % self.samples, content)
            begins = np.flatnonzero(starts[content])
            nth = np.arange(len(content)) - np.repeat(begins, np.diff(np.append(begins, len(content))))
            for far in range(1, wide + 1):
                mine = np.flatnonzero(nth >= far)
                yield first[mine], first[mine - far], draw.integers(0, 32, len(mine)).astype(np.float32)

    def _neighbours(self) -> int:
        """How many contents before it in its group each one has an edge to, for as many edges as are wanted."""
        sizes = _sizes(np.random.default_rng(0), _BLOCK)
        contents, found, wide = sizes * (1 - _COPIES), 0.0, 0
        while found < self.edges and wide < 1000:
            wide += 1
            found += self.samples * (0.99 * np.maximum(contents - wide, 0).sum() / sizes.sum() + 0.01 * (1 - _COPIES))
        return wide


def _sizes(draw: np.random.Generator, most: int) -> Ints:
    """Sizes of groups, more than enough for ``most`` samples."""
    return draw.zipf(2.5, most).clip(1, most)


def make(folder: RunFolder, web: Web, captions: bool) -> RunConfig:
    """Write the run folder; returns what was asked of it."""
    shards = [f"{number:05d}.tar" for number in range(-(-web.samples // _SHARD))]
    config = RunConfig(tuple(shards), tuple(shards), RULE, RULE, KEEP)
    folder.path.mkdir(parents=True, exist_ok=True)
    folder.write_config(config)
    edges = write_edges(folder.edges("pdq"), web.pairs())
    write_marker(
        folder.marker("match", "pdq"), "", {"bound": 31, "edges": edges}, folder.path, [folder.edges("pdq").parent]
    )
    for number in range(len(shards)):
        low, high = number * _SHARD, min((number + 1) * _SHARD, web.samples)
        write_table(folder.samples(number), _samples(web, low, high, captions))
        write_marker(folder.scan_marker(number), "", {"samples": high - low}, folder.path, [folder.samples(number)])
    return config


def _samples(web: Web, low: int, high: int, captions: bool) -> pa.Table:
    draw, count = np.random.default_rng([2, low]), high - low
    content = web.content[web.places(low, high)].astype(np.uint64)
    columns: dict[str, Any] = {
        "key": pc.utf8_lpad(pa.array(np.arange(low, high)).cast(pa.string()), 9, "0"),
        "sha256": _digests(content, 1),
        "pdq": _digests(content, 2),
        "pdq_quality": np.full(count, 100, np.int16),
        "width": draw.integers(100, 1000, count, np.int32),
        "height": draw.integers(100, 1000, count, np.int32),
        "nbytes": draw.integers(1000, 1000000, count),
    }
    if captions:
        words = pa.array(draw.integers(0, count, count)).cast(pa.string())
        columns["caption"] = pc.binary_join_element_wise("a photo of the", words, "in the evening light", " ")
    schema = sample_schema([])
    return pa.table(
        [pa.array(columns[f.name], f.type) if f.name in columns else pa.nulls(count, f.type) for f in schema], schema
    )


def _digests(content: NDArray[np.uint64], salt: int) -> pa.Array:
    """32 bytes for each content, the same for equal ones (splitmix64)."""
    words = (content[:, None] * np.uint64(4) + np.arange(4, dtype=np.uint64) + np.uint64(salt << 40)) * np.uint64(
        0x9E3779B97F4A7C15
    )
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        words = (words ^ (words >> np.uint64(shift))) * np.uint64(factor)
    return pa.FixedSizeBinaryArray.from_buffers(pa.binary(32), len(content), [None, pa.py_buffer(words.tobytes())])


def decide(folder: RunFolder, workers: int) -> None:
    """What is measured; prints time and counts."""
    from dedupkit.clustering import parse_policy, parse_rule
    from dedupkit.engine import ThisProcess, Where, make_engine
    from dedupkit.signals import known_signals
    from dedupkit.stages.decide import decide_run

    rule, policy, config = parse_rule(RULE, known_signals([])), parse_policy(KEEP), folder.read_config()
    with make_engine(Where("local", workers, None), folder.path) if workers else ThisProcess() as engine:
        began = time.perf_counter()
        verdicts = decide_run(folder, config, rule, policy, engine=engine)
        decided = time.perf_counter()
        summary = verdicts.write()
        written = time.perf_counter()
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    used = sum(usage.ru_utime + usage.ru_stime for usage in usages)
    print(f"decide              {decided - began:7.1f} s")
    print(f"write the tables    {written - decided:7.1f} s")
    print(f"processor time      {used:7.1f} s, start included")
    counts = {name: summary[name] for name in ("samples", "edges", "keep", "remove", "groups", "largest_group")}
    print(", ".join(f"{name} {count:,}" for name, count in counts.items()))


def watch(process: subprocess.Popen[bytes]) -> tuple[int, int]:
    """Peak resident memory in bytes of a process and its descendants together until it ends, and of it alone."""
    together = alone = 0
    while process.poll() is None:
        held = [_resident(pid) for pid in (process.pid, *_descendants(process.pid))]
        together, alone = max(together, sum(held)), max(alone, held[0])
        time.sleep(0.05)
    return together, alone


def _resident(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * resource.getpagesize()
    except (OSError, IndexError):  # it has ended
        return 0


def _descendants(pid: int) -> list[int]:
    try:
        tasks = list(Path(f"/proc/{pid}/task").iterdir())
        children = [int(child) for task in tasks for child in (task / "children").read_text().split()]
    except OSError:
        return []
    return [one for child in children for one in (child, *_descendants(child))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=10_000_000)
    parser.add_argument("--edges", type=int, default=30_000_000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--captions", action="store_true", help="give every sample a caption")
    parser.add_argument("--folder", type=Path, help="folder for the run, which stays and serves the next time")
    parser.add_argument("--measured", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = RunFolder(options.folder or Path(temporary, "run"))
        if options.measured:
            decide(folder, options.workers)
            return
        if not folder.config.exists():
            began = time.perf_counter()
            make(folder, Web(options.samples, options.edges), options.captions)
            print(f"the run folder was made in {time.perf_counter() - began:.0f} s")
        command = [sys.executable, __file__, "--measured", "--folder", str(folder.path)]
        process = subprocess.Popen([*command, "--workers", str(options.workers)])
        together, alone = watch(process)
        print(f"peak memory         {together / 2**30:7.2f} GiB, of the main process {alone / 2**20:,.0f} MiB")
        sys.exit(process.returncode)


if __name__ == "__main__":
    main()
