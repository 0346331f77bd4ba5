r"""What each part of the copy descriptor brings over the same pairs: maps, whitening, heads, score normalisation.

    python benchmarks/descriptor/train.py --data clothing/ grocery/ flowers/ --features features.npz --out copy.onnx
    python benchmarks/descriptor/levers.py --model copy.onnx --features features.npz --copies laion_style \
        --strangers photos/

The backbone is that of ``--model`` and stays as it is; what differs is what happens to its features, without the
colours. All that is fitted is fitted to the features that train.py kept. ``--copies``, ``--strangers``, ``--work`` and
the columns are those of measure.py. Sources: GeM and learned whitening, Radenović et al. 2018 (arXiv:1711.02512);
InfoNCE with the entropy regulariser, whitening by principal components and score normalisation, SSCD, Pizzi et al. 2022
(arXiv:2202.10261).
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
import torch
from measure import floor_of, kept, pairs_above, true_pairs
from onnx import TensorProto, helper
from torch import nn
from train import DIM, projection, unit

from dedupkit.embedding import load_embedder
from dedupkit.embedding.keys import copy_weights

LAST = 1_280  # features of the last maps
STEPS, GROUPS, TEMPERATURE, ENTROPY = 300, 96, 0.05, 1.0
NEAREST, BACKGROUND, WEIGHT = 10, 1_200, 0.5  # of score normalisation

Map = Callable[[np.ndarray], np.ndarray]


def cut(path: Path, work: Path) -> Path:
    """A descriptor without its projection, as a file of its own."""
    model = onnx.load(path)
    head = [node for node in model.graph.node if node.op_type == "MatMul"][-1]
    width = next(tensor.dims[0] for tensor in model.graph.initializer if tensor.name == "head.codes")
    del model.graph.output[:]
    model.graph.output.append(helper.make_tensor_value_info(head.input[0], TensorProto.FLOAT, ["n", width]))
    onnx.save(model, work / "features.onnx")
    return work / "features.onnx"


def whitening(rows: np.ndarray) -> np.ndarray:
    """Whitening by the principal components of all photos, without regard to copies, (width, DIM)."""
    flat = rows.reshape(-1, rows.shape[-1])
    values, directions = np.linalg.eigh(flat.T @ flat / len(flat))
    kept_values = values[::-1][:DIM]
    return directions[:, ::-1][:, :DIM] / np.sqrt(kept_values + 0.01 * kept_values.mean())


def trained(rows: np.ndarray, start: np.ndarray, hidden: int = 0) -> Map:
    """A head trained by InfoNCE between views of a photo, with the entropy regulariser; from the projection on.

    Args:
        rows: (photos, 1 + views, width) features.
        start: (width, DIM) projection whose values the head begins at, or reads.
        hidden: Width of a hidden layer upon the projected values; 0 trains the projection itself.
    """
    torch.manual_seed(0)
    draw = np.random.default_rng(0)
    values = torch.from_numpy(unit(rows @ start).astype(np.float32))
    head: nn.Module = nn.Linear(DIM, DIM, bias=False)
    nn.init.eye_(head.weight)
    if hidden:
        head = nn.Sequential(nn.Linear(DIM, hidden), nn.ReLU(), nn.Linear(hidden, DIM))
    optimiser = torch.optim.AdamW(head.parameters(), 1e-3, weight_decay=1e-4)
    for _ in range(STEPS):
        photos = draw.choice(len(values), min(GROUPS, len(values)), replace=False)
        views = draw.permuted(np.tile(np.arange(rows.shape[1]), (len(photos), 1)), axis=1)[:, :2]
        a, b = (nn.functional.normalize(head(values[photos, views[:, side]])) for side in (0, 1))
        scores = a @ b.T / TEMPERATURE
        same = torch.arange(len(photos))
        loss = nn.functional.cross_entropy(scores, same) + nn.functional.cross_entropy(scores.T, same)
        apart = torch.cdist(a, a) + 2 * torch.eye(len(a))
        loss = loss / 2 - ENTROPY * apart.min(dim=1).values.clamp(min=1e-6).log().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()

    def apply(features: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            out: np.ndarray = head(torch.from_numpy(unit(features @ start).astype(np.float32))).numpy()
        return out

    return apply


def normalised(head: np.ndarray, background: np.ndarray) -> Map:
    """Projected vectors, and behind each the mean cosine with its nearest photos of a background."""
    others = unit(background @ head)

    def apply(features: np.ndarray) -> np.ndarray:
        vectors = unit(features @ head)
        near = np.sort(vectors @ others.T, axis=1)[:, -NEAREST:].mean(axis=1)
        return np.column_stack([vectors, near])

    return apply


def levers(rows: np.ndarray, by_copies: np.ndarray) -> Iterator[tuple[str, Map]]:
    """Every lever but normalised scores, by name."""
    yield "the last maps", lambda x: x[:, :LAST]
    yield "those in the middle", lambda x: x[:, LAST:]
    yield "both", lambda x: x
    plain = whitening(rows)
    yield "both, PCA-whitened", lambda x: x @ plain
    yield "both, whitened by copies", lambda x: x @ by_copies
    yield "by copies, linear head trained", trained(rows, by_copies)
    yield "by copies, MLP head trained", trained(rows, by_copies, 1024)


def measured(vectors: np.ndarray, strangers: np.ndarray, pairs: np.ndarray) -> str:
    """The columns of one lever."""
    floor = floor_of(vectors, pairs)
    above, count = pairs_above(strangers, floor)
    cosine = np.einsum("ij,ij->i", vectors[pairs[:, 0]], vectors[pairs[:, 1]])
    sides = [(vectors[pairs[:, side]] @ strangers.T).max(axis=1) < cosine for side in (0, 1)]
    return f"{floor:>8.3f}{above / count:>10.1e}{above:>9,}{float((sides[0] | sides[1]).mean()):>8.4f}"


def signed(vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What :func:`normalised` gave as the two sides of a product: the cosine less a share of both sides' means."""
    body, near, one = vectors[:, :-1], vectors[:, -1:], np.ones((len(vectors), 1), vectors.dtype)
    return np.hstack([body, -WEIGHT * near, one]), np.hstack([body, one, -WEIGHT * near])


