"""Near-duplicates of CIFAR-10 that people judged (ciFAIR): recall at the threshold that calibration proposes.

    python benchmarks/cifair.py FOLDER

FOLDER holds CIFAR-10 as WebDataset tars with keys like ``test/ship/0645`` or ``test-ship-0645`` and cifar10_dups.csv
(test_path, train_path, judgement: 1 near-duplicate, 2 very similar, 3 different), the list of Barz and Denzler, "Do We
Train on Test Data?", J. Imaging 6(6), 2020. imagededup's CNN, at its default threshold, runs on the same images in its
own environment below the work folder. A pair counts as found if the two are joined directly.
"""

from __future__ import annotations

import argparse
import csv
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
from copies import environment

import dedupkit as dk
from dedupkit.sources import find_shards
from dedupkit.store import read_columns

FLOOR = 0.8  # cosine; the run's pairs reach down to it, and so can the proposal
VERIFIED = 0.85  # of the candidates that are verified
JUDGEMENTS = {"1": "near-duplicates", "2": "very similar", "3": "different"}
IMAGEDEDUP = """
import json, sys
from imagededup.methods import CNN
found = CNN(verbose=False).find_duplicates(image_dir=sys.argv[1])
json.dump([[name, other] for name, others in found.items() for other in others], open(sys.argv[2], "w"))
"""

Pair = frozenset[str]


def plain(key: str) -> str:
    """A key without what differs between the list and the tars."""
    return re.sub(r"[^a-z0-9]+", "-", key.lower().removesuffix(".jpg").removesuffix(".png"))


def judged(path: Path) -> dict[Pair, str]:
    with path.open() as stream:
        rows = list(csv.DictReader(stream))
    return {frozenset((plain(row["test_path"]), plain(row["train_path"]))): row["judgement"] for row in rows}


def run_imagededup(interpreter: Path, tars: list[str], work: Path) -> set[Pair]:
    folder, answer = work / "images", work / "imagededup.json"
    if not answer.exists():
        folder.mkdir(parents=True, exist_ok=True)
        for shard in find_shards(tars):
            for sample in shard.read():
                if sample.image is not None:
                    (folder / f"{plain(sample.key)}.{sample.image_ext}").write_bytes(sample.image)
        subprocess.run([str(interpreter), "-c", IMAGEDEDUP, str(folder), str(answer)], check=True, capture_output=True)
    return {frozenset(plain(name) for name in pair) for pair in json.loads(answer.read_text())}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--embed", default="lite")
    parser.add_argument("--precision", type=float, default=0.99)
    parser.add_argument("--sample", type=int, default=100, help="images of which calibration plants copies")
    parser.add_argument("--work", type=Path, default=Path("build/cifair"))
    options = parser.parse_args()
    work: Path = options.work.absolute()
    tars = sorted(map(str, options.folder.glob("*.tar")))

    signal = "lite" if options.embed == "lite" else "model"
    embed = options.embed if signal == "lite" else f"{options.embed}?name=model"
    run = dk.dedup(tars, work / f"run-{signal}", rule=f"exact or {signal}>={FLOOR}", embed=embed)
    calibration = run.calibrate(sample=options.sample, precision=options.precision)
    threshold = calibration.proposals[signal]
    print(calibration, end="\n\n")

    keys = np.array([plain(key) for key in run.manifest["key"].to_pylist()])
    edges = read_columns(run.path / "edges" / signal / "00000.parquet")
    a, b, score = (edges[name].to_numpy() for name in ("a", "b", "score"))
    scores = {frozenset(pair): value for *pair, value in zip(keys[a], keys[b], score.tolist(), strict=True)}
    truth = {pair: label for pair, label in judged(options.folder / "cifar10_dups.csv").items() if pair <= set(keys)}

    def table(name: str, pairs: set[Pair]) -> None:
        counts = {
            label: (sum(pair in pairs for pair, given in truth.items() if given == number), number)
            for number, label in JUDGEMENTS.items()
            if number in truth.values()
        }
        recall = ", ".join(f"{n} of {list(truth.values()).count(i)} {label}" for label, (n, i) in counts.items())
        print(f"{name:<44} {len(pairs):>8,} pairs, {recall}")

    print(f"{len(keys):,} images, {len(truth)} judged pairs")
    for bound in (0.95, 0.9, 0.85, FLOOR):
        table(f"dedupkit {signal}>={bound:g}", {pair for pair, value in scores.items() if value >= bound})
    if threshold is None:
        (curve,) = calibration.facts.curves
        print(f"no threshold of {signal} is proposed for precision {options.precision:g}: {curve.proposal.note}")
    else:
        found = {pair for pair, value in scores.items() if value >= threshold}
        table(f"dedupkit, proposed for {options.precision:g}: {signal}>={threshold:g}", found)
    dk.dedup(tars, run.path, rule=f"exact or ({signal}>={VERIFIED} and verified)", embed=embed)
    edges = read_columns(run.path / "edges" / "verified" / "00000.parquet")
    pairs = zip(keys[edges["a"].to_numpy()], keys[edges["b"].to_numpy()], strict=True)
    table(f"dedupkit {signal}>={VERIFIED} and verified", {frozenset(pair) for pair in pairs})
    pins = "imagededup==0.3.3.post2 torch==2.14.1 torchvision==0.29.2"
    interpreter = environment(work, "imagededup", pins, sys.executable)
    if interpreter:
        try:
            table("imagededup CNN, default (>= 0.9)", run_imagededup(interpreter, tars, work))
        except subprocess.CalledProcessError as error:  # it downloads the weights of its network
            print("imagededup's CNN cannot run:", error.stderr.decode(errors="replace").strip().rpartition("\n")[2])


if __name__ == "__main__":
    main()
