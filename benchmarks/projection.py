"""What a projection learned from transformed copies gains: stranger pairs at a recall, and ranks, without and with it.

python benchmarks/projection.py SHARDS                                          # lite
python benchmarks/projection.py SHARDS --embed openclip:ViT-B-32/WEIGHTS.pt     # any model
python benchmarks/projection.py SHARDS --tiny-clip                              # a small open_clip of random weights
python benchmarks/projection.py --vectors VECTORS.npy                           # vectors alone, copies made up

Images are drawn from the shards and transformed as `dedupkit calibrate` does it; each half is projected by a fit to the
other. With vectors alone there is no model that could embed copies, so each copy is its vector and a random change,
nine tenths of whose variance lie in a tenth of the directions: that shows the arithmetic, not what edits do to images.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np

from dedupkit.clustering import parse_rule
from dedupkit.embedding import Separation, embedder_name, held_out
from dedupkit.engine import local_engine
from dedupkit.engine.marker import read_marker
from dedupkit.runfolder import RunFolder
from dedupkit.signals import known_signals
from dedupkit.sources import find_shards
from dedupkit.stages.plan import Computing, Job
from dedupkit.stages.project import fit_projections
from dedupkit.stages.run import scan_samples

CLIP = {
    "embed_dim": 32,
    "vision_cfg": {"image_size": 64, "layers": 1, "width": 64, "patch_size": 16},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1},
}
"""The model of ``--tiny-clip``, that of tests/test_projection.py."""


def tiny_clip(folder: Path, seed: int) -> str:
    """Write a checkpoint of random weights, and say what names it."""
    import open_clip
    import torch

    torch.manual_seed(seed)
    (folder / "tiny-clip.json").write_text(json.dumps(CLIP))
    open_clip.add_model_config(folder / "tiny-clip.json")
    torch.save(open_clip.create_model("tiny-clip").state_dict(), folder / "weights.pt")
    return f"openclip:tiny-clip/{folder}/weights.pt"


def of_images(shards: list[str], embed: str, dims: int, sample: int, seed: int) -> None:
    """Fit as a run does, and print what its marker says."""
    spec = f"{embed}{'&' if '?' in embed else '?'}project=copies&dims={dims}&sample={sample}"
    name = embedder_name(spec)
    with tempfile.TemporaryDirectory() as folder, local_engine(2) as engine:
        rule = parse_rule("exact", known_signals({name: spec}))
        job = Job(RunFolder(Path(folder, "run")), find_shards(shards), rule, (), {name: spec}, Computing(2, seed))
        fit_projections(job, scan_samples(job, engine), None)
        marker = read_marker(job.folder.projection_marker(name))
        facts = {} if marker is None else marker.result
    if "reason" in facts:
        print(facts["reason"])
        return
    print(f"{name}: {facts['images']} images, {facts['dims'][1]} of {facts['dims'][0]} values, floor {facts['floor']}")
    show(Separation(**facts["before"]), Separation(**facts["after"]))


def of_vectors(path: Path, dims: int, seed: int) -> None:
    """Make copies up, and print the same."""
    rng = np.random.default_rng(seed)
    vectors = np.load(path).astype(np.float32)
    originals = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    d = originals.shape[1]
    turn = np.linalg.qr(rng.normal(size=(d, d)))[0]
    spread = np.where(np.arange(d) < d // 10, 9 * 0.9, 0.1) ** 0.5
    original = np.repeat(np.arange(len(originals)), 4)
    change = rng.normal(size=(len(original), d)) * spread @ turn
    change /= np.linalg.norm(change, axis=1, keepdims=True)
    print(f"{path.name}: {len(originals)} vectors of {d} values, copies made up")
    before, after, _ = held_out(originals, originals[original] + 1.5 * change, original, dims=dims)
    show(before, after)


def show(before: Separation, after: Separation) -> None:
    """Print both."""
    print(f"{'':12}{'threshold':>10}{'strangers':>12}{'first':>9}{'among 4':>9}{'copies':>9}{'pairs':>12}")
    for label, side in (("without", before), ("projected", after)):
        print(f"{label:12}{side.threshold:>10.3f}{side.strangers:>12.2e}{side.first:>9.4f}{side.listed:>9.4f}", end="")
        print(f"{side.copies:>9,}{side.pairs:>12,}")


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shards", nargs="*")
    parser.add_argument("--embed", default="lite")
    parser.add_argument("--tiny-clip", action="store_true", help="instead of --embed")
    parser.add_argument("--vectors", type=Path)
    parser.add_argument("--dims", type=int, default=512)
    parser.add_argument("--sample", type=int, default=512)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    if options.shards:
        with tempfile.TemporaryDirectory() as folder:
            embed = tiny_clip(Path(folder), options.seed) if options.tiny_clip else options.embed
            of_images(options.shards, embed, options.dims, options.sample, options.seed)
    if options.vectors:
        of_vectors(options.vectors, options.dims, options.seed)


if __name__ == "__main__":
    main()
