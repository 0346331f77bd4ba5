"""One arm and seed: train, generate, measure, and write one JSON file."""

from __future__ import annotations

import io
import json
import os
import platform
import time
from collections import Counter
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from memorization.arms import clean
from memorization.metric import SHARE, carlini_ratio, cluster_distances, distances, extracted, row_ratio
from memorization.planted import Row, read_rows, read_truth
from memorization.settings import Training

__all__ = ["Job", "Reference", "one_thread", "prompted", "read_reference", "run_job"]

_PACKAGES = ("dedupkit-vision", "imagededup", "torch", "timm", "numpy", "pillow", "opencv-python-headless")


@dataclass(frozen=True, slots=True)
class Job:
    """One arm and seed.

    Attributes:
        arm: Name in :data:`memorization.arms.ARMS`.
        seed: Seed for weights, order, noise and samples.
        data: Folder of the planted shards.
        work: Folder for what the arms leave and for samples.
        results: Folder for the JSON file.
        training: Settings of training.
        side: Width and height in pixels at which the model is trained.
        each: Number of samples per image.
        singles: Number of images that occur once and are prompted for.
        command: Command line, for the record.
    """

    arm: str
    seed: int
    data: Path
    work: Path
    results: Path
    training: Training = field(default_factory=Training)
    side: int = 16
    each: int = 8
    singles: int = 64
    command: str = ""

    @property
    def result(self) -> Path:
        """The JSON file."""
        return self.results / f"{self.arm}-{self.seed}.json"


@dataclass(frozen=True, slots=True)
class Reference:
    """All images of the planted set before cleaning, the unseen ones too.

    Attributes:
        rows: Their truth, n of them.
        pixels: (n, side, side, 3) uint8.
        captions: Caption of each.
        photos: Photo numbers in ascending order, c clusters.
        cluster: (n,) Place in photos.
    """

    rows: list[Row]
    pixels: NDArray[np.uint8]
    captions: list[str]
    photos: NDArray[np.int64]
    cluster: NDArray[np.int64]


def small(data: bytes, side: int) -> NDArray[np.uint8]:
    """An image file as (side, side, 3) pixels, each the mean of what it covers."""
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image.convert("RGB").resize((side, side), Image.Resampling.BOX))


def read_reference(data: Path, side: int) -> Reference:
    """Read the shards of training and of the unseen photos."""
    truth = read_truth(data / "truth.csv")
    found = [*read_rows(data / "train"), *read_rows(data / "unseen")]
    rows = [truth[key] for key, *_ in found]
    pixels = np.stack([small(image, side) for _, image, *_ in found])
    photos, cluster = np.unique([row.photo for row in rows], return_inverse=True)
    return Reference(rows, pixels, [text for *_, text in found], photos, cluster)


def prompted(reference: Reference, singles: int) -> list[Row]:
    """One row for each photo that is prompted for: all with copies, the first that occur once, all unseen ones."""
    first: dict[int, Row] = {}
    for row in sorted(reference.rows, key=lambda row: (row.edit != "original", row.key)):
        first.setdefault(row.photo, row)
    alone = [row for row in first.values() if row.part == "train" and row.copies == 1]
    once = [row for row in alone if row.captions != "beside"][:singles]
    others = [row for row in first.values() if row.part == "unseen" or row.copies > 1]
    return sorted([*once, *others], key=lambda row: (row.part, -row.copies, row.photo))


def one_thread() -> None:
    """Two processes with a thread each finish sooner than two threads that wait for each other."""
    import torch

    torch.set_num_threads(1)