def normalised_row(apply: Map, copies: np.ndarray, strangers: np.ndarray, pairs: np.ndarray) -> str:
    """The columns of score normalisation."""
    (left, right), (ours, theirs) = signed(apply(copies)), signed(apply(strangers))
    score = np.einsum("ij,ij->i", left[pairs[:, 0]], right[pairs[:, 1]])
    floor = float(np.sort(score)[int(0.01 * len(score))])
    above = int(np.triu(ours @ theirs.T >= floor, 1).sum())
    count = len(ours) * (len(ours) - 1) // 2
    sides = [(left[pairs[:, side]] @ theirs.T).max(axis=1) < score for side in (0, 1)]
    return f"{floor:>8.3f}{above / count:>10.1e}{above:>9,}{float((sides[0] | sides[1]).mean()):>8.4f}"


def main() -> None:
    """Fit, measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=copy_weights(), help="that of the package by default")
    parser.add_argument("--features", type=Path, required=True, help="what train.py kept")
    parser.add_argument("--copies", type=Path, required=True)
    parser.add_argument("--strangers", nargs="+", required=True)
    parser.add_argument("--work", type=Path, default=Path("work"))
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    embedder = load_embedder(f"onnx:{cut(options.model, options.work)}?preprocess=copy&name=features", device="cpu")
    with np.load(options.features) as stored:
        rows = unit(stored["rows"].astype(np.float32))
    copies, urls = kept(options.work, embedder, [str(options.copies / "shards" / "*.tar")])
    pairs, _ = true_pairs(options.copies, urls)
    strangers = np.concatenate([kept(options.work, embedder, [source])[0] for source in options.strangers])
    print(f"{'':<32}{'cosine':>8}{'share':>10}{'pairs':>9}{'first':>8}")
    by_copies = projection(rows)
    for name, apply in levers(rows, by_copies):
        print(f"{name:<32}{measured(unit(apply(copies)), unit(apply(strangers)), pairs)}", flush=True)
    apply = normalised(by_copies, rows[:BACKGROUND, 0])
    print(f"{'by copies, scores normalised':<32}{normalised_row(apply, copies, strangers, pairs)}")
    print(f"fitted to {len(rows):,} photos and {rows.shape[1] - 1} copies of each; {len(strangers):,} strangers")


if __name__ == "__main__":
    main()
