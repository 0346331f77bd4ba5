"""Time of a run with Ray on one node against the local engine, Ray's own start not counted.

python benchmarks/engines.py [--images 4000] [--workers 2]
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
import ray
from PIL import Image

import dedupkit as dk


def shards(folder: Path, images: int, each: int = 250) -> None:
    """Write tars of random images that no two are alike."""
    random = np.random.default_rng(0)
    for shard in range(-(-images // each)):
        with tarfile.open(folder / f"{shard:05d}.tar", "w") as archive:
            for number in range(min(each, images - shard * each)):
                pixels = random.integers(0, 256, (8, 8, 3), np.uint8)
                buffer = io.BytesIO()
                Image.fromarray(pixels).resize((256, 256), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=90)
                member = tarfile.TarInfo(f"{shard:05d}{number:04d}.jpg")
                member.size = buffer.tell()
                buffer.seek(0)
                archive.addfile(member, buffer)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--images", type=int, default=4000)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        (folder / "in").mkdir()
        shards(folder / "in", given.images)
        ray.init(num_cpus=given.workers, include_dashboard=False, logging_level="ERROR")
        took: dict[str, list[float]] = {"local": [], "ray": []}
        for repeat in range(3):
            for engine in took:
                began = time.monotonic()
                dk.dedup(folder / "in", folder / f"{engine}-{repeat}", engine=engine, workers=given.workers)
                took[engine].append(time.monotonic() - began)
        best = {engine: min(times) for engine, times in took.items()}
        print({engine: [round(one, 2) for one in times] for engine, times in took.items()})
        ratio = best["ray"] / best["local"]
        print(f"{given.images:,} images, {given.workers} workers: Ray takes {ratio:.2f} times as long")


if __name__ == "__main__":
    main()
