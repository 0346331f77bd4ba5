"""How well descriptors tell transformed copies from other photos, and how fast they are, in one table.

    python benchmarks/descriptor/measure.py --copies laion_style --strangers photos/ more.tar --embed copy --embed lite

``--copies`` is a folder with ``shards/*.tar`` (WebDataset, each sample's JSON names its URL) and ``truth.csv`` (url,
origin, edit): the true pairs are a copy and its original. ``--strangers`` are folders or tars of other photos; every
pair of them counts as false, natural near-duplicates too. Below the table stands how many of these pairs each set has
within itself. Columns:

* ``cosine``: the one that keeps 99 % of the true pairs;
* ``share``: part of the stranger pairs that reach it, and how many they are;
* ``first``: part of the true pairs that come before every stranger in the order of one of their two sides;
* ``least``: lowest cosine of a true pair, and what was done to that copy;
* ``images/s``, ``CPU ms``: decoding, resizing and the model, one image after another, on the first strangers; the
  embedders in turns, the best of three rounds.

Vectors are kept in ``--work`` by the embedder's key, so that another one can be added to the table later.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from dedupkit.embedding import Embedder, load_embedder
from dedupkit.embedding.pixels import decode_rgb
from dedupkit.images import ImageError
from dedupkit.sources import Sample, find_shards

RECALL = 0.99
BATCH, TILE, ROUNDS = 32, 2_000, 3


def usable(sources: list[str]) -> Iterator[Sample]:
    """The samples that have an image."""
    for shard in find_shards(sources):
        yield from (sample for sample in shard.read() if sample.image is not None and not sample.error)


def embed(embedder: Embedder, samples: Iterator[Sample]) -> tuple[np.ndarray, list[str]]:
    """Vectors (n, dim) of the images that decode, and their URLs or keys."""
    rows, names, batch = [np.zeros((0, embedder.dim), np.float32)], [], []
    for sample in samples:
        try:
            batch.append(embedder.preprocess(decode_rgb(sample.image or b"", embedder.min_side)))
        except ImageError:
            continue
        names.append(sample.url or sample.key)
        if len(batch) == BATCH:
            rows.append(embedder.encode(np.stack(batch)))
            batch = []
    if batch:
        rows.append(embedder.encode(np.stack(batch)))
    return np.concatenate(rows), names


def kept(work: Path, embedder: Embedder, sources: list[str]) -> tuple[np.ndarray, list[str]]:
    """:func:`embed`, or what an earlier call left in the work folder."""
    name = hashlib.sha256("\n".join([embedder.key, *sources]).encode()).hexdigest()[:16]
    path = work / f"{embedder.name}-{name}.npz"
    if not path.exists():
        vectors, names = embed(embedder, usable(sources))
        np.savez(path, vectors=vectors, names=np.array(names))
    with np.load(path) as stored:
        return stored["vectors"], stored["names"].tolist()


def true_pairs(folder: Path, urls: list[str]) -> tuple[np.ndarray, list[str]]:
    """Positions of copies and of their originals, (n, 2), and the transformation of each."""
    with (folder / "truth.csv").open(newline="") as stream:
        facts = {row["url"]: (row["origin"], row["edit"]) for row in csv.DictReader(stream)}
    at = {url: place for place, url in enumerate(urls)}
    originals = {origin: at[url] for url, (origin, edit) in facts.items() if edit == "original" and url in at}
    found = [
        (originals[origin], at[url], edit)
        for url, (origin, edit) in facts.items()
        if edit != "original" and url in at and origin in originals
    ]
    return np.array([pair[:2] for pair in found]), [edit for *_, edit in found]


def pairs_above(vectors: np.ndarray, floor: float) -> tuple[int, int]:
    """How many pairs of vectors reach a cosine, and how many pairs there are."""
    above = 0
    for start in range(0, len(vectors), TILE):
        products = vectors[start : start + TILE] @ vectors[start:].T
        above += int((np.triu(products >= floor, 1)).sum())
    return above, len(vectors) * (len(vectors) - 1) // 2


def floor_of(copies: np.ndarray, pairs: np.ndarray) -> float:
    """The cosine that keeps the wanted share of the true pairs."""
    cosine = np.einsum("ij,ij->i", copies[pairs[:, 0]], copies[pairs[:, 1]])
    return float(np.sort(cosine)[int((1 - RECALL) * len(cosine))])


def row(copies: np.ndarray, pairs: np.ndarray, edits: list[str], strangers: np.ndarray) -> str:
    """The measurements of one embedder."""
    cosine = np.einsum("ij,ij->i", copies[pairs[:, 0]], copies[pairs[:, 1]])
    floor = floor_of(copies, pairs)
    above, count = pairs_above(strangers, floor)
    sides = [(copies[pairs[:, side]] @ strangers.T).max(axis=1) < cosine for side in (0, 1)]
    worst = int(cosine.argmin())
    first = float((sides[0] | sides[1]).mean())
    return f"{floor:>8.3f}{above / count:>10.1e}{above:>9,}{first:>8.4f}{cosine[worst]:>8.3f} {edits[worst]:<10}"


def speed(embedders: list[Embedder], samples: list[Sample]) -> list[tuple[float, float]]:
    """Seconds and CPU seconds of each embedder for the samples, in turns."""
    best = [(np.inf, np.inf)] * len(embedders)
    for _ in range(ROUNDS):
        for place, embedder in enumerate(embedders):
            wall, cpu = time.perf_counter(), time.process_time()
            embed(embedder, iter(samples))
            took = time.perf_counter() - wall, time.process_time() - cpu
            best[place] = min(best[place][0], took[0]), min(best[place][1], took[1])
    return best


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--copies", type=Path, required=True)
    parser.add_argument("--strangers", nargs="+", required=True)
    parser.add_argument("--embed", action="append", help="copy and lite by default; repeatable")
    parser.add_argument("--work", type=Path, default=Path("work"))
    parser.add_argument("--speed", type=int, default=256, help="images for the two last columns; 0 leaves them out")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    specs = options.embed or ["copy", "lite"]
    embedders = [load_embedder(spec, device="cpu") for spec in specs]
    some = [sample for _, sample in zip(range(options.speed), usable(options.strangers), strict=False)]
    took = speed(embedders, some) if some else [(np.nan, np.nan)] * len(embedders)
    print(f"{'embedder':<20}{'dim':>5}{'cosine':>8}{'share':>10}{'pairs':>9}{'first':>8}{'least':>8} {'':<10}", end="")
    print(f"{'images/s':>9}{'CPU ms':>8}")
    within = []
    for spec, embedder, (wall, cpu) in zip(specs, embedders, took, strict=True):
        copies, urls = kept(options.work, embedder, [str(options.copies / "shards" / "*.tar")])
        sets = [kept(options.work, embedder, [source])[0] for source in options.strangers]
        strangers = np.concatenate(sets)
        pairs, edits = true_pairs(options.copies, urls)
        floor = floor_of(copies, pairs)
        for source, vectors in zip(options.strangers, sets, strict=True):
            above, count = pairs_above(vectors, floor)
            within.append(
                f"{spec[:20]:<20}{Path(source).name[:24]:<26}{len(vectors):>7,}{above:>9,}{above / count:>10.1e}"
            )
        measured = row(copies, pairs, edits, strangers)
        pace = f"{len(some) / wall:>9.0f}{1000 * cpu / max(len(some), 1):>8.1f}"
        print(f"{spec[:20]:<20}{embedder.dim:>5}{measured}{pace}", flush=True)
    print(f"{len(urls):,} images of copies and originals, {len(strangers):,} strangers; pairs within a set of them:")
    print("\n".join(within))


if __name__ == "__main__":
    main()
