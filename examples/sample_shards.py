"""Small WebDataset shards to try the examples on: scikit-image's photos, edited copies of them, and a broken file."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

from PIL import Image, ImageOps
from skimage import data

PHOTOS = ("astronaut", "camera", "chelsea", "coffee", "coins", "moon", "page", "rocket")
EDITS = {
    "original": lambda image: (image, 92),
    "recompressed": lambda image: (image, 40),
    "half size": lambda image: (image.resize((image.width // 2, image.height // 2)), 85),
    "mirrored": lambda image: (ImageOps.mirror(image), 85),
}


def make_shards(folder: Path, count: int = 3) -> list[str]:
    """Deal the samples over some tars that share their keys, and return the paths of the tars."""
    folder.mkdir(parents=True, exist_ok=True)
    samples = [(b"no image", "a page that is gone")]
    for name in PHOTOS:
        photo = Image.fromarray(getattr(data, name)()).convert("RGB")
        photo.thumbnail((320, 320))
        for edit, make in EDITS.items():
            image, quality = make(photo)
            stream = io.BytesIO()
            image.save(stream, "JPEG", quality=quality)
            samples.append((stream.getvalue(), f"{name}, {edit}"))
    paths = [folder / f"{shard:05d}.tar" for shard in range(count)]
    for shard, path in enumerate(paths):
        with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as archive:
            for number, (image, caption) in enumerate(samples[shard::count]):
                for extension, content in (("jpg", image), ("txt", caption.encode())):
                    member = tarfile.TarInfo(f"{number:05d}.{extension}")
                    member.size = len(content)
                    archive.addfile(member, io.BytesIO(content))
    return [str(path) for path in paths]
