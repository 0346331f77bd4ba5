"""Time of giving the command of a finished run again, where the run has many shards.

python benchmarks/resume.py [--shards 10000] [--workers 2]
"""

from __future__ import annotations

import argparse
import io
import os
import tarfile
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

import dedupkit as dk


def write_shards(folder: Path, count: int) -> None:
    """Write tars of one small random image each."""
    random = np.random.default_rng(0)
    folder.mkdir()
    for shard in range(count):
        pixels = random.integers(0, 256, (8, 8, 3), np.uint8)
        data = io.BytesIO()
        Image.fromarray(pixels).resize((32, 32), Image.Resampling.BICUBIC).save(data, "JPEG")
        with tarfile.open(folder / f"{shard:05d}.tar", "w") as archive:
            member = tarfile.TarInfo("image.jpg")
            member.size = data.tell()
            data.seek(0)
            archive.addfile(member, data)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shards", type=int, default=10_000)
    parser.add_argument("--workers", type=int, default=None)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        write_shards(Path(folder, "in"), given.shards)
        for what in ("first", "again", "again"):
            began, before = time.perf_counter(), os.times()
            dk.dedup(str(Path(folder, "in")), Path(folder, "run"), workers=given.workers)
            took, after = time.perf_counter() - began, os.times()
            processor = after.user + after.system - before.user - before.system
            print(f"{what}: {took:.2f} s, of which this process computed {processor:.2f} s")


if __name__ == "__main__":
    main()
