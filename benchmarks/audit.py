"""What an audit finds and how long it takes, with the guard and the search beside it.

python benchmarks/audit.py --against RUN --real FOLDER [--photos 50] [--verify]   # recall and false alarms
python benchmarks/audit.py --rows 1000000 [--embed lite]                  # time and latency

Recall: photos that the run over the training set keeps are edited as imagededup's benchmark does (five edits), blurred,
made noisy, compressed, and each of the five also as a decoder may leave it (blurred, noisy and compressed); they are
audited as if a model had generated them. False alarms: of the real photos in FOLDER, which were not trained on.

Time: a run of so many samples is written in the layout of a run folder, with random hashes and random unit vectors as
long as the embedder's, and images are looked for in it. No image of it exists, so nothing is read again. "Of a core" is
the time that the process computed, all its threads together: it holds on a machine that others use too. For one core:
OMP_NUM_THREADS=1 taskset -c 0 python benchmarks/audit.py …
"""

from __future__ import annotations

import argparse
import io
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
from made_rows import write_rows
from PIL import Image, ImageFilter

import dedupkit as dk
from dedupkit.clustering import DEFAULT_POLICY, parse_policy, parse_rule
from dedupkit.embedding import load_embedder
from dedupkit.engine import Task, ThisProcess, cache_key
from dedupkit.images.transformations import PROTOCOL
from dedupkit.memorization.audited import share_of
from dedupkit.memorization.deciding import Conditions
from dedupkit.memorization.nearest import nearest_of
from dedupkit.memorization.neighbours import Neighbours
from dedupkit.runfolder import RunConfig, RunFolder
from dedupkit.signals import known_signals
from dedupkit.sources.reread import Originals
from dedupkit.stages.decide import decide_and_write
from dedupkit.store import atomic_path
from dedupkit.workflows.audit import AuditOptions, audit
from dedupkit.workflows.search import Search

Edit = Callable[[Image.Image], Image.Image]
_SHARD = 100_000
_QUERIES = 50


def blurred(image: Image.Image, radius: float = 1.5) -> Image.Image:
    return image.filter(ImageFilter.GaussianBlur(radius))


def noisy(image: Image.Image, sigma: float = 10) -> Image.Image:
    noise = np.random.default_rng(0).normal(0, sigma, (image.height, image.width, 3))
    return Image.fromarray(np.clip(np.asarray(image, np.float64) + noise, 0, 255).astype(np.uint8))


def compressed(image: Image.Image, quality: int = 30) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return Image.open(buffer).convert("RGB")


def decoded(image: Image.Image) -> Image.Image:
    """As a decoder may leave it."""
    return compressed(noisy(blurred(image, 0.8), 4), 75)


EDITS: dict[str, Edit] = {
    **{each.name: each.change for each in PROTOCOL},
    "blurred": blurred,
    "noisy": noisy,
    "jpeg-30": compressed,
    **{f"{each.name}, decoded": partial(lambda change, im: decoded(change(im)), each.change) for each in PROTOCOL},
}


def quality(run: Path, real: str, photos: int, ways: tuple[bool, ...], workers: int) -> None:
    """Recall by edit, and the false-alarm rate."""
    folder = RunFolder(run)
    kept = np.flatnonzero(pc.equal(pq.read_table(folder.manifest, columns=["verdict"])["verdict"], "keep").to_numpy())
    chosen = np.random.default_rng(0).choice(kept, min(photos, len(kept)), replace=False)
    with tempfile.TemporaryDirectory() as place:
        made = Path(place) / "generated"
        made.mkdir()
        for sample, data in Originals(folder).read(chosen.tolist()):
            image = Image.open(io.BytesIO(data)).convert("RGB")
            for number, change in enumerate(EDITS.values()):
                change(image).save(made / f"{sample.sample}-{number:02d}.png", compress_level=1)
        for verify in ways:
            started = time.perf_counter()
            found = audit(
                made,
                run,
                Path(place) / "audit",
                real=real,
                options=AuditOptions(verify=verify, show=0),
                workers=workers,
            )
            print(f"verify={verify}: {time.perf_counter() - started:.0f} s\n{found}")
            rows = pq.read_table(Path(place) / "audit" / "audit.parquet").to_pylist()
            keys = pq.read_table(folder.manifest, columns=["key"])["key"]
            for number, name in enumerate(EDITS):
                these = [row for row in rows if row["key"].endswith(f"-{number:02d}.png")]
                right = [
                    row["copy"] and row["train_key"] == keys[int(row["key"].split("-")[0])].as_py() for row in these
                ]
                print(f"  {name:22} {share_of(sum(right), len(right))}")


