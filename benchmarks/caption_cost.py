"""What `--captions pair` adds to the time of a run: the same shards with and without it.

python benchmarks/caption_cost.py                          # 1,000,000 JPEGs of 96x96 pixels, some 5 GB
python benchmarks/caption_cost.py --images 100000

The shards are made first: of ten samples seven have an image of their own, three an earlier one at another quality; two
of these three have its caption too, half of them with another last word. A caption has 11 words, drawn from 50,000 by
Zipf's law. One shard is run beforehand in each mode, so that nothing is compiled while the clock runs.
"""

from __future__ import annotations

import argparse
import io
import shutil
import tarfile
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import simplejpeg
from PIL import Image

import dedupkit as dk

EACH, WORDS, LENGTH = 10_000, 50_000, 11


def shard(number: int, folder: Path, images: int) -> None:
    """Write one tar; an earlier image is one of its own."""
    random = np.random.default_rng(number)
    kept: list[tuple[np.ndarray, list[int]]] = []
    with tarfile.open(folder / f"{number:05d}.tar", "w") as archive:
        for place in range(min(EACH, images - number * EACH)):
            words = list(np.minimum(random.zipf(1.3, LENGTH), WORDS))
            quality = 90
            if place % 10 < 7:
                small = Image.fromarray(random.integers(0, 256, (8, 8, 3), np.uint8))
                pixels = np.asarray(small.resize((96, 96), Image.Resampling.BICUBIC))
                kept.append((pixels, words))
            else:
                pixels, before = kept[random.integers(len(kept))]
                quality = 75
                if place % 10 < 9:
                    words = [*before[:-1], words[-1]] if place % 20 < 10 else before
            caption = " ".join(f"w{word}" for word in words)
            key = f"{number * EACH + place:09d}"
            for name, data in (("jpg", simplejpeg.encode_jpeg(pixels, quality)), ("txt", caption.encode())):
                member = tarfile.TarInfo(f"{key}.{name}")
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))


def main() -> None:
    """Make the shards, run in both modes in turn, print the times and the ratio of the best."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1_000_000)
    parser.add_argument("--workers", type=int)
    parser.add_argument("--repeat", type=int, default=1)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        (folder / "in").mkdir()
        numbers = range(-(-given.images // EACH))
        with ProcessPoolExecutor(given.workers) as pool:
            list(pool.map(partial(shard, folder=folder / "in", images=given.images), numbers))
        took: dict[str, list[float]] = {"ignore": [], "pair": []}
        for mode in took:
            dk.dedup(folder / "in" / "00000.tar", folder / f"first-{mode}", captions=mode, workers=given.workers)
        for _ in range(given.repeat):
            for mode in took:
                shutil.rmtree(folder / mode, ignore_errors=True)
                began = time.perf_counter()
                run = dk.dedup(folder / "in", folder / mode, captions=mode, workers=given.workers)
                took[mode].append(time.perf_counter() - began)
                counts = run.summary
                print(f"{mode:<8}{took[mode][-1]:>8.1f} s   kept {counts['keep']:,}, removed {counts['remove']:,}")
    ratio = min(took["pair"]) / min(took["ignore"])
    print(f"{given.images:,} images: --captions pair takes {ratio:.2f} times as long as the run without")


if __name__ == "__main__":
    main()