def run_job(job: Job) -> str:
    """Train and measure one arm and seed, unless its file is there already.

    Returns:
        A line for the terminal.
    """
    if job.result.exists():
        return f"{job.arm}-{job.seed}: there already"
    started = time.monotonic()
    shards, said = clean(job.arm, job.data, job.work)
    reference = read_reference(job.data, job.side)
    arm = _Arm(job, reference, shards)
    points = []
    full = sum(row.part == "train" for row in reference.rows)
    equal = round(job.training.steps * len(arm.rows) / full)
    for step in sorted({job.training.steps // 2, job.training.steps, equal}):
        arm.trainer.train(step)
        points.append({"step": step, **arm.measure()})
    outcome = {
        "arm": job.arm,
        "seed": job.seed,
        "left_by": said,
        "command": job.command,
        "machine": {"processor": _processor(), "cores": os.cpu_count(), "system": platform.platform(terse=True)},
        "versions": {name: _version(name) for name in _PACKAGES} | {"python": platform.python_version()},
        "settings": asdict(job.training) | {"side": job.side, "samples_per_image": job.each, "share": SHARE},
        "parameters": sum(p.numel() for name, p in arm.trainer.model.named_parameters() if "table" not in name),
        "rows": len(arm.rows),
        "rows_raw": full,
        "equal_epochs_step": equal,
        "seconds": round(time.monotonic() - started),
        "images": arm.images(),
        "points": points,
    }
    job.results.mkdir(parents=True, exist_ok=True)
    temporary = job.result.with_suffix(".part")
    temporary.write_text(json.dumps(outcome, indent=1) + "\n")
    temporary.rename(job.result)
    return f"{job.arm}-{job.seed}: {len(arm.rows)} rows, {outcome['seconds']} s"


def _processor() -> str:
    """The processor's name where Linux says it, else what Python says."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


class _Arm:
    def __init__(self, job: Job, reference: Reference, shards: Path) -> None:
        from memorization.model import Trainer

        self.job, self.reference = job, reference
        found = read_rows(shards)
        truth = {row.key: row for row in reference.rows}
        self.rows = [truth[key] for key, *_ in found]
        pixels = np.stack([small(image, job.side) for _, image, *_ in found])
        self.own_rows = _flat(pixels)
        self.trainer = Trainer(_tensor(pixels), [text for *_, text in found], job.training, job.seed)
        self.prompted = prompted(reference, job.singles)
        texts: dict[int, list[str]] = {}
        for row, text in zip(reference.rows, reference.captions, strict=True):
            said = texts.setdefault(row.photo, [])
            if text not in said:
                said.append(text)
        said = [texts[row.photo] for row in self.prompted]
        self.captions = [each[number % len(each)] for each in said for number in range(job.each)]
        place = {photo: number for number, photo in enumerate(reference.photos.tolist())}
        self.own = np.repeat([place[row.photo] for row in self.prompted], job.each)
        unseen = [n for n, row in enumerate(reference.rows) if row.part == "unseen" and row.edit == "original"]
        self.held_out = _tensor(reference.pixels[unseen]), [reference.captions[n] for n in unseen]
        self.all_rows = _flat(reference.pixels)

    def images(self) -> list[dict[str, Any]]:
        left: dict[int, Counter[str]] = {}
        for row in self.rows:
            left.setdefault(row.photo, Counter())[row.edit] += 1
        return [
            {
                "photo": row.photo,
                "part": row.part,
                "copies": row.copies,
                "captions": row.captions,
                "left": sum(left.get(row.photo, Counter()).values()),
                "left_edits": dict(sorted(left.get(row.photo, Counter()).items())),
            }
            for row in self.prompted
        ]

    def measure(self) -> dict[str, Any]:
        from memorization.model import generate, held_out_loss

        job, reference, model = self.job, self.reference, self.trainer.mean
        made = generate(model, self.captions, job.side, job.training.euler, job.seed + 77)
        samples = made.permute(0, 2, 3, 1).numpy()
        flat = samples.reshape(len(samples), -1)
        rows = distances(flat, self.all_rows)
        by_cluster = cluster_distances(rows, reference.cluster, len(reference.photos))
        hit = extracted(by_cluster, self.own)
        nearest_two = np.sort(by_cluster, axis=1)[:, :2]
        anyone = nearest_two[:, 0] <= SHARE * nearest_two[:, 1]
        trained = distances(flat, self.own_rows)
        edits = Counter()
        for number in np.flatnonzero(hit).tolist():
            mine = np.flatnonzero(reference.cluster == self.own[number])
            edits[reference.rows[int(mine[np.argmin(rows[number, mine])])].edit] += 1
        np.savez_compressed(
            _folder(job.work / "samples") / f"{job.arm}-{job.seed}.npz",
            samples=np.round((samples + 1) * 127.5).astype(np.uint8),
            hit=hit,
            own=reference.photos[self.own],
        )
        return {
            "loss": round(held_out_loss(model, *self.held_out), 5),
            "hits": hit.reshape(-1, job.each).sum(1).tolist(),
            "any_cluster": anyone.reshape(-1, job.each).sum(1).tolist(),
            "row_ratio": (row_ratio(trained) <= SHARE).reshape(-1, job.each).sum(1).tolist(),
            "carlini_ratio": (carlini_ratio(trained) <= 1).reshape(-1, job.each).sum(1).tolist(),
            "nearest_edit_of_extracted": dict(sorted(edits.items())),
        }


def _folder(path: Path) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    return path


def _flat(pixels: NDArray[np.uint8]) -> NDArray[np.float64]:
    return pixels.reshape(len(pixels), -1).astype(np.float64) / 127.5 - 1


def _tensor(pixels: NDArray[np.uint8]) -> Any:
    import torch

    return torch.from_numpy(pixels.astype(np.float32) / 127.5 - 1).permute(0, 3, 1, 2).contiguous()
