"""How much of the model's speed the embed stage keeps, and how it compares with clip-retrieval's way, in one run.

python benchmarks/embedding.py                              # photos that ship with scikit-image, in several crops
python benchmarks/embedding.py --shards 'laion/*.tar'       # your own images

Weights are random, which changes nothing about speed. clip-retrieval's way is its reader and mapper (version 2.45): a
torch DataLoader of 4 workers and batches of 256, Pillow and the model's own transform, a float32 model; it runs in a
process of its own, since dedupkit changes how its process reuses memory. "CPU ms" counts all processes, and depends
less than the wall time on what else the machine does.
"""

from __future__ import annotations

import argparse
import io
import multiprocessing
import os
import resource
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
from PIL import Image

from dedupkit.embedding.openclip import OpenClipEmbedder, load
from dedupkit.embedding.spec import parse_spec
from dedupkit.sources import find_shards
from dedupkit.stages.embed import embed_shard
from dedupkit.stages.scan import scan_shard

DATALOADER_WORKERS, DATALOADER_BATCH = 4, 256


class Timer:
    """The least wall time and the least CPU time over the rounds, in seconds; they may be of two rounds."""

    def __init__(self) -> None:
        self.wall = self.cpu = float("inf")

    @contextmanager
    def round(self) -> Iterator[None]:
        """Time one round."""
        wall, cpu = time.perf_counter(), cpu_seconds()
        yield
        self.add(time.perf_counter() - wall, cpu_seconds() - cpu)

    def add(self, wall: float, cpu: float) -> None:
        """Count a round that was timed elsewhere."""
        self.wall, self.cpu = min(self.wall, wall), min(self.cpu, cpu)


