"""The match stage for embedders: pairs of vectors at or above a floor, with the recall of the search."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dedupkit.embedding.spec import parse_spec
from dedupkit.errors import DedupkitError
from dedupkit.neighbors.cosine.join import iter_cosine_pairs
from dedupkit.neighbors.cosine.normalise import ScoreNormaliser, normalise_scores
from dedupkit.runfolder.folder import RunFolder
from dedupkit.signals.columns import hash_column, write_edges
from dedupkit.store import atomic_path, temporary_path

__all__ = ["match_vectors"]

_MAX_EDGES = 200_000_000
"""More edges than this mean that the floor is too low for the data; the error proposes another."""


def match_vectors(
    out: str,
    shards: int,
    signal: str,
    embedder: str,
    floor: float,
    target_recall: float,
    seed: int,
    device: str | None,
    what: str,
) -> dict[str, Any]:
    """Join the vectors of one embedder; a task of the engine.

    Byte copies have one vector, so only the first of them is joined. With a background, scores are normalised: pairs
    are sought down to the lowest cosine that can still reach the floor, and those that do not are dropped.

    Args:
        out: the run folder.
        shards: number of shards scanned.
        signal: the embedder's name.
        embedder: its specification.
        floor: the least score that is kept: a cosine, or with a background a normalised one.
        target_recall: of a clustered search.
        seed: of its sample and clusters.
        device: for torch; a GPU where there is one by default.
        what: for messages about this task.

    Returns:
        ``distinct`` vectors joined, ``edges`` written, the ``bound`` and the measured ``recall``.

    Raises:
        DedupkitError: more pairs than there is room for; the message proposes a floor.
    """
    del what
    folder = RunFolder(Path(out))
    first, _ = hash_column(folder, shards, "exact")
    leaders = _leaders(folder, shards, signal, first)
    recall = {"estimate": 1.0, "low": 1.0, "high": 1.0}

    def blocks(vectors: NDArray[np.float16]) -> Iterator[tuple[NDArray[Any], NDArray[Any], NDArray[np.float32]]]:
        options: dict[str, Any] = {"target_recall": target_recall, "seed": seed, "device": device}
        bias = _bias(embedder, vectors)
        least = floor if bias is None else min(1.0, max(-0.999, floor + float(bias.min())))
        for pairs in iter_cosine_pairs(vectors, least, max_pairs=_MAX_EDGES, **options):
            recall.update(estimate=pairs.recall.estimate, low=pairs.recall.low, high=pairs.recall.high)
            score = pairs.score if bias is None else normalise_scores(pairs.score, pairs.a, pairs.b, bias, bias)
            reached = score >= np.float32(floor)
            yield leaders[pairs.a[reached]], leaders[pairs.b[reached]], score[reached]

    gathered = temporary_path(folder.edges(signal).with_name("vectors.npy"))
    gathered.parent.mkdir(parents=True, exist_ok=True)
    try:
        vectors = _gather(folder, shards, signal, leaders, gathered)
        edges = write_edges(folder.edges(signal), blocks(vectors) if len(leaders) > 1 else ())
    except ValueError as error:
        raise DedupkitError(f"{signal}: {error}") from error
    finally:
        gathered.unlink(missing_ok=True)
    has_vector = np.zeros(len(first), bool)
    has_vector[leaders] = True
    with atomic_path(folder.labels(signal)) as temporary, temporary.open("wb") as stream:
        np.save(stream, np.where((first >= 0) & has_vector[np.maximum(first, 0)], first, -1).astype(np.int32))
    return {"distinct": len(leaders), "edges": edges, "bound": floor, "recall": recall}


def _bias(embedder: str, vectors: NDArray[np.float16]) -> NDArray[np.float32] | None:
    """What is subtracted from the scores of each vector, None without a background."""
    files = parse_spec(embedder).background()
    return ScoreNormaliser(np.concatenate([np.load(path) for path in files])).bias(vectors) if files else None


def _leaders(folder: RunFolder, shards: int, signal: str, first: NDArray[np.int32]) -> NDArray[np.int64]:
    """The samples whose vectors are joined: the first of each content that has one."""
    chosen: list[NDArray[np.int64]] = [np.zeros(0, np.int64)]
    start = 0
    for shard in range(shards):
        vectors = np.load(folder.embeddings(signal, shard), mmap_mode="r")
        rows = np.arange(start, start + len(vectors))
        chosen.append(rows[(first[rows] == rows) & vectors.any(axis=1)])
        start += len(vectors)
    return np.concatenate(chosen)


def _gather(folder: RunFolder, shards: int, signal: str, leaders: NDArray[np.int64], path: Path) -> NDArray[np.float16]:
    """Copy the chosen vectors into one file, which the join maps."""
    gathered: NDArray[np.float16] | None = None
    start = filled = 0
    for shard in range(shards):
        vectors = np.load(folder.embeddings(signal, shard), mmap_mode="r")
        if gathered is None:
            shape = (len(leaders), vectors.shape[1])
            gathered = np.lib.format.open_memmap(path, mode="w+", dtype=np.float16, shape=shape)
        low, high = np.searchsorted(leaders, [start, start + len(vectors)])
        gathered[filled : filled + high - low] = vectors[leaders[low:high] - start]
        filled, start = filled + int(high - low), start + len(vectors)
    return np.zeros((0, 1), np.float16) if gathered is None else gathered
