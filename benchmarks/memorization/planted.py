"""A training set whose copies are known: photos that occur 1 to 100 times as edited copies, written as shards."""

from __future__ import annotations

import csv
import io
import tarfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

from dedupkit.images.transformations import stamp
from memorization.photos import Photo

__all__ = ["EDITS", "Plan", "Row", "edited", "photos_needed", "planted", "read_rows", "read_truth", "write_planted"]

_QUALITY = (60, 95)
_SCALE = (0.5, 1.0)
_ROWS_PER_SHARD = 500


@dataclass(frozen=True, slots=True)
class Plan:
    """How many photos occur how often.

    Attributes:
        train: Pairs of number of photos and copies of each (itself counted), for training.
        unseen: The same for photos that nothing is trained on; they and their copies are in the reference.
        kinds: Number of photos, copies of each, and the kind of all their copies or ``all`` for each kind in turn; for
            training, with one caption.
        beside: Number of photos of the second collection, which occur once and are never prompted for.
        seed: Seed for the choice of photos, edits and order.
    """

    train: tuple[tuple[int, int], ...] = ((4, 100), (6, 50), (16, 10), (16, 5), (20, 2), (1020, 1))
    unseen: tuple[tuple[int, int], ...] = ((4, 100), (44, 1))
    kinds: tuple[tuple[int, int, str], ...] = ()
    beside: int = 0
    seed: int = 0

    @property
    def rows(self) -> int:
        """Number of rows for training."""
        return sum(group[0] * group[1] for group in (*self.train, *self.kinds)) + self.beside


@dataclass(frozen=True, slots=True)
class Row:
    """One image of the planted set.

    Attributes:
        key: Key in the shards.
        photo: Number of its photo, the cluster.
        copies: How often the photo occurs.
        edit: Kind of edit, or ``original``.
        captions: ``one`` for all copies, or ``several``; ``beside`` for a photo of the second collection.
        part: ``train`` or ``unseen``.
    """

    key: str
    photo: int
    copies: int
    edit: str
    captions: str
    part: str


def photos_needed(plan: Plan) -> int:
    """Number of photos that a plan takes of the first collection."""
    return sum(group[0] for group in (*plan.train, *plan.kinds, *plan.unseen))


def _jpeg(image: Image.Image, rng: np.random.Generator, quality: tuple[int, int] = _QUALITY) -> tuple[bytes, str]:
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=int(rng.integers(*quality)))
    return stream.getvalue(), "jpg"


def _scaled(image: Image.Image, rng: np.random.Generator, scale: tuple[float, float] = _SCALE) -> Image.Image:
    share = rng.uniform(*scale)
    return image.resize((max(32, round(image.width * share)), max(32, round(image.height * share))))


def _saved(fmt: str) -> Callable[[Image.Image, np.random.Generator], tuple[bytes, str]]:
    def save(image: Image.Image, rng: np.random.Generator) -> tuple[bytes, str]:
        stream = io.BytesIO()
        _scaled(image, rng).save(stream, fmt, **({"quality": int(rng.integers(60, 95))} if fmt == "WEBP" else {}))
        return stream.getvalue(), fmt.lower()

    return save


