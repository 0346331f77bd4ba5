"""What a rule finds and costs on sets of growing size: the public command, from shards to verdicts.

python benchmarks/growth.py --photos FOLDER...                          # 5,000, 15,000 and 50,000 images, `thorough`
python benchmarks/growth.py --photos FOLDER --sizes 5000 --rules exact copies crops thorough
python benchmarks/growth.py --photos FOLDER... --sizes 100000 --fit --copies 0.72 --folder DIR

Every photo is cut into four windows that share no pixel, each scaled to a long side of 96 to 256 pixels; three in ten
images are edits of a window of the set, with the transformations of `dedupkit calibrate`, the rest is one window each.
With `--fit` a photo gives as many windows of 96 to 191 pixels a side as it has room for, and they are not scaled.
A photo gives all its windows, so a larger set has more photos, and as many copies an image. Recall is the share of
the removable copies that were removed, precision the share of the removals whose witness shows the same window. Photos
that occur twice in the folders count as mistakes.

Time is the processor's, of the command and its workers, start-up included, so that other programs disturb it little; a
small run beforehand compiles what is compiled once. Memory is the
largest sum, seen twice a second, of the proportional share of all its processes. The last line carries the growth of
the last step on to a million images: that is extrapolated, not measured. With `--folder` the sets and the runs
stay, and a run that was stopped goes on; its time is then that of the last command alone. `SIZE.json` beside a set says
what it was made of, and a set of other photos, seed, copies or windows is refused.
"""

from __future__ import annotations

import argparse
import io
import json
import math
import os
import random
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import pyarrow.parquet as pq
from PIL import Image

from dedupkit.images.transformations import TRANSFORMATIONS
from dedupkit.store import digest_of, read_json, write_json

COPIES, EACH = 0.3, 1000
WARM_UP = 40  # images of a run beforehand, so that nothing is compiled while the processor's time is taken
LEAST = 96  # pixels of a window
MILLION = 1_000_000
EDITS = [edit for edit in TRANSFORMATIONS if not edit.name.startswith(("flipped", "rotated-90", "squared", "quarter"))]


def grid_of(size: tuple[int, int], fit: bool) -> tuple[int, int]:
    """How many windows of a photo of that size lie side by side and one below the other."""
    return (size[0] // LEAST, size[1] // LEAST) if fit else (2, 2)


def windows(path: Path, fit: bool = False) -> Iterator[Image.Image]:
    """The windows of a photo."""
    chance = random.Random(path.name)
    photo = Image.open(path).convert("RGB")
    columns, rows = grid_of(photo.size, fit)
    width, height = photo.width // columns, photo.height // rows
    for place in range(columns * rows):
        left, top = place % columns * width, place // columns * height
        window = photo.crop((left, top, left + width, top + height))
        scale = 1.0 if fit else min(1.0, chance.randint(LEAST, 256) / max(window.size))
        yield window.resize(tuple(max(64, round(side * scale)) for side in window.size), Image.Resampling.LANCZOS)


def write_shard(
    number: int, photos: list[Path], images: int, folder: Path, seed: int, copies: float, fit: bool
) -> None:
    """Write one tar; edits are of its own windows."""
    chance = random.Random(f"{seed} {number}")
    bases = round(images * (1 - copies))
    made: list[tuple[str, bytes]] = []
    kept: list[tuple[str, Image.Image]] = []
    for path in photos:
        for window in windows(path, fit):
            if len(kept) < bases:
                kept.append((f"{number:04d}-{len(kept):05d}", window))
                made.append((kept[-1][0] + "-0", encode(window, chance.randint(70, 95))))
    for copy in range(images - bases):
        name, window = chance.choice(kept)
        edit = chance.choice(EDITS)
        made.append((f"{name}-{copy + 1}", encode(edit.change(window), edit.quality or chance.randint(70, 95))))
    chance.shuffle(made)
    with tarfile.open(folder / f"{number:05d}.tar", "w") as archive:
        for name, data in made:
            member = tarfile.TarInfo(f"{name}.jpg")
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))


def encode(image: Image.Image, quality: int) -> bytes:
    """A JPEG."""
    buffer = io.BytesIO()
    image.convert("RGB").save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def usable(path: Path) -> bool:
    """Whether a file is a photo that is large enough."""
    try:
        with Image.open(path) as image:
            return min(image.size) >= 2 * LEAST
    except OSError:
        return False


def make_shards(
    folder: Path, photos: list[Path], images: int, seed: int, workers: int, copies: float = COPIES, fit: bool = False
) -> None:
    """Write shards of so many images."""
    sizes = [min(EACH, images - first) for first in range(0, images, EACH)]
    parts: list[list[Path]] = [[]]
    room = round(sizes[0] * (1 - copies))
    for path in photos:
        if room <= 0:
            if len(parts) == len(sizes):
                break
            room = round(sizes[len(parts)] * (1 - copies))
            parts.append([])
        parts[-1].append(path)
        columns, rows = grid_of(Image.open(path).size, fit)
        room -= columns * rows
    if len(parts) < len(sizes) or room > 0:
        raise SystemExit(f"{images:,} images need more than {len(photos):,} photos")
    folder.mkdir(parents=True)
    make = partial(write_shard, folder=folder, seed=seed, copies=copies, fit=fit)
    with ProcessPoolExecutor(workers) as pool:
        list(pool.map(make, range(len(sizes)), parts, sizes))


