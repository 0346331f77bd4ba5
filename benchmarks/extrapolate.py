"""What a run of 10 million to 5 billion samples would take, from what smaller ones take on this machine.

    python benchmarks/extrapolate.py [--rows 200000 800000] [--images 300] [--side 256]

Measured: the scan of a tar of random JPEGs; the join of so many random PDQ hashes, of which a tenth are near copies;
deciding about so many rows, of which a tenth are exact copies, and writing the manifest. Each measurement has a process
of its own and counts the processor time of all its threads, so that other work of the machine changes it little. From
the two sizes follow the growth with the number of rows (an exponent, which is not below that of larger sizes that were
measured once; memory is a straight line), and from these the table. It says nothing of networks and disks, of
verification, whose time depends on how many pairs there are, or of embedders.
"""

from __future__ import annotations

import argparse
import io
import json
import math
import resource
import subprocess
import sys
import tarfile
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from made_rows import write_rows
from PIL import Image

from dedupkit.clustering import DEFAULT_POLICY, parse_policy, parse_rule
from dedupkit.engine import Task, ThisProcess, cache_key
from dedupkit.neighbors import iter_dihedral_pairs
from dedupkit.runfolder import RunConfig, RunFolder
from dedupkit.signals import known_signals
from dedupkit.sources import find_shards
from dedupkit.stages.decide import decide_and_write
from dedupkit.stages.scan import scan_shard

SIZES = (10**7, 10**8, 10**9, 5 * 10**9)
MOST_ROWS = 2**31  # that one process can number
PER_SHARD = 50_000
LEAST = {"join": 1.25, "decide": 1.0}
"""Exponents with which time grows at least: of the join as ``hamming.py --large`` measured it from 1 to 10 million."""