def _cropped(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    width, height = (round(side * rng.uniform(0.75, 0.95)) for side in image.size)
    left, top = rng.integers(0, image.width - width + 1), rng.integers(0, image.height - height + 1)
    return image.crop((int(left), int(top), int(left) + width, int(top) + height))


def _framed(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    share = rng.uniform(0.03, 0.1)
    sides = (max(1, round(image.width * share)), max(1, round(image.height * share)))
    return ImageOps.expand(image, sides, ("white", "black")[rng.integers(2)])


def _rotated(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    angle = rng.uniform(3, 15) * rng.choice((-1, 1))
    return image.rotate(float(angle), Image.Resampling.BICUBIC, fillcolor=("white", "black")[rng.integers(2)])


EDITS: dict[str, Callable[[Image.Image, np.random.Generator], tuple[bytes, str]]] = {
    "recompress": lambda im, rng: _jpeg(im, rng, (25, 80)),
    "resize": lambda im, rng: _jpeg(_scaled(im, rng, (0.4, 0.9)), rng),
    "png": _saved("PNG"),
    "webp": _saved("WEBP"),
    "gray": lambda im, rng: _jpeg(ImageOps.grayscale(im).convert("RGB"), rng),
    "hflip": lambda im, rng: _jpeg(ImageOps.mirror(im), rng),
    "bright": lambda im, rng: _jpeg(ImageEnhance.Brightness(im).enhance(rng.uniform(1.1, 1.45)), rng),
    "text": lambda im, rng: _jpeg(stamp(im, f"img-{rng.integers(1000)}.example", share=rng.uniform(0.05, 0.1)), rng),
    "border": lambda im, rng: _jpeg(_framed(im, rng), rng),
    "crop": lambda im, rng: _jpeg(_cropped(im, rng), rng),
    "rotate": lambda im, rng: _jpeg(_rotated(im, rng), rng),
}
"""Kinds of edits besides ``exact``; the strength of each is drawn at random, so no two copies agree by accident."""


def edited(data: bytes, edit: str, rng: np.random.Generator) -> tuple[bytes, str]:
    """Make a copy of an image file at full resolution.

    Args:
        data: File of the original, a JPEG.
        edit: Name in :data:`EDITS`; ``exact`` and ``original`` give the same bytes.
        rng: Source of the strength.

    Returns:
        The copy's file and its extension.
    """
    if edit in ("exact", "original"):
        return data, "jpg"
    with Image.open(io.BytesIO(data)) as image:
        return EDITS[edit](image.convert("RGB"), rng)


def planted(photos: Sequence[Photo], plan: Plan, more: Sequence[Photo] = ()) -> list[tuple[Row, bytes, str, str]]:
    """The rows of the training set and of the unseen part: row, file, extension, caption, in the order of training.

    The photos are drawn at random. Half of the photos with copies keep one caption in all copies, the others alternate
    between the captions of the photo. The edits of a photo go through all kinds in turn, in random order.
    """
    rng = np.random.default_rng(plan.seed)
    drawn = iter(rng.permutation(len(photos))[: photos_needed(plan)].tolist())
    rows = []
    for part, count, copies, kind in _groups(plan):
        for number in range(count):
            which = next(drawn)
            photo = photos[which]
            several = kind is None and number % 2 == 1 and copies > 1 and len(photo.captions) > 1
            for place, edit in enumerate(_edits(kind or "all", copies, rng)):
                data, extension = edited(photo.data, edit, rng)
                caption = photo.captions[place % len(photo.captions) if several else 0]
                row = Row("", which, copies, edit, "several" if several else "one", part)
                rows.append((row, data, extension, caption))
    for which in rng.permutation(len(more))[: plan.beside].tolist():
        row = Row("", len(photos) + which, 1, "original", "beside", "train")
        rows.append((row, more[which].data, "jpg", more[which].captions[0]))
    order = rng.permutation(len(rows)).tolist()
    done = []
    for place, old in enumerate(order):
        row, data, extension, caption = rows[old]
        key = f"{place:06d}"
        done.append((Row(key, row.photo, row.copies, row.edit, row.captions, row.part), data, extension, caption))
    return done


def _groups(plan: Plan) -> list[tuple[str, int, int, str | None]]:
    train = [("train", photos, copies, None) for photos, copies in plan.train]
    kinds = [("train", *group) for group in plan.kinds]
    return [*train, *kinds, *(("unseen", photos, copies, None) for photos, copies in plan.unseen)]


def _edits(kind: str, copies: int, rng: np.random.Generator) -> list[str]:
    """The original and the edits of its copies."""
    if kind != "all":
        return ["original", *[kind] * (copies - 1)]
    names = ["exact", *EDITS]
    rounds = -(-(copies - 1) // len(names))
    return ["original", *(str(name) for _ in range(rounds) for name in rng.permutation(names))][:copies]


def write_planted(photos: Sequence[Photo], plan: Plan, out: Path, more: Sequence[Photo] = ()) -> None:
    """Write ``train/*.tar``, ``unseen/*.tar`` (WebDataset: image and ``txt``) and ``truth.csv``, which comes last."""
    rows = planted(photos, plan, more)
    for part in ("train", "unseen"):
        write_shards([row for row in rows if row[0].part == part], out / part)
    temporary = out / "truth.csv.part"
    with temporary.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(Row.__slots__)
        writer.writerows([getattr(row, name) for name in Row.__slots__] for row, *_ in rows)
    temporary.rename(out / "truth.csv")


def write_shards(rows: Sequence[tuple[Row, bytes, str, str]], folder: Path) -> None:
    """Write rows as WebDataset tars."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, first in enumerate(range(0, len(rows), _ROWS_PER_SHARD)):
        with tarfile.open(folder / f"{number:05d}.tar", "w") as tar:
            for row, data, extension, caption in rows[first : first + _ROWS_PER_SHARD]:
                for name, content in ((extension, data), ("txt", caption.encode())):
                    info = tarfile.TarInfo(f"{row.key}.{name}")
                    info.size = len(content)
                    tar.addfile(info, io.BytesIO(content))


def read_truth(path: Path) -> dict[str, Row]:
    """Read ``truth.csv`` by key."""
    with path.open(newline="") as stream:
        rows = [
            Row(r["key"], int(r["photo"]), int(r["copies"]), r["edit"], r["captions"], r["part"])
            for r in csv.DictReader(stream)
        ]
    return {row.key: row for row in rows}


def read_rows(folder: Path) -> list[tuple[str, bytes, str, str]]:
    """Read key, image file, extension and caption of all samples in the tars of a folder."""
    found: dict[str, dict[str, bytes]] = {}
    for path in sorted(folder.glob("*.tar")):
        with tarfile.open(path) as tar:
            for member in tar:
                key, _, extension = member.name.partition(".")
                stream = tar.extractfile(member)
                if stream is not None:
                    found.setdefault(key, {})[extension] = stream.read()
    rows = []
    for key, files in found.items():
        extension = next(name for name in ("jpg", "png", "webp") if name in files)
        rows.append((key, files[extension], extension, files["txt"].decode()))
    return rows
