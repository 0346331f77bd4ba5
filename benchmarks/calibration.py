"""How well calibration foresees false pairs and missed copies, over shards whose truth is known.

    python benchmarks/calibration.py SHARDS TRUTH.csv --rule "exact or lite>=0.9" --embed lite

TRUTH.csv as for known_answers.py. For each threshold of each alternative: the pairs of different photos that
calibration expects among all different images, and how many there are.
"""

from __future__ import annotations

import csv
import tempfile
from pathlib import Path

import numpy as np
from known_answers import arguments

import dedupkit as dk
from dedupkit.runfolder.folder import RunFolder
from dedupkit.signals import find_signal
from dedupkit.signals.columns import Scanned
from dedupkit.signals.edges import pair_scores

BLOCK = 50_000  # pairs scored at a time


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--sample", type=int, default=300)
    options = parser.parse_args()
    out = options.out or Path(tempfile.mkdtemp()) / "run"
    run = dk.dedup(options.shards, out, rule=options.rule, embed=options.embed)
    facts = run.calibrate(sample=options.sample).facts
    with options.truth.open() as stream:
        origin = {row["url"]: row["origin"] for row in csv.DictReader(stream)}
    photos = np.array([origin[url] for url in run.manifest["url"].to_pylist()])
    kept = np.flatnonzero(np.array(run.manifest["verdict"].to_pylist()) == "keep")
    _, copies = np.unique(photos[kept], return_counts=True)
    print(f"kept: {len(kept)} images, among them {int((copies * (copies - 1) // 2).sum())} pairs of one photo")

    folder, shards = RunFolder(out), len(run.config["shards"])
    for curve in facts.curves:
        thresholds = np.array([point.threshold for point in curve.points])
        true = impostors_at(folder, shards, curve.signal, photos, thresholds, similarity=curve.similarity)
        hidden = curve.impostors.hidden if curve.impostors else 0
        print(f"\n{curve.reason}: {hidden} pairs of one photo found among the closest impostor pairs")
        print(f"{'threshold':>10}{'expected':>12}{'95 % interval':>26}{'there are':>12}")
        for point, count in zip(curve.points, true.tolist(), strict=True):
            expected = point.impostors
            if expected is not None:
                interval = f"{expected.low:,.3g} to {expected.high:,.3g}"
                print(f"{point.threshold:>10g}{expected.estimate:>12,.3g}{interval:>26}{count:>12,}")


def impostors_at(
    folder: RunFolder, shards: int, signal: str, photos: np.ndarray, thresholds: np.ndarray, *, similarity: bool
) -> np.ndarray:
    """Pairs of different images of different photos at or within each threshold."""
    scanned, measured = Scanned(folder, shards), find_signal(signal)
    first = find_signal("exact").labels(scanned)
    samples = np.flatnonzero(first == np.arange(len(first))).astype(np.int64)
    present, _ = measured.rows(scanned, samples)
    samples = samples[present]
    a, b = (samples[side] for side in np.triu_indices(len(samples), 1))
    apart = photos[a] != photos[b]
    a, b = a[apart], b[apart]
    counts = np.zeros(len(thresholds), np.int64)
    for top in range(0, len(a), BLOCK):
        score = pair_scores(measured, scanned, a[top : top + BLOCK], b[top : top + BLOCK])[:, None]
        counts += (score >= thresholds if similarity else score <= thresholds).sum(axis=0)
    return counts


if __name__ == "__main__":
    main()
