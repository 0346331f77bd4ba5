"""The photos of the experiment, with captions: from a folder, or made up where none is given."""

from __future__ import annotations

import csv
import io
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

__all__ = ["Photo", "made_photos", "read_photos"]

_SIDE = 192


@dataclass(frozen=True, slots=True)
class Photo:
    """A photo as the bytes of a JPEG file, with at least one caption."""

    name: str
    captions: tuple[str, ...]
    data: bytes


def read_photos(folder: Path, *, named: bool = False) -> list[Photo]:
    """Read the JPEG files of a folder that have a caption, in the order of their names.

    Args:
        folder: The photos.
        named: Whether the name of the folder that a photo without a caption lies in is its caption.

    Raises:
        ValueError: A file cannot be read as an image; the message names it.

    Captions stand in ``captions.txt`` (lines ``image,caption`` below a header, as Flickr8k has them, several for an
    image), or in a ``.txt`` file beside each image, one caption a line.
    """
    captions: dict[str, list[str]] = defaultdict(list)
    table = folder / "captions.txt"
    if table.exists():
        with table.open(newline="", encoding="utf-8") as stream:
            for row in csv.DictReader(stream):
                captions[row["image"]].append(row["caption"].strip())
    photos = []
    for path in sorted(folder.rglob("*.jp*g")):
        beside = path.with_suffix(".txt")
        said = captions.get(path.name) or (beside.read_text("utf-8").splitlines() if beside.exists() else [])
        said = tuple(dict.fromkeys(caption for caption in said if caption))
        if named and not said:
            said = (" ".join(path.parent.name.replace("_", " ").split()),)
        if said:
            photos.append(Photo(path.name, said, _checked(path)))
    return photos


def _checked(path: Path) -> bytes:
    """The bytes of a file that an image can be read from: better known now than after an hour of training."""
    data = path.read_bytes()
    try:
        with Image.open(io.BytesIO(data)) as image:
            image.draft("RGB", (32, 32))  # an eighth of the work, and a file that breaks off is still found
            image.load()
    except (OSError, SyntaxError) as error:
        raise ValueError(f"{path} cannot be read as an image ({error}); take it out of the folder") from error
    return data


_COLOURS = ("red", "green", "blue", "yellow", "purple", "orange", "teal", "white", "black", "brown", "pink", "grey")
_SHAPES = ("disc", "square", "triangle", "bar", "ring", "arc")
_PLACES = ("left", "right", "top", "bottom", "middle")


def made_photos(count: int, seed: int = 0) -> list[Photo]:
    """Pictures of coloured shapes over coloured noise, with captions that say what they show, for want of photos.

    Args:
        count: Number of pictures.
        seed: Seed for all random choices.
    """
    return [_made(number, np.random.default_rng((seed, number))) for number in range(count)]


def _made(number: int, rng: np.random.Generator) -> Photo:
    coarse = rng.integers(0, 256, (rng.integers(2, 6), rng.integers(2, 6), 3), dtype=np.uint8)
    grain = rng.normal(0, 28, (_SIDE, _SIDE, 1))
    field = np.asarray(Image.fromarray(coarse).resize((_SIDE, _SIDE), Image.Resampling.BICUBIC), np.float64)
    soft = Image.fromarray(np.clip(128 + grain[:, :, 0], 0, 255).astype(np.uint8)).filter(ImageFilter.GaussianBlur(2))
    image = Image.fromarray(np.clip(field + np.asarray(soft, np.float64)[:, :, None] - 128, 0, 255).astype(np.uint8))
    draw = ImageDraw.Draw(image)
    words = []
    for _ in range(int(rng.integers(4, 9))):
        colour, shape = str(rng.choice(_COLOURS)), str(rng.choice(_SHAPES))
        centre, size = rng.integers(10, _SIDE - 10, 2), int(rng.integers(14, 60))
        box = (*(centre - size // 2).tolist(), *(centre + size // 2).tolist())
        if shape == "square":
            draw.rectangle(box, fill=colour)
        elif shape == "disc":
            draw.ellipse(box, fill=colour)
        elif shape == "ring":
            draw.ellipse(box, outline=colour, width=6)
        elif shape == "arc":
            draw.arc(box, 20, 250, fill=colour, width=7)
        elif shape == "triangle":
            draw.regular_polygon((*centre.tolist(), size // 2), 3, rotation=int(rng.integers(360)), fill=colour)
        else:
            draw.line(box, fill=colour, width=9)
        words.append(f"{colour} {shape} {rng.choice(_PLACES)}")
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=92)
    orders = (words, words[::-1], words[1:] + words[:1])
    captions = tuple(f"picture {number:04d}: " + ", ".join(order) for order in orders)
    return Photo(f"made-{number:04d}.jpg", captions, stream.getvalue())
