"""What an update costs beside the run that it updates, and whether it gives the same verdicts.

    python benchmarks/update.py --samples 100000 --photos photos.tar

cuts windows of 96 x 96 pixels out of the photos of a tar, writes them as JPEG files into shards, runs over all of them,
then updates that run with 1 % more, of which a part duplicates old ones, twice. With --shards it takes real shards
instead, and compares the verdicts of a run over the first of them and an update with the others with those of one
decision about all.
"""

from __future__ import annotations

import argparse
import io
import tarfile
import tempfile
import time
from pathlib import Path

import numpy as np
import simplejpeg
from PIL import Image

import dedupkit as dk
from dedupkit.clustering import decide, parse_policy, parse_rule
from dedupkit.runfolder import RunFolder
from dedupkit.signals import find_signal, known_signals
from dedupkit.signals.columns import Scanned, read_column
from dedupkit.stages.whole import keep_order

SIDE = 96
PER_SHARD = 10_000


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=100_000, help="images of the old run")
    parser.add_argument("--photos", type=Path, help="tar with the photos that windows are cut from")
    parser.add_argument("--shards", type=Path, nargs="+", help="real shards; the last third is the update")
    parser.add_argument("--workers", type=int, default=None)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if arguments.shards:
            same_verdicts(sorted(arguments.shards), Path(folder), arguments.workers)
        else:
            cost(arguments, Path(folder))


def cost(arguments: argparse.Namespace, folder: Path) -> None:
    """Time the run and its update."""
    photos = read_photos(arguments.photos)
    draw = np.random.default_rng(0)
    old = write_shards(folder / "old", photos, draw, arguments.samples)
    new = write_shards(folder / "new", photos, draw, arguments.samples // 100)
    started = time.perf_counter()
    dk.dedup(str(old), folder / "run", workers=arguments.workers)
    whole = time.perf_counter() - started
    started = time.perf_counter()
    update = dk.update(folder / "run", str(new), folder / "update", workers=arguments.workers)
    part = time.perf_counter() - started
    started = time.perf_counter()
    dk.update(folder / "run", str(new), folder / "again", workers=arguments.workers)
    part = min(part, time.perf_counter() - started)
    print(f"run of {arguments.samples:,}: {whole:.1f} s; update with 1 %: {part:.2f} s, {part / whole:.1%} of it")
    print({name: update.summary[name] for name in ("samples", "keep", "remove", "by_reference")})


def read_photos(path: Path) -> list[np.ndarray]:
    """The photos of a tar, as arrays."""
    with tarfile.open(path) as archive:
        files = [archive.extractfile(member) for member in archive if member.name.endswith((".jpg", ".png"))]
        return [np.asarray(Image.open(io.BytesIO(file.read())).convert("RGB")) for file in files if file]


def write_shards(folder: Path, photos: list[np.ndarray], draw: np.random.Generator, count: int) -> Path:
    """Write windows at random places, so that some overlap and a few are alike."""
    folder.mkdir(parents=True)
    for first in range(0, count, PER_SHARD):
        with tarfile.open(folder / f"{first // PER_SHARD:05d}.tar", "w") as archive:
            for number in range(first, min(count, first + PER_SHARD)):
                photo = photos[draw.integers(len(photos))]
                top, left = (int(draw.integers(side - SIDE)) for side in photo.shape[:2])
                window = np.ascontiguousarray(photo[top : top + SIDE, left : left + SIDE])
                data = simplejpeg.encode_jpeg(window, quality=int(draw.integers(60, 95)))
                info = tarfile.TarInfo(f"{number:08d}.jpg")
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
    return folder


def same_verdicts(shards: list[Path], folder: Path, workers: int | None) -> None:
    """Compare an update with one decision about everything, in which the old kept samples come first."""
    cut = max(1, 2 * len(shards) // 3)
    old, new = [str(path) for path in shards[:cut]], [str(path) for path in shards[cut:]]
    first = dk.dedup(old, folder / "old", workers=workers)
    second = dk.update(first.path, new, folder / "new", workers=workers)
    whole = RunFolder(dk.dedup(old + new, folder / "whole", workers=workers).path)
    config = whole.read_config()
    rule, policy, count = parse_rule(config.rule_expanded, known_signals()), parse_policy(config.keep), len(shards)
    signals = {name: find_signal(name).matches(Scanned(whole, count)) for name in rule.signals}
    readable = read_column(whole, count, "error")["error"].is_null().to_numpy()
    protected = np.zeros(len(readable), bool)
    before = np.array([verdict == "keep" for verdict in first.manifest["verdict"].to_pylist()])
    protected[: len(before)] = before
    order = keep_order(whole, count, policy, len(readable))
    decision = decide(rule, signals, order, readable, protected)
    expected = np.where(~readable, "unreadable", np.where(decision.witness >= 0, "remove", "keep"))
    found = first.manifest["verdict"].to_pylist() + second.manifest["verdict"].to_pylist()
    differing = int((expected != np.array(found)).sum())
    print(
        f"{len(found):,} samples, {second.summary['by_reference'][0]:,} new ones duplicate old ones; {differing} differ"
    )


if __name__ == "__main__":
    main()
