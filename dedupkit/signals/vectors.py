"""The join of an embedder's vectors: pairs at or above a floor, with the recall of the search."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dedupkit.embedding.spec import parse_spec
from dedupkit.errors import DedupkitError
from dedupkit.neighbors.cosine.join import iter_cosine_pairs
from dedupkit.neighbors.cosine.neighbors import Neighbors
from dedupkit.neighbors.cosine.normalise import ScoreNormaliser, normalise_scores, unit_rows
from dedupkit.neighbors.cosine.recall import Recall
from dedupkit.neighbors.cosine.settings import MEMORY
from dedupkit.signals.across import Across, restricted
from dedupkit.signals.columns import Edges, Scanned, write_edges
from dedupkit.signals.identity import Exact
from dedupkit.signals.signal import JoinSettings
from dedupkit.store import atomic_path, temporary_path

if TYPE_CHECKING:
    from dedupkit.signals.embedded import Embedded

__all__ = ["LEAST_PLACES", "across_vectors", "list_length", "match_vectors", "nearest_among", "vectors_of"]

LEAST_PLACES = 4000
"""Places that all lists of nearest neighbours have at least, up to the longest length."""

_LENGTHS = ((0.9999, 32), (0.999, 16), (0.995, 8), (0.0, 4))
"""Target recall from which on a list has this length; the longest first."""

_MAX_EDGES = 200_000_000
"""More edges than this mean that the floor is too low for the data; the error proposes another."""


def match_vectors(signal: Embedded, scanned: Scanned, settings: JoinSettings) -> dict[str, Any]:
    """Join the vectors of one embedder, and write edges and labels.

    Byte copies have one vector, so only the first of them is joined. With a background, scores are normalised: pairs
    are sought down to the lowest cosine that can still reach the floor, and those that do not are dropped.

    Args:
        signal: The embedder.
        scanned: All samples; their vectors are there.
        settings: The floor (a cosine, or with a background a normalised score) and the search.

    Returns:
        ``distinct`` vectors joined, ``edges`` written, the ``bound`` at or above which all pairs are there, and the
        measured ``recall``. Where nearest neighbours were sought, ``ranks``: their ``floor``, the length ``k`` of a
        list, and the number of lists that are ``full``, so that more neighbours may reach the floor.

    Raises:
        DedupkitError: More pairs than there is room for; the message proposes a floor.
    """
    folder = scanned.folder
    folder.ranked(signal.name).unlink(missing_ok=True)
    first = Exact("exact").labels(scanned)
    leaders = _leaders(scanned, signal.name, first)
    recall = {"estimate": 1.0, "low": 1.0, "high": 1.0}
    ranks: dict[str, Any] = {}

    def blocks(vectors: NDArray[np.float16]) -> Iterator[Edges]:
        if settings.bound < np.inf:
            yield from joined(vectors, settings.bound)
        if settings.floor is not None:
            k = list_length(len(vectors), settings.target_recall)
            found = _nearest(vectors, settings.floor, settings, k)
            ranks.update(_ranks(found, settings.floor, k))
            _lower(recall, found.recall)
            new = found.score < np.float32(settings.bound)
            yield leaders[found.a[new]], leaders[found.b[new]], found.score[new]

    def joined(vectors: NDArray[np.float16], floor: float) -> Iterator[Edges]:
        options = {"target_recall": settings.target_recall, "seed": settings.seed, "device": settings.device}
        bias = _bias(signal.spec, vectors)
        least = floor if bias is None else min(1.0, max(-0.999, floor + float(bias.min())))
        for pairs in iter_cosine_pairs(vectors, least, max_pairs=_MAX_EDGES, **options):  # type: ignore[arg-type]
            recall.update(estimate=pairs.recall.estimate, low=pairs.recall.low, high=pairs.recall.high)
            score = pairs.score if bias is None else normalise_scores(pairs.score, pairs.a, pairs.b, bias, bias)
            reached = score >= np.float32(floor)
            yield leaders[pairs.a[reached]], leaders[pairs.b[reached]], score[reached]

    gathered = temporary_path(folder.edges(signal.name).with_name("vectors.npy"))
    gathered.parent.mkdir(parents=True, exist_ok=True)
    try:
        vectors = _gather(scanned, signal.name, leaders, gathered)
        written = write_edges(folder.edges(signal.name), blocks(vectors) if len(leaders) > 1 else ())
    except ValueError as error:
        raise DedupkitError(f"{signal.name}: {error}") from error
    finally:
        gathered.unlink(missing_ok=True)
    with atomic_path(folder.labels(signal.name)) as temporary, temporary.open("wb") as stream:
        np.save(stream, _with_vector(first, leaders))
    bound = min(settings.bound, ranks.pop("complete", settings.bound if settings.floor is None else settings.floor))
    facts = {"distinct": len(leaders), **written._asdict(), "bound": bound, "recall": recall}
    if settings.floor is None:
        return facts
    return {
        **facts,
        "ranks": {"floor": settings.floor, "k": list_length(len(leaders), settings.target_recall), "full": 0, **ranks},
    }


def nearest_among(
    name: str, scanned: Scanned, samples: NDArray[np.int64], settings: JoinSettings, wanted: NDArray[np.int64], k: int
) -> Neighbors:
    """The nearest neighbours of some samples among others; pairs are places in ``samples``.

    Args:
        name: The embedder.
        scanned: All samples; their vectors are there.
        samples: (m,) ascending, the samples to look among; all have a vector.
        settings: The floor and the search.
        wanted: Places in ``samples`` of those whose neighbours are sought.
        k: Length of a list.
    """
    gathered = temporary_path(scanned.folder.edges(name).with_name("vectors.npy"))
    try:
        vectors = _gather(scanned, name, samples, gathered)
        return _nearest(vectors, settings.floor or 0.0, settings, k, wanted)
    except ValueError as error:
        raise DedupkitError(f"{name}: {error}") from error
    finally:
        gathered.unlink(missing_ok=True)


def list_length(images: int, target_recall: float) -> int:
    """How many nearest neighbours of each image are candidates for verification: 4 to 32.

    A copy comes before every other image in the list of one of the two as a rule, and behind a few at worst; more are
    taken for a higher recall. Small sets afford longer lists, of ``LEAST_PLACES`` in all.
    """
    k = next(k for least, k in _LENGTHS if target_recall >= least)
    return max(k, min(_LENGTHS[0][1], LEAST_PLACES // max(images, 1)))


def _nearest(
    vectors: NDArray[np.float16],
    floor: float,
    settings: JoinSettings,
    k: int,
    rows: NDArray[np.int64] | None = None,
    other: NDArray[np.float16] | None = None,
) -> Neighbors:
    from dedupkit.neighbors.cosine.neighbors import cosine_neighbors

    return cosine_neighbors(
        vectors,
        k,
        floor,
        other,
        rows=rows,
        method="auto" if settings.target_recall < 1 else "exact",
        target_recall=min(settings.target_recall, 0.9999),
        seed=settings.seed,
        device=settings.device,
        memory=max(MEMORY, 64 * k * len(vectors)),
    )


def _ranks(found: Neighbors, floor: float, k: int) -> dict[str, Any]:
    """What is known of lists of k nearest neighbours; ``complete``: the score from which on they hold all pairs."""
    ends = found.last[np.isfinite(found.last)]
    # A list ends at its last score, and others may have the same.
    complete = floor if not len(ends) else float(np.nextafter(ends.max(), np.float32(2)))
    return {"floor": floor, "k": k, "full": len(ends), "complete": complete}


def across_vectors(
    signal: Embedded, own: Scanned, other: Scanned, part: NDArray[np.bool_], settings: JoinSettings
) -> Across:
    """Join the vectors of a run's samples with those of the rows of a reference that take part.

    Args:
        signal: The embedder.
        own: The samples; their vectors are there.
        other: The rows of the reference; theirs are there too.
        part: (m,) bool, which rows take part.
        settings: The bound and the search; with a floor each sample's nearest rows above it are found too, as many as
            a run over both would list.

    Raises:
        DedupkitError: Vectors of two lengths; more pairs than there is room for.
    """
    labels, leaders = [], []
    for scanned, mask in ((own, None), (other, part)):
        first = Exact("exact").labels(scanned)
        first = first if mask is None else restricted(first, mask)
        leaders.append(_leaders(scanned, signal.name, first))
        labels.append(_with_vector(first, leaders[-1]))
    recall = {"estimate": 1.0, "low": 1.0, "high": 1.0}
    floor, k = settings.floor, list_length(len(leaders[0]) + len(leaders[1]), settings.target_recall)
    facts: dict[str, Any] = {"recall": recall}
    if floor is not None:
        facts |= {"bound": min(settings.bound, floor), "ranks": {"floor": floor, "k": k, "full": 0}}

    def blocks() -> Iterator[Edges]:
        if not len(leaders[0]) or not len(leaders[1]):
            return
        try:
            with TemporaryDirectory(prefix="dedupkit-", dir=own.folder.path) as folder:
                sides = [
                    _gather(scanned, signal.name, mine, Path(folder, f"{side}.npy"))
                    for side, (scanned, mine) in enumerate(zip((own, other), leaders, strict=True))
                ]
                if sides[0].shape[1] != sides[1].shape[1]:
                    raise DedupkitError(
                        f"the vectors of {signal.name} have {sides[0].shape[1]} values here and {sides[1].shape[1]} in "
                        f"{other.folder.path}: they are of another model; --compute-missing computes them for it"
                    )
                if settings.bound < np.inf:
                    yield from _joined(signal, sides, leaders, settings, recall)
                if floor is not None:
                    found = _nearest(sides[0], floor, settings, k, other=sides[1])
                    _lower(recall, found.recall)
                    ranks = _ranks(found, floor, k)
                    facts.update(bound=min(settings.bound, ranks.pop("complete")), ranks=ranks)
                    new = found.score < np.float32(settings.bound)
                    yield leaders[0][found.a[new]], leaders[1][found.b[new]], found.score[new]
        except ValueError as error:
            raise DedupkitError(f"{signal.name}: {error}") from error

    return Across(labels[0], labels[1], blocks(), facts)


def _lower(recall: dict[str, float], found: Recall) -> None:
    """Let the lower of two recalls stand."""
    if found.estimate < recall["estimate"]:
        recall.update(estimate=found.estimate, low=found.low, high=found.high)


def _joined(
    signal: Embedded,
    sides: list[NDArray[np.float16]],
    leaders: list[NDArray[np.int64]],
    settings: JoinSettings,
    recall: dict[str, float],
) -> Iterator[Edges]:
    """The pairs of two sets of vectors, named by the rows that they belong to."""
    options = {"target_recall": settings.target_recall, "seed": settings.seed, "device": settings.device}
    floor = settings.bound
    bias = [_bias(signal.spec, side) for side in sides]
    least = floor
    if bias[0] is not None and bias[1] is not None:
        least = min(1.0, max(-0.999, floor + float(min(bias[0].min(), bias[1].min()))))
    for pairs in iter_cosine_pairs(sides[0], least, sides[1], max_pairs=_MAX_EDGES, **options):  # type: ignore[arg-type]
        recall.update(estimate=pairs.recall.estimate, low=pairs.recall.low, high=pairs.recall.high)
        score = pairs.score
        if bias[0] is not None and bias[1] is not None:
            score = normalise_scores(score, pairs.a, pairs.b, bias[0], bias[1])
        reached = score >= np.float32(floor)
        yield leaders[0][pairs.a[reached]], leaders[1][pairs.b[reached]], score[reached]


def vectors_of(scanned: Scanned, name: str, samples: NDArray[np.int64]) -> NDArray[np.float32]:
    """The vectors of some samples, ascending, at unit length; zeros where one has none."""
    parts: list[NDArray[np.float16]] = []
    start = 0
    for shard in range(scanned.shards):
        vectors = np.load(scanned.folder.embeddings(name, shard), mmap_mode="r")
        low, high = np.searchsorted(samples, [start, start + len(vectors)])
        parts.append(vectors[samples[low:high] - start])
        start += len(vectors)
    return unit_rows(np.concatenate(parts))


def _with_vector(first: NDArray[np.int32], leaders: NDArray[np.int64]) -> NDArray[np.int32]:
    """The labels of those whose first sample has a vector, -1 for the others."""
    has_vector = np.zeros(len(first), bool)
    has_vector[leaders] = True
    return np.where((first >= 0) & has_vector[np.maximum(first, 0)], first, -1).astype(np.int32)


def _bias(spec: str, vectors: NDArray[np.float16]) -> NDArray[np.float32] | None:
    """What is subtracted from the scores of each vector, None without a background."""
    files = parse_spec(spec).background()
    return ScoreNormaliser(np.concatenate([np.load(path) for path in files])).bias(vectors) if files else None


def _leaders(scanned: Scanned, name: str, first: NDArray[np.int32]) -> NDArray[np.int64]:
    """The samples whose vectors are joined: the first of each content that has one."""
    chosen: list[NDArray[np.int64]] = [np.zeros(0, np.int64)]
    start = 0
    for shard in range(scanned.shards):
        vectors = np.load(scanned.folder.embeddings(name, shard), mmap_mode="r")
        rows = np.arange(start, start + len(vectors))
        chosen.append(rows[(first[rows] == rows) & vectors.any(axis=1)])
        start += len(vectors)
    return np.concatenate(chosen)


def _gather(scanned: Scanned, name: str, leaders: NDArray[np.int64], path: Path) -> NDArray[np.float16]:
    """Copy the chosen vectors into one file, which the join maps."""
    gathered: NDArray[np.float16] | None = None
    start = filled = 0
    for shard in range(scanned.shards):
        vectors = np.load(scanned.folder.embeddings(name, shard), mmap_mode="r")
        if gathered is None:
            shape = (len(leaders), vectors.shape[1])
            gathered = np.lib.format.open_memmap(path, mode="w+", dtype=np.float16, shape=shape)
        low, high = np.searchsorted(leaders, [start, start + len(vectors)])
        gathered[filled : filled + high - low] = vectors[leaders[low:high] - start]
        filled, start = filled + int(high - low), start + len(vectors)
    return np.zeros((0, 1), np.float16) if gathered is None else gathered
