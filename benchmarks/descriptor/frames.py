"""What frames cost the copy descriptor: cosines of framed copies with their originals, frames left on and taken off.

    python benchmarks/descriptor/frames.py --photos photos/ [--count 200]

For each kind of frame: the lowest hundredth and the median of the cosines, and the share of the copies that four other
photos are nearer to than their original.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from dedupkit.embedding import load_embedder
from dedupkit.embedding.pixels import Preprocess, decode_rgb

SIDE, PLACES = 160, 4

Edit = Callable[[Image.Image], Image.Image]


def rotated(angle: float, expand: bool) -> Edit:
    """Rotate within black, the corners cut off or all of the picture in the frame."""
    return lambda image: image.rotate(angle, Image.Resampling.BICUBIC, expand)


FRAMES: dict[str, Edit] = {
    "border of a fifth": lambda image: ImageOps.expand(image, image.width // 5, "white"),
    "letterbox": lambda image: ImageOps.expand(image, (0, image.height // 4), "black"),
    **{
        f"rotated by {angle}, {'all shown' if expand else 'corners cut'}": rotated(angle, expand)
        for angle in (5, 10, 25, 40)
        for expand in (False, True)
    },
}


def main() -> None:
    """Print a row for each frame."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--count", type=int, default=200)
    options = parser.parse_args()
    files = sorted(path for path in options.photos.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg", ".png"))
    photos = [decode_rgb(path.read_bytes(), SIDE) for path in islice(files, options.count)]
    model = load_embedder("copy")
    print(f"{len(photos)} photos\n{'':<28}{'left on':^24}{'taken off':^24}")
    for name, edit in FRAMES.items():
        row = f"{name:<28}"
        for preprocess in (Preprocess.named("half", SIDE, SIDE), Preprocess.named("copy", SIDE, SIDE)):
            originals = model.encode(np.stack([preprocess(photo) for photo in photos]))
            copies = model.encode(np.stack([preprocess(edit(photo)) for photo in photos]))
            own = (originals * copies).sum(axis=1)
            before = (copies @ originals.T > own[:, None]).sum(axis=1)
            row += f"{np.quantile(own, 0.01):>8.2f}{np.median(own):>7.2f}{(before >= PLACES).mean():>8.1%} "
        print(row, flush=True)


if __name__ == "__main__":
    main()