def check_set(source: Path, record: Path, made_of: dict[str, object]) -> None:
    """End where a set that is there was made of something else."""
    if not record.exists():
        print(f"{source} does not say what it was made of, so it cannot be checked that it is what is asked for")
    elif read_json(record) != made_of:
        raise SystemExit(f"{source} was made of other photos or with other options; choose another --folder")


def share_of_memory(process: int) -> int:
    """Bytes of a process and its children, pages that several have counted once."""
    total, waiting = 0, [process]
    while waiting:
        each = waiting.pop()
        try:
            found = re.search(r"^Pss:\s+(\d+) kB", Path(f"/proc/{each}/smaps_rollup").read_text(), re.MULTILINE)
            total += int(found[1]) * 1024 if found else 0
            for task in Path(f"/proc/{each}/task").iterdir():
                waiting += [int(child) for child in (task / "children").read_text().split()]
        except OSError:
            continue  # it has ended
    return total


def measured(command: list[str]) -> tuple[str, float, int]:
    """Run a command: what it prints, processor seconds of all its processes, and the peak of their memory."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    peak, ended = [0], threading.Event()

    def watch() -> None:
        while not ended.wait(0.5):
            peak[0] = max(peak[0], share_of_memory(process.pid))

    watcher = threading.Thread(target=watch)
    watcher.start()
    assert process.stdout is not None
    printed = process.stdout.read()
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    ended.set()
    watcher.join()
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} failed with {process.returncode}")
    return printed, used.ru_utime + used.ru_stime, peak[0]


def quality(out: Path) -> tuple[float, float]:
    """Recall of the copies that can be removed, and precision of the removals."""
    rows = pq.read_table(out / "manifest.parquet", columns=["key", "verdict", "kept_key"]).to_pylist()
    removed = [row for row in rows if row["verdict"] == "remove"]
    right = sum(window_of(row["key"]) == window_of(row["kept_key"]) for row in removed)
    removable = len(rows) - len({window_of(row["key"]) for row in rows})
    return right / removable, right / max(len(removed), 1)


def window_of(key: str) -> str:
    """The window that an image shows."""
    return key.rpartition("-")[0]


def main() -> None:
    """Print a row for each rule and size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", nargs="+", type=Path, required=True)
    parser.add_argument("--sizes", nargs="+", type=int, default=[5_000, 15_000, 50_000])
    parser.add_argument("--rules", nargs="+", default=["thorough"])
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--copies", type=float, default=COPIES, help="share of the images that are edits")
    parser.add_argument("--fit", action="store_true", help="as many windows of a photo as there is room for")
    parser.add_argument("--folder", type=Path, help="where the sets and the runs stay")
    options = parser.parse_args()
    found = sorted(
        path for folder in options.photos for path in folder.rglob("*") if path.suffix in (".jpg", ".JPEG", ".png")
    )
    photos = [path for path in found if usable(path)]
    random.Random(options.seed).shuffle(photos)
    named = digest_of([[path.name, path.stat().st_size] for path in photos])
    made_of = {"photos": named, "seed": options.seed, "copies": options.copies, "fit": options.fit}
    print(f"{'rule':<10}{'images':>8}{'recall':>8}{'precision':>11}{'CPU s':>8}{'ms/image':>10}{'growth':>8}", end="")
    print(f"{'GiB':>6}{'candidates':>12}{'looked at':>11}   an image")
    before: dict[str, tuple[int, float]] = {}
    with tempfile.TemporaryDirectory() as temporary:
        for size in [WARM_UP, *sorted(options.sizes)]:
            source = Path(options.folder or temporary, f"{size}")
            record = source.with_name(f"{size}.json")
            if source.exists():
                check_set(source, record, made_of)
            else:
                making = source.with_name(f"{size}-unfinished")
                shutil.rmtree(making, ignore_errors=True)
                make_shards(making, photos, size, options.seed, options.workers, options.copies, options.fit)
                write_json(record, made_of)
                making.rename(source)
            for rule in options.rules:
                out = source.with_name(f"{size}-{rule}")
                command = [sys.executable, "-m", "dedupkit", "run", str(source), "--out", str(out), "--rule", rule]
                printed, seconds, peak = measured([*command, "--workers", str(options.workers), "--json"])
                if size == WARM_UP:
                    continue
                seen = json.loads(printed).get("verification", {"candidates": 0, "looked_at": 0})
                recall, precision = quality(out)
                slope = math.nan
                if rule in before:
                    slope = math.log(seconds / before[rule][1]) / math.log(size / before[rule][0])
                print(f"{rule:<10}{size:>8,}{recall:>8.3f}{precision:>11.4f}{seconds:>8.0f}", end="")
                print(f"{1000 * seconds / size:>10.2f}{slope:>8.2f}{peak / 2**30:>6.2f}", end="")
                print(f"{seen['candidates'] / size:>12.2f}{seen['looked_at'] / size:>11.2f}", flush=True)
                if rule in before:
                    hours = seconds * (MILLION / size) ** slope / 3600
                    print(f"{'':<10}extrapolated to a million images: {hours:.1f} processor hours")
                before[rule] = size, seconds


if __name__ == "__main__":
    main()
