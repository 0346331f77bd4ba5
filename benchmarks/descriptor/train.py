"""Make the file of the copy descriptor from folders of photos.

    python benchmarks/descriptor/train.py --data clothing/ grocery/ flowers/ --out copy.onnx

From each folder ``--photos`` are drawn, and ``--views`` transformed copies of each. The backbone's pooled features of
all of them give the projection in closed form: principal directions, the inverse root of the covariance within the
copies of a photo, principal directions again. The same folders, seed and versions give the same projection.
docs/copy-descriptor.md says which photos the file in the package was made from.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from network import SIDE, Descriptor, Features, write
from PIL import Image
from views import view

from dedupkit.embedding.pixels import Preprocess, decode_rgb
from dedupkit.images import ImageError

DIM, PRINCIPAL, SHRINK = 512, 768, 0.1
POOL, SMALLEST = 200, 32  # photos that others are blended with; pixels of the shorter side of one that is used


def photos(folders: list[Path], count: int, draw: random.Random) -> Iterator[Image.Image]:
    """A sample of the photos of each folder."""
    for folder in folders:
        files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg", ".png"))
        for path in draw.sample(files, min(count, len(files))):
            try:
                photo = decode_rgb(path.read_bytes(), 2 * SIDE)
            except ImageError:
                continue
            if min(photo.size) >= SMALLEST:
                yield photo


def features(module: Features, images: list[Image.Image]) -> np.ndarray:
    """Pooled features (n, width) of unit length."""
    square = Preprocess.named("half", SIDE, SIDE)
    with torch.inference_mode():
        values = module(torch.from_numpy(np.stack([square(image) for image in images]))).numpy()
    return values / np.linalg.norm(values, axis=1, keepdims=True)


def projection(rows: np.ndarray) -> np.ndarray:
    """The projection (width, DIM) from the features (photos, 1 + views, width)."""
    flat = rows.reshape(-1, rows.shape[-1])
    _, directions = np.linalg.eigh(flat.T @ flat / len(flat))
    principal = directions[:, ::-1][:, :PRINCIPAL]
    reduced = rows @ principal
    centres = reduced.mean(axis=1)
    within = (reduced - centres[:, None]).reshape(-1, PRINCIPAL).astype(np.float64)
    covariance = within.T @ within / (len(rows) * (rows.shape[1] - 1))
    covariance += SHRINK / (1 - SHRINK) * np.trace(covariance) / PRINCIPAL * np.eye(PRINCIPAL)
    values, vectors = np.linalg.eigh(covariance)
    whitening = vectors / np.sqrt(values)
    _, best = np.linalg.eigh(np.cov((centres @ whitening).T))
    return (principal @ whitening @ best[:, ::-1][:, :DIM]).astype(np.float32)


def main() -> None:
    """Draw, transform, fit, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, nargs="+", required=True, help="folders of photos")
    parser.add_argument("--out", type=Path, default=Path("copy.onnx"))
    parser.add_argument("--photos", type=int, default=1600, help="of each folder")
    parser.add_argument("--views", type=int, default=3, help="transformed copies of each photo")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    draw = random.Random(options.seed)
    module, pool, rows = Features(), [], []
    for number, photo in enumerate(photos(options.data, options.photos, draw)):
        if len(pool) < POOL:
            pool.append(photo)
        else:
            pool[draw.randrange(POOL)] = photo
        copies = [view(photo, draw, lambda: draw.choice(pool)) for _ in range(options.views)]
        rows.append(features(module, [photo, *copies]))
        if number % 100 == 99:
            print(f"{number + 1:,} photos", flush=True)
    found = projection(np.stack(rows))
    head = torch.nn.Linear(*found.shape, bias=False)
    head.weight.data = torch.from_numpy(np.ascontiguousarray(found.T))
    write(Descriptor(module, head), options.out)
    print(f"wrote {options.out}, {options.out.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
