"""A small web of real photos and edited copies of them, with the truth about who copies whom."""

from __future__ import annotations

import io
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image, ImageEnhance, ImageOps

from dedupkit.errors import import_optional
from dedupkit.images.transformations import crop_sides, stamp

__all__ = ["EDITS", "PHOTOS", "Page", "build_web"]

PHOTOS = {
    "astronaut.png": "Portrait of the astronaut Eileen Collins in an orange suit",
    "camera.png": "A man in a coat looking through a camera on a tripod",
    "cell.png": "A cell under the microscope",
    "chelsea.png": "A tabby cat looking up at the camera",
    "coffee.png": "A cup of coffee with a spoon on a wooden table",
    "coins.png": "Ancient coins in rows on a dark cloth",
    "hubble_deep_field.jpg": "Distant galaxies in the Hubble deep field",
    "ihc.png": "Stained colon tissue under the microscope",
    "moon.png": "The surface of the moon",
    "motorcycle_left.png": "A motorcycle in a workshop",
    "retina.jpg": "The retina of a human eye",
    "rocket.jpg": "A rocket on the launch pad at dusk",
    "china.jpg": "A Chinese temple in front of a blue sky",
    "flower.jpg": "A purple flower in bloom",
}
"""File in scikit-image's or scikit-learn's package, and what it shows."""

_HOSTED_AGAIN = (24, 12, 6)  # the first photos are the web's favourites: bytes copied this often
_JPEG_QUALITY = 92


@dataclass(frozen=True, slots=True)
class Edit:
    """A way in which copies differ."""

    label: str
    extension: str
    make: Callable[[Image.Image], bytes]


def _encode(image: Image.Image, fmt: str = "JPEG", **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, fmt, **({"quality": _JPEG_QUALITY} | options if fmt != "PNG" else options))
    return stream.getvalue()


EDITS = (
    Edit("same file, other address", "jpg", _encode),
    Edit("recompressed (quality 50)", "jpg", lambda im: _encode(im, quality=50)),
    Edit("half size", "jpg", lambda im: _encode(im.resize((im.width // 2, im.height // 2)))),
    Edit("saved as PNG", "png", lambda im: _encode(im, "PNG")),
    Edit("saved as WebP", "webp", lambda im: _encode(im, "WEBP", quality=80)),
    Edit("greyscale", "jpg", lambda im: _encode(ImageOps.grayscale(im).convert("RGB"))),
    Edit("mirrored", "jpg", lambda im: _encode(ImageOps.mirror(im))),
    Edit("brighter", "jpg", lambda im: _encode(ImageEnhance.Brightness(im).enhance(1.25))),
    Edit("address stamped on it", "jpg", lambda im: _encode(stamp(im))),
    Edit("cropped by 20 %", "jpg", lambda im: _encode(crop_sides(im, 0.1))),
    Edit("rotated by 10 degrees", "jpg", lambda im: _encode(im.rotate(10))),
)


@dataclass(frozen=True, slots=True)
class Page:
    """One address of the small web.

    Attributes:
        path: below the server's root.
        caption: its alt text.
        photo: the photo it shows, None for a dead link or a broken file.
        edit: ``original``, the label of an edit, ``dead`` or ``broken``.
    """

    path: str
    caption: str
    photo: str | None
    edit: str


def build_web(root: Path, seed: int = 0) -> list[Page]:
    """Write the image files and list the addresses, in an order that mixes copies and originals.

    Args:
        root: Empty folder to serve.
        seed: Seed for the order of the addresses.

    Raises:
        MissingExtraError: scikit-image or scikit-learn is not installed.
    """
    pages = []
    for number, (name, caption) in enumerate(PHOTOS.items()):
        image = _photo(name)
        stem = name.partition(".")[0]
        (root / f"{stem}.jpg").write_bytes(_encode(image))
        pages.append(Page(f"{stem}.jpg", caption, stem, "original"))
        for place, edit in enumerate(EDITS):
            copies = _HOSTED_AGAIN[number] if place == 0 and number < len(_HOSTED_AGAIN) else 1
            data = edit.make(image)
            for copy in range(copies):
                path = f"{stem}-{place}-{copy}.{edit.extension}"
                (root / path).write_bytes(data)
                pages.append(Page(path, caption if copy % 2 == 0 else f"{caption} (photo)", stem, edit.label))
    for number in range(3):
        pages.append(Page(f"gone-{number}.jpg", "A page that no longer exists", None, "dead"))
        (root / f"broken-{number}.jpg").write_bytes(b"<html>not an image</html>")
        pages.append(Page(f"broken-{number}.jpg", "An error page with an image's name", None, "broken"))
    random.Random(seed).shuffle(pages)  # noqa: S311 - an order, not a secret
    return pages


def _photo(name: str) -> Image.Image:
    for module, folder in (("skimage.data", "."), ("sklearn.datasets", "images")):
        package = import_optional(module, "demo")
        path = Path(str(package.__file__)).parent / folder / name
        if path.exists():
            return Image.open(path).convert("RGB")
    raise FileNotFoundError(f"neither scikit-image nor scikit-learn ships {name}")
