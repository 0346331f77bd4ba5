"""Time of a run with Ray on one node against the local engine, Ray's own start not counted.

python benchmarks/engines.py [--images 4000] [--side 256] [--workers 2] [--runs 3]

The runs of the two engines take turns, and each pair gives a ratio, so that other work of the machine meets both.
"""

from __future__ import annotations

import argparse
import io
import os
import tarfile
import tempfile
import time
from pathlib import Path
from statistics import median

os.environ.setdefault("RAY_worker_niceness", "0")  # 15 otherwise: other programs would go first

import numpy as np
import ray
from PIL import Image

import dedupkit as dk


def shards(folder: Path, images: int, side: int, each: int = 250) -> None:
    """Write tars of random images of ``side`` pixels that no two are alike."""
    random = np.random.default_rng(0)
    for shard in range(-(-images // each)):
        with tarfile.open(folder / f"{shard:05d}.tar", "w") as archive:
            for number in range(min(each, images - shard * each)):
                pixels = random.integers(0, 256, (8, 8, 3), np.uint8)
                buffer = io.BytesIO()
                Image.fromarray(pixels).resize((side, side), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=90)
                member = tarfile.TarInfo(f"{shard:05d}{number:04d}.jpg")
                member.size = buffer.tell()
                buffer.seek(0)
                archive.addfile(member, buffer)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--images", type=int, default=4000)
    parser.add_argument("--side", type=int, default=256, help="width and height of the images in pixels")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--runs", type=int, default=3)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        (folder / "in").mkdir()
        shards(folder / "in", given.images, given.side)
        ray.init(num_cpus=given.workers, include_dashboard=False, logging_level="ERROR")
        took: dict[str, list[float]] = {"local": [], "ray": []}
        for repeat in range(given.runs):
            for engine in took:
                began = time.monotonic()
                dk.dedup(folder / "in", folder / f"{engine}-{repeat}", engine=engine, workers=given.workers)
                took[engine].append(time.monotonic() - began)
        ratios = [ray_took / local_took for ray_took, local_took in zip(took["ray"], took["local"], strict=True)]
        print({engine: [round(one, 2) for one in times] for engine, times in took.items()})
        print(f"{given.images:,} images, {given.workers} workers: Ray takes {median(ratios):.2f} times as long")


if __name__ == "__main__":
    main()