def fabricated(place: Path, rows: int, embed: str | None, seed: int = 0) -> RunFolder:
    """A finished run of random hashes and vectors, in shards of 100,000."""
    folder = RunFolder(place)
    folder.path.mkdir(parents=True)
    embedders = {} if embed is None else {embed: embed}
    dim = 0 if embed is None else load_embedder(embed).dim
    shards = tuple(f"shard{number}" for number in range(-(-rows // _SHARD)))
    config = RunConfig(shards, shards, "exact", "exact", DEFAULT_POLICY, embedders=embedders)
    folder.write_config(config)
    tasks = []
    for number in range(len(shards)):
        part = (number * _SHARD, min(rows, (number + 1) * _SHARD))
        outputs = (str(folder.samples(number)),)
        tasks.append(
            Task("scan", f"{number:05d}", partial(_samples, outputs[0], part, seed), cache_key(part), "", outputs)
        )
        if embed is not None:
            outputs = (str(folder.embeddings(embed, number)),)
            call = partial(_vectors, outputs[0], part, dim, seed)
            tasks.append(Task(f"embed-{embed}", f"{number:05d}", call, cache_key([part, dim]), "", outputs))
    ThisProcess().run(tasks, folder.path)
    decide_and_write(folder, config, parse_rule("exact", known_signals(embedders)), parse_policy(DEFAULT_POLICY))
    return folder


def _samples(path: str, part: tuple[int, int], seed: int) -> dict[str, Any]:
    rng, count = np.random.default_rng([seed, part[0]]), part[1] - part[0]
    hashes = rng.integers(0, 256, (2, count, 32), dtype=np.uint8)
    columns = {
        "key": [f"{row:09d}" for row in range(*part)],
        "caption": [f"caption {row % 5000}" for row in range(*part)],
    }
    return write_rows(path, hashes, columns)


def _vectors(path: str, part: tuple[int, int], dim: int, seed: int) -> dict[str, Any]:
    rng, count = np.random.default_rng([seed, 1, part[0]]), part[1] - part[0]
    with atomic_path(Path(path)) as temporary:
        into = np.lib.format.open_memmap(temporary, "w+", np.float16, (count, dim))
        for start in range(0, count, 10_000):
            block = rng.standard_normal((min(10_000, count - start), dim), dtype=np.float32)
            into[start : start + len(block)] = block / np.linalg.norm(block, axis=1, keepdims=True)
        into.flush()
    return {"samples": count, "embedded": count, "failed": 0}


def speed(rows: int, generations: int, embed: str | None, place: Path) -> None:
    """Times of an audit from stored hashes and vectors, and latencies of the guard and the search."""
    folder = fabricated(place / "run", rows, embed)
    made = fabricated(place / "generated", generations, embed, seed=1)
    print(f"{rows:,} samples and {generations:,} generations, hashes and vectors of {embed or 'none'}, all random")
    took("index, made once", lambda: Neighbours(folder.path))
    near = took("loading", lambda: Neighbours(folder.path))
    nearest_of(made, near, embed)  # compiles
    found = took("search", lambda: nearest_of(made, near, embed))
    took("decision", lambda: Conditions(0.75).decide(found, None))  # type: ignore[arg-type]
    rng = np.random.default_rng(2)
    images = [
        Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).resize((512, 512)) for _ in range(_QUERIES)
    ]
    guard = dk.CopyGuard(folder.path, embedder=False)
    latency("guard, hash", guard.check, images)
    if embed is not None:
        latency("guard, hash and vector", dk.CopyGuard(folder.path, min_cosine=0.75).check, images)
    search = Search(folder.path)
    search.load()
    took("first answer of a search after loading", lambda: search.image(images[0]))
    latency("search", search.image, images)


def took(what: str, call: Callable[[], Any]) -> Any:
    started, used = time.perf_counter(), time.process_time()
    result = call()
    print(f"{what}: {time.perf_counter() - started:.1f} s, of a core {time.process_time() - used:.1f} s", flush=True)
    return result


def latency(what: str, call: Callable[[Any], Any], images: list[Image.Image]) -> None:
    call(images[0])
    taken, used = [], []
    for image in images:
        started, before = time.perf_counter(), time.process_time()
        call(image)
        taken.append(1000 * (time.perf_counter() - started))
        used.append(1000 * (time.process_time() - before))
    median, late = np.percentile(taken, [50, 90])
    print(
        f"{what}: median {median:.1f} ms, 90th percentile {late:.1f} ms; of a core {np.median(used):.1f} ms", flush=True
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--against", type=Path)
    parser.add_argument("--real")
    parser.add_argument("--photos", type=int, default=50)
    parser.add_argument("--verify", action="store_true", help="with verification alone")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rows", type=int, default=0)
    parser.add_argument("--generations", type=int, default=10_000)
    parser.add_argument("--embed", help="measure with vectors as long as this embedder's")
    parser.add_argument("--place", type=Path, help="a folder with room for the run; a temporary one by default")
    given = parser.parse_args()
    if given.against is not None:
        quality(given.against, given.real, given.photos, (True,) if given.verify else (False, True), given.workers)
    if given.rows:
        with tempfile.TemporaryDirectory(dir=given.place) as place:
            speed(given.rows, given.generations, given.embed, Path(place))


if __name__ == "__main__":
    main()
