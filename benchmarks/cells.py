"""The search for nearest neighbours in cells that copies choose, beside the exact one: time, and what it finds.

python benchmarks/cells.py --photos FOLDER... --folder DIR             # four windows of each photo
python benchmarks/cells.py --photos FOLDER... --folder DIR --side 4    # sixteen

Every photo is cut into ``--side`` by ``--side`` windows that share no pixel, and `copy` gives each a vector. 640
windows are transformed in the eight ways for which hashes do not suffice, as a run does with 512 of its images, and
four neighbours above a cosine of 0.35 are sought. Printed are the processor time of both searches with one thread,
the share of the planted copies that meet their originals in a cell, measured on those that did not choose the cells,
and the share of the exact search's pairs that was found, by cosine. The vectors stay in ``--folder``. Threads that
wait for one another count as busy; ``OMP_NUM_THREADS=1`` leaves them out.
"""

from __future__ import annotations

import argparse
import random
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
from PIL import Image

from dedupkit.embedding import shared_embedder
from dedupkit.embedding.pixels import decode_rgb
from dedupkit.images.transformations import TRANSFORMATIONS
from dedupkit.neighbors import KnownPairs, cosine_neighbors
from dedupkit.stages.planted import PLANTED

FLOOR, NEIGHBOURS, IMAGES, BATCH = 0.35, 4, 640, 64
BOUNDS = (FLOOR, 0.5, 0.6, 0.7, 0.8, 0.9, 1.01)


def embed(photos: list[Path], side: int, home: Path) -> None:
    """Write the vectors of all windows, (n, d), of the planted copies, (m, t, d), and the windows of these, (m,)."""
    model = shared_embedder("copy", "cpu")
    changes = [transformation for transformation in TRANSFORMATIONS if transformation.name in PLANTED]
    rng = np.random.default_rng(0)
    chosen = set(rng.choice(len(photos) * side**2, IMAGES, replace=False).tolist())
    vectors, copies, windows, batch = [], [], [], []
    count = 0
    for path in photos:
        try:
            photo = Image.open(path).convert("RGB")
        except OSError:
            continue
        width, height = photo.width // side, photo.height // side
        for place in range(side**2):
            x, y = place % side * width, place // side * height
            window = photo.crop((x, y, x + width, y + height))
            batch.append(model.preprocess(window))
            if count in chosen:
                files = [change.file(window) for change in changes]
                pixels = [model.preprocess(decode_rgb(file, model.min_side)) for file in files]
                copies.append(model.encode(np.stack(pixels)).astype(np.float16))
                windows.append(count)
            count += 1
            if len(batch) == BATCH:
                vectors.append(model.encode(np.stack(batch)).astype(np.float16))
                batch = []
    if batch:
        vectors.append(model.encode(np.stack(batch)).astype(np.float16))
    for name, array in (("windows", np.concatenate(vectors)), ("copies", np.stack(copies)), ("of", np.array(windows))):
        np.save(home / f"{name}.npy", array)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, nargs="+", required=True, help="folders of JPEG files")
    parser.add_argument("--folder", type=Path, required=True, help="where the vectors are, or are written")
    parser.add_argument("--most", type=int, help="search the first windows alone")
    parser.add_argument("--side", type=int, default=2, help="windows of a photo side by side")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    if not (options.folder / "of.npy").exists():
        photos = sorted(path for folder in options.photos for path in folder.rglob("*.jpg"))
        random.Random(0).shuffle(photos)
        embed(photos, options.side, options.folder)
    vectors, copies, of = (np.load(options.folder / f"{name}.npy") for name in ("windows", "copies", "of"))
    known = KnownPairs(
        vectors[of], copies.reshape(-1, copies.shape[-1]), np.repeat(np.arange(len(of)), copies.shape[1])
    )
    vectors = vectors[: options.most]
    found, seconds = [], []
    for given in (known, None):
        began = time.process_time()
        method = "exact" if given is None else "auto"
        found.append(cosine_neighbors(vectors, NEIGHBOURS, FLOOR, method=method, known=given, workers=1))
        seconds.append(time.process_time() - began)
    cells, exact = found
    low, high = cells.recall.low, cells.recall.high
    print(f"{len(vectors):,} windows: in cells {seconds[0]:.0f} s, exact {seconds[1]:.0f} s of processor time")
    print(f"planted copies that meet their original: {cells.recall.estimate:.4f} [{low:.4f}, {high:.4f}]")
    held = np.isin(exact.a * len(vectors) + exact.b, cells.a * len(vectors) + cells.b)
    print(f"{'cosine':>12}{'pairs':>10}{'found':>9}")
    for least, most in pairwise(BOUNDS):
        mine = held[(exact.score >= least) & (exact.score < most)]
        if len(mine):
            print(f"{f'{least:g} to {min(most, 1):g}':>12}{len(mine):>10,}{mine.mean():>9.4f}")


if __name__ == "__main__":
    main()
