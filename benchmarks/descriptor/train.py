"""Make the file of the copy descriptor from folders of photos.

    python benchmarks/descriptor/train.py --data clothing/ grocery/ flowers/ --out copy.onnx

From each folder ``--photos`` are drawn, and of each ``--views`` transformed copies and ``--crops`` small crops. The
first photos give the ranges of the activations, for the network in 8 bits; the features that this network has for all
of them give the projection in closed form: principal directions, the inverse root of the covariance within the copies
of a photo, principal directions again. The colours stand beside it with a weight that is not fitted. The same folders,
seed and versions give the same file. docs/copy-descriptor.md says which photos the file in the package was made from.
``--features FILE.npz`` keeps the features.
"""

from __future__ import annotations

import argparse
import hashlib
import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
from network import HUES, RINGS, SIDE, Session, quantised, with_head
from PIL import Image
from views import small_crop, view

from dedupkit.embedding.pixels import Preprocess, decode_rgb
from dedupkit.images import ImageError

DIM, PRINCIPAL, SHRINK = 512 - HUES * len(RINGS), 1024, 0.1
CENTRE = 0.5
COLOURS = 0.75  # weight of the colours beside the projected features, which have length 1
CALIBRATION = 64  # photos of each folder that the ranges of the activations are measured on
POOL, SMALLEST = 200, 32  # photos that others are blended with; pixels of the shorter side of one that is used

SQUARE = Preprocess.named("copy", SIDE, SIDE)


def drawn(folders: list[Path], count: int, draw: random.Random) -> list[list[Path]]:
    """A sample of the photos of each folder."""
    found = []
    for folder in folders:
        files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg", ".png"))
        found.append(draw.sample(files, min(count, len(files))))
    return found


def photos(files: list[Path]) -> Iterator[Image.Image]:
    """The photos that can be used."""
    for path in files:
        try:
            photo = decode_rgb(path.read_bytes(), 2 * SIDE)  # a small crop needs pixels
        except ImageError:
            continue
        if min(photo.size) >= SMALLEST:
            yield photo


def with_views(chosen: list[list[Path]], views: int, crops: int, draw: random.Random) -> Iterator[np.ndarray]:
    """The squares of each photo, its transformed copies and its small crops, (1 + views + crops, side, side, 3)."""
    pool: list[Image.Image] = []
    for photo in photos([path for files in chosen for path in files]):
        if len(pool) < POOL:
            pool.append(photo)
        else:
            pool[draw.randrange(POOL)] = photo
        copies = [view(photo, draw, lambda: draw.choice(pool)) for _ in range(views)]
        copies += [small_crop(photo, draw) for _ in range(crops)]
        yield np.stack([SQUARE(image) for image in (photo, *copies)])


def unit(values: np.ndarray) -> np.ndarray:
    """Rows of unit length."""
    rows: np.ndarray = values / np.linalg.norm(values, axis=-1, keepdims=True)
    return rows


def projection(rows: np.ndarray, principal: int = PRINCIPAL, dim: int = DIM) -> np.ndarray:
    """The projection (width, dim) from the features (photos, 1 + views, width) of unit length."""
    flat = rows.reshape(-1, rows.shape[-1])
    _, directions = np.linalg.eigh(flat.T @ flat / len(flat))
    first = directions[:, ::-1][:, :principal]
    reduced = rows @ first
    centres = reduced.mean(axis=1)
    within = (reduced - centres[:, None]).reshape(-1, principal).astype(np.float64)
    covariance = within.T @ within / (len(rows) * (rows.shape[1] - 1))
    covariance += SHRINK / (1 - SHRINK) * np.trace(covariance) / principal * np.eye(principal)
    values, vectors = np.linalg.eigh(covariance)
    whitening = vectors / np.sqrt(values)
    _, best = np.linalg.eigh(np.cov((centres @ whitening).T))
    return (first @ whitening @ best[:, ::-1][:, :dim]).astype(np.float32)


def spread_out(vectors: np.ndarray) -> np.ndarray:
    """A matrix (dim, dim) that shortens the mean of vectors (n, dim) to CENTRE times their usual distance from it.

    The mean is what all photos have in common. Left as it is, cosines of any two photos may lie close to 1; taken off,
    more pairs of strangers would lie among the copies.
    """
    mean = vectors.mean(axis=0)
    usual = np.sqrt(((vectors - mean) ** 2).sum(axis=1).mean())
    short = 1 - min(1.0, CENTRE * usual / np.linalg.norm(mean))
    matrix: np.ndarray = np.eye(len(mean)) - short * np.outer(mean, mean) / (mean @ mean)
    return matrix.astype(np.float32)


def main() -> None:
    """Draw, quantise, transform, fit, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, nargs="+", required=True, help="folders of photos")
    parser.add_argument("--out", type=Path, default=Path("copy.onnx"))
    parser.add_argument("--photos", type=int, default=400, help="of each folder")
    parser.add_argument("--views", type=int, default=3, help="transformed copies of each photo")
    parser.add_argument("--crops", type=int, default=2, help="small crops of each photo")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--features", type=Path, help="file to keep the features in")
    options = parser.parse_args()
    draw = random.Random(options.seed)
    chosen = drawn(options.data, options.photos, draw)
    model = quantised(np.stack([SQUARE(photo) for files in chosen for photo in photos(files[:CALIBRATION])]))
    network, rows = Session(model), []
    for number, squares in enumerate(with_views(chosen, options.views, options.crops, draw)):
        rows.append(unit(network(squares)))
        if number % 100 == 99:
            print(f"{number + 1:,} photos", flush=True)
    if options.features:
        np.savez(options.features, rows=np.stack(rows).astype(np.float16))
    matrix = projection(np.stack(rows))
    matrix = matrix @ spread_out(np.stack(rows).mean(axis=1) @ matrix)
    onnx.save(with_head(model, matrix, COLOURS), options.out)
    digest = hashlib.sha256(options.out.read_bytes()).hexdigest()
    print(f"wrote {options.out}, {options.out.stat().st_size / 1e6:.1f} MB, sha256 {digest}")


if __name__ == "__main__":
    main()