def fabricated(place: Path, rows: int) -> tuple[RunFolder, RunConfig]:
    """A scanned run of random hashes, a tenth of them those of an earlier row."""
    folder = RunFolder(place)
    shards = tuple(f"shard{number}" for number in range(-(-rows // PER_SHARD)))
    config = RunConfig(shards, shards, "exact", "exact", DEFAULT_POLICY)
    folder.write_config(config)
    tasks = []
    for number in range(len(shards)):
        part, output = (number * PER_SHARD, min(rows, (number + 1) * PER_SHARD)), str(folder.samples(number))
        call = partial(write_samples, output, part)
        tasks.append(Task("scan", f"{number:05d}", call, cache_key(part), "", (output,)))
    ThisProcess().run(tasks, folder.path)
    return folder, config


def write_samples(path: str, part: tuple[int, int]) -> dict[str, Any]:
    """Write the rows of one shard."""
    draw, count = np.random.default_rng(part[0]), part[1] - part[0]
    hashes = draw.integers(0, 256, (2, count, 32), dtype=np.uint8)
    copies = draw.choice(count, count // 10, replace=False)
    hashes[:, copies] = hashes[:, draw.integers(0, count, len(copies))]
    columns = {
        "key": [f"{row:010d}" for row in range(*part)],
        "caption": [f"a photo of number {row % 5000}, taken in the open" for row in range(*part)],
        "url": [f"https://example.org/images/{row}.jpg" for row in range(*part)],
    }
    return write_rows(path, hashes, columns)


def measure(what: str, count: int, side: int, place: Path) -> dict[str, float]:
    """One measurement: ``seconds`` of processor time, the ``peak`` of memory, and ``disk``, in bytes."""
    disk = 0
    if what == "scan":
        write_tar(place / "images.tar", count, side)
        (shard,) = find_shards(str(place / "images.tar"))
        scan_shard(shard, str(place / "samples.parquet"), ())  # loads and compiles
        began = time.process_time()
        scan_shard(shard, str(place / "samples.parquet"), ())
    elif what == "join":
        draw = np.random.default_rng(0)
        hashes = draw.integers(0, 256, (count, 32), dtype=np.uint8)
        near = draw.choice(count, count // 10, replace=False)
        hashes[near] = hashes[draw.integers(0, count, len(near))]
        hashes[near, 0] ^= 7
        list(iter_dihedral_pairs(hashes[:50_000], 31, workers=1))  # loads and compiles
        began = time.process_time()
        for _ in iter_dihedral_pairs(hashes, 31, workers=1):
            pass
    else:
        rule, policy = parse_rule("exact", known_signals()), parse_policy(DEFAULT_POLICY)
        decide_and_write(*fabricated(place / "small", 1000), rule, policy)  # loads and compiles
        folder, config = fabricated(place / "run", count)
        began = time.process_time()
        decide_and_write(folder, config, rule, policy)
        disk = sum(path.stat().st_size for path in folder.path.rglob("*") if path.is_file())
    seconds = time.process_time() - began
    return {"seconds": seconds, "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024, "disk": disk}


def write_tar(path: Path, count: int, side: int) -> None:
    """Write random JPEGs of ``side`` pixels."""
    draw = np.random.default_rng(0)
    with tarfile.open(path, "w") as archive:
        for number in range(count):
            data = io.BytesIO()
            small = Image.fromarray(draw.integers(0, 256, (8, 8, 3), np.uint8))
            small.resize((side, side), Image.Resampling.BICUBIC).save(data, "JPEG", quality=90)
            member = tarfile.TarInfo(f"{number:06d}.jpg")
            member.size = data.tell()
            data.seek(0)
            archive.addfile(member, data)


def in_own_process(what: str, count: int, side: int) -> dict[str, float]:
    """As :func:`measure`, in a process of its own."""
    with tempfile.TemporaryDirectory() as place:
        arguments = [sys.executable, __file__, "--measure", what, "--images", str(count), "--side", str(side)]
        done = subprocess.run([*arguments, "--place", place], capture_output=True, text=True, check=True)
    return dict(json.loads(done.stdout))


def grown(
    small: dict[str, float], large: dict[str, float], rows: tuple[int, int], to: int, least: float
) -> tuple[float, float]:
    """Seconds and bytes of memory for so many rows; time grows at least with the exponent ``least``."""
    exponent = max(least, math.log(large["seconds"] / small["seconds"]) / math.log(rows[1] / rows[0]))
    each = (large["peak"] - small["peak"]) / (rows[1] - rows[0])
    return large["seconds"] * (to / rows[1]) ** exponent, large["peak"] + each * (to - rows[1])


def main() -> None:
    """Measure and print the table, as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs=2, default=(200_000, 800_000), help="the two sizes")
    parser.add_argument("--images", type=int, default=300)
    parser.add_argument("--side", type=int, default=256, help="width and height of the images in pixels")
    parser.add_argument("--measure", choices=("scan", "join", "decide"), help=argparse.SUPPRESS)
    parser.add_argument("--place", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.measure:
        print(json.dumps(measure(given.measure, given.images, given.side, given.place)))
        return
    rows = (given.rows[0], given.rows[1])
    scan = in_own_process("scan", given.images, given.side)
    taken = {what: [in_own_process(what, count, given.side) for count in rows] for what in ("join", "decide")}
    each = scan["seconds"] / given.images
    disk = taken["decide"][1]["disk"] / rows[1]
    print(f"measured: scan {1e6 * each:.0f} µs an image of {given.side} pixels ({given.images} images)")
    for what, (small, large) in taken.items():
        shown = [f"{one['seconds']:.2f} s, {one['peak'] / 2**20:.0f} MiB" for one in (small, large)]
        exponent = math.log(large["seconds"] / small["seconds"]) / math.log(rows[1] / rows[0])
        print(f"measured: {what} {rows[0]:,} rows {shown[0]}; {rows[1]:,} rows {shown[1]}; exponent {exponent:.2f}")
    print(f"measured: {disk:.0f} bytes a row on disk\n")
    print("| samples | scan, core-hours | join, core-hours | join, GiB | decide, core-hours | decide, GiB | disk, GB |")
    print("|---|---|---|---|---|---|---|")
    for size in SIZES:
        cells = [f"{each * size / 3600:,.1f}"]
        for what, (small, large) in taken.items():
            seconds, peak = grown(small, large, rows, size, LEAST[what])
            too_many = size >= MOST_ROWS
            cells += ["–", "–"] if too_many else [f"{seconds / 3600:,.2f}", f"{peak / 2**30:,.1f}"]
        print(f"| {size:,} | {' | '.join(cells)} | {disk * size / 1e9:,.0f} |")


if __name__ == "__main__":
    main()