def cpu_seconds() -> float:
    """Of this process and its children that have ended."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def photo_tar(path: Path, count: int) -> None:
    """A tar of JPEG files of 500x375 pixels, quality 95: crops of scikit-image's photos."""
    import skimage.data

    rng = np.random.default_rng(0)
    names = ("astronaut", "coffee", "chelsea", "rocket", "retina", "hubble_deep_field", "immunohistochemistry")
    photos = [Image.fromarray(getattr(skimage.data, name)()).convert("RGB") for name in names]
    with tarfile.open(path, "w") as archive:
        for number in range(count):
            photo = photos[number % len(photos)]
            left, top = rng.integers(0, photo.width // 4), rng.integers(0, photo.height // 4)
            box = (left, top, left + photo.width * 3 // 4, top + photo.height * 3 // 4)
            stream = io.BytesIO()
            photo.resize((500, 375), Image.Resampling.BICUBIC, box).save(stream, "JPEG", quality=95)
            info = tarfile.TarInfo(f"{number:06d}.jpg")
            info.size = stream.tell()
            archive.addfile(info, io.BytesIO(stream.getvalue()))


class Files(torch.utils.data.Dataset[Any]):
    """clip-retrieval's dataset: one image decoded and transformed an item."""

    def __init__(self, stored: list[bytes], transform: Callable[[Image.Image], Any]) -> None:
        self._stored, self._transform = stored, transform

    def __len__(self) -> int:
        return len(self._stored)

    def __getitem__(self, index: int) -> Any:
        return self._transform(Image.open(io.BytesIO(self._stored[index])))


def dataloader_path(
    stored: list[bytes], name: str, checkpoint: Path, device: str, threads: int
) -> tuple[np.ndarray, float, float]:
    """clip-retrieval's reader and mapper: vectors, and the seconds that they took, wall and CPU."""
    torch.set_num_threads(threads)
    model, transform = their_model(name, checkpoint, device)
    wall, cpu = time.perf_counter(), cpu_seconds()
    loader = torch.utils.data.DataLoader(
        Files(stored, transform), DATALOADER_BATCH, num_workers=DATALOADER_WORKERS, pin_memory=device != "cpu"
    )
    parts = []
    with torch.no_grad():
        for images in loader:
            features = model.encode_image(images.to(device))
            features /= features.norm(dim=-1, keepdim=True)
            parts.append(features.cpu().to(torch.float16).numpy())
    return np.concatenate(parts), time.perf_counter() - wall, cpu_seconds() - cpu


@lru_cache
def their_model(name: str, checkpoint: Path, device: str) -> tuple[Any, Any]:
    """The model as clip-retrieval loads it, and its transform."""
    model, _, transform = open_clip.create_model_and_transforms(name, pretrained=str(checkpoint), device=device)
    return model.eval(), transform


def bare(embedder: OpenClipEmbedder, pixels: np.ndarray, count: int) -> None:
    """The model alone, on one batch that is there already, for ``count`` images."""
    for start in range(0, count, len(pixels)):
        embedder.encode(pixels[: min(len(pixels), count - start)])


def rows(device: str, arguments: argparse.Namespace, folder: Path) -> bool:
    """Measure and print the table of one device; whether the two ways agree."""
    tar = arguments.shards or str(folder / "photos.tar")
    (shard, *_) = find_shards(tar)
    stored = [sample.image for sample in shard.read() if sample.image and not sample.error][: arguments.images]
    count = len(stored)
    with tarfile.open(folder / "chosen.tar", "w") as archive:
        for number, data in enumerate(stored):
            info = tarfile.TarInfo(f"{number:06d}.jpg")
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    (shard,) = find_shards(folder / "chosen.tar")
    samples, out = str(folder / "samples.parquet"), str(folder / "out.npy")
    scan_shard(shard, samples, ())
    checkpoint = folder / "weights.pt"
    spec = parse_spec(f"openclip:{arguments.model}/{checkpoint}")
    full, short = load(spec, device, "float32"), load(spec, device, arguments.precision)
    images = [short.preprocess(Image.open(io.BytesIO(data)).convert("RGB")) for data in stored[: arguments.batch]]
    pixels = np.stack(images)
    threads = arguments.threads if device == "cpu" else os.cpu_count() or 1

    names = (f"bare model, {full.precision}", f"bare model, {short.precision}", "embed stage", "DataLoader, float32")
    plain, fast, stage, loader = timers = [Timer() for _ in names]
    bare(full, pixels, len(pixels)), bare(short, pixels, len(pixels))
    theirs = None
    elsewhere = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"))
    for _ in range(arguments.rounds):
        with fast.round():
            bare(short, pixels, count)
        with stage.round():
            embed_shard(shard, out, short, samples_path=samples, batch_size=arguments.batch, threads=threads)
        with plain.round():
            bare(full, pixels, count)
        their_job = (dataloader_path, stored, arguments.model, checkpoint, device, threads)
        theirs, wall, cpu = elsewhere.submit(*their_job).result()
        loader.add(wall, cpu)
    print(f"\n{arguments.model} on {device}, {count} images, batches of {arguments.batch}, best of {arguments.rounds}")
    print(f"{'':<24} {'images/s':>9} {'CPU ms':>8}  ratio")
    for name, timer in zip(names, timers, strict=True):
        ratio = ""
        if timer is stage:
            ratio = f"{fast.wall / stage.wall:.0%} of the bare model (by CPU time {fast.cpu / stage.cpu:.0%}), "
            ratio += f"{loader.wall / stage.wall:.1f}x DataLoader (by CPU time {loader.cpu / stage.cpu:.1f}x)"
        print(f"{name:<24} {count / timer.wall:>9.1f} {1000 * timer.cpu / count:>8.1f}  {ratio}", flush=True)
    ours = np.load(out).astype(np.float32)
    cosine = np.sum(ours[ours.any(axis=1)] * theirs.astype(np.float32), axis=1) if theirs is not None else ours
    print(f"least cosine between the two ways: {cosine.min():.5f}")
    return bool(cosine.min() > 0.99)


def main() -> int:
    """Run the benchmark; 1 if the two ways give different vectors."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shards", help="a tar of images; the first readable ones are used")
    parser.add_argument("--images", type=int, default=512, help="how many")
    parser.add_argument("--batch", type=int, default=64, help="images a call of the model")
    parser.add_argument("--threads", type=int, default=2, help="of the model, and of decoding, on the CPU")
    parser.add_argument("--rounds", type=int, default=3, help="of which the best counts")
    parser.add_argument("--model", default="ViT-B-32", help="an architecture of open_clip")
    parser.add_argument("--precision", choices=["float32", "bfloat16"], help="instead of what suits the CPU")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        torch.manual_seed(0)
        torch.save(open_clip.create_model(arguments.model).state_dict(), folder / "weights.pt")
        if not arguments.shards:
            photo_tar(folder / "photos.tar", arguments.images)
        devices = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]
        agree = [rows(device, arguments, folder) for device in devices]
        return int(not all(agree))


if __name__ == "__main__":
    raise SystemExit(main())
