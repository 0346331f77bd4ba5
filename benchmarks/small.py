"""Verification of small images by pairs that people judged (ciFAIR): recall, precision, and what the bounds do to them.

    python benchmarks/small.py FOLDER [--run OUT]

FOLDER as for cifair.py. The judged pairs are verified, without a search for candidates, by the bounds of
dedupkit/verification/small.py and by a grid of bounds around them. Precision is over the judged pairs: only those
judged near-duplicates count as right, those judged very similar as wrong. Then each half of the pairs, drawn at random,
chooses the bounds of most recall at a precision of 0.99 (or the best it has), and the other half says what they are
worth. With --run the rule thorough runs over all images, into OUT, and the judged pairs that end in one group count.
"""

from __future__ import annotations

import argparse
from itertools import product
from pathlib import Path

import numpy as np
from cifair import judged, plain

import dedupkit as dk
from dedupkit.sources import find_shards
from dedupkit.verification import Features, features_of, small, verify_pair

GRID = {
    "SHARED": (0.5, 0.7, 0.77, 0.85),
    "DETAIL": (0.8, 0.83, 0.86, 0.89, 0.92),
    "STANDS_OUT": (0.25, 0.35, 0.45, 0.6),
}
HALVES = 200


def features(folder: Path, wanted: set[str]) -> dict[str, Features]:
    found = {}
    for shard in find_shards(sorted(map(str, folder.glob("*.tar")))):
        for sample in shard.read():
            if sample.image is not None and plain(sample.key) in wanted:
                found[plain(sample.key)] = features_of(sample.image)
    return found


def groups(folder: Path, out: Path) -> dict[str, int]:
    """By key the group that an image is in after a run of thorough, its own number where it is in none."""
    run = dk.dedup(sorted(map(str, folder.glob("*.tar"))), out, rule="thorough")
    keys, group, sample = (run.manifest[name].to_pylist() for name in ("key", "group", "sample"))
    print(f"{len(keys):,} images, {run.removed.num_rows:,} removed")
    return {plain(key): -1 - own if into is None else into for key, into, own in zip(keys, group, sample, strict=True)}


def verdicts(pairs: list[tuple[Features, Features]], bounds: dict[str, float]) -> np.ndarray:
    """Verify pairs by other bounds than those of the module."""
    kept = {name: getattr(small, name) for name in bounds}
    try:
        for name, value in bounds.items():
            setattr(small, name, value)
        return np.array([verify_pair(a, b).verified for a, b in pairs])
    finally:
        for name, value in kept.items():
            setattr(small, name, value)


def counts(verified: np.ndarray, right: np.ndarray) -> tuple[int, int, float, float]:
    """Near-duplicates found, very similar pairs found, recall, precision."""
    near, similar = int((verified & right).sum()), int((verified & ~right).sum())
    return near, similar, near / max(int(right.sum()), 1), near / max(near + similar, 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--run", type=Path, help="folder of a run of the rule thorough, made if it is not there")
    options = parser.parse_args()
    truth = {tuple(sorted(pair)): label for pair, label in judged(options.folder / "cifar10_dups.csv").items()}
    known = features(options.folder, {key for pair in truth for key in pair})
    names = [pair for pair in sorted(truth) if set(pair) <= known.keys()]
    pairs = [(known[a], known[b]) for a, b in names]
    right = np.array([truth[pair] == "1" for pair in names])
    print(f"{right.sum()} near-duplicates, {(~right).sum()} very similar")

    if options.run:
        group = groups(options.folder, options.run)
        together = np.array([group[a] == group[b] for a, b in names])
        print("thorough: {} near-duplicates in one group, {} very similar, recall {:.3f}, precision {:.3f}".format(
            *counts(together, right)
        ))  # fmt: skip

    verified = verdicts(pairs, {"SMALL": 0})
    print("steps for larger images: {} near-duplicates, {} very similar, recall {:.3f}, precision {:.3f}".format(
        *counts(verified, right)
    ))  # fmt: skip
    verified = verdicts(pairs, {})
    print("bounds of the package: {} near-duplicates, {} very similar, recall {:.3f}, precision {:.3f}".format(
        *counts(verified, right)
    ))  # fmt: skip
    print("very similar, yet verified:", *(" = ".join(names[i]) for i in np.flatnonzero(verified & ~right)))

    print("\n" + "  ".join(f"{name.lower():>10}" for name in GRID) + "    near  similar  recall  precision")
    table = {}
    for values in product(*GRID.values()):
        table[values] = verdicts(pairs, dict(zip(GRID, values, strict=True)))
    rows = {values: counts(found, right) for values, found in table.items()}
    for values, (near, similar, recall, precision) in sorted(rows.items(), key=lambda row: (row[1][1], -row[1][0])):
        if not any(other[1] <= similar and other[0] > near for other in rows.values()):
            line = "  ".join(f"{value:10.2f}" for value in values)
            print(f"{line}  {near:6}  {similar:7}  {recall:6.3f}  {precision:9.3f}")

    draw, held = np.random.default_rng(0), []
    for _ in range(HALVES):
        half = draw.random(len(right)) < 0.5
        scored = {values: counts(found[half], right[half]) for values, found in table.items()}
        reach = min(0.99, max(score[3] for score in scored.values()))
        best = max((values for values, score in scored.items() if score[3] >= reach), key=lambda at: scored[at][2])
        held.append(counts(table[best][~half], right[~half])[2:])
    recall, precision = np.mean(held, axis=0)
    print(f"\nbounds chosen on one half, counted on the other: recall {recall:.3f}, precision {precision:.3f}")


if __name__ == "__main__":
    main()
