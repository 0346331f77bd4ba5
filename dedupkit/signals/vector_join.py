"""The search for similar vectors, within one set or between two: pairs above a bound, and nearest neighbours."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dedupkit.embedding.spec import parse_spec
from dedupkit.errors import import_optional
from dedupkit.neighbors.cosine.join import Join
from dedupkit.neighbors.cosine.neighbors import Neighbors
from dedupkit.neighbors.cosine.normalise import ScoreNormaliser, normalise_scores
from dedupkit.neighbors.cosine.pairs import KnownPairs
from dedupkit.neighbors.cosine.recall import Recall
from dedupkit.neighbors.cosine.settings import MEMORY, Settings
from dedupkit.signals.columns import Edges
from dedupkit.signals.signal import JoinSettings
from dedupkit.store import here

__all__ = [
    "KNOWN_FROM", "LEAST_PLACES", "MAX_EDGES", "MOST_RECALL", "bound_of_lists", "facts_before", "join_device",
    "join_vectors", "known_pairs", "list_length", "lower", "nearest", "stated",
]  # fmt: skip

Vectors = NDArray[np.float16]

LEAST_PLACES = 6000
"""Places that all lists of nearest neighbours have at least, up to the longest length."""

_LENGTHS = ((0.9999, 32), (0.999, 16), (0.995, 8), (0.0, 4))
"""Target recall from which on a list has this length; the longest first."""

MOST_RECALL = 0.9999
"""Target recall of a search in cells, at most."""

KNOWN_FROM = 1e12
"""Pairs from which on a search in cells is worth the hundredth of the copies that it may miss: fewer are compared in a
fraction of the time that verification takes."""

MAX_EDGES = 200_000_000
"""More edges than this mean that the floor is too low for the data; the error proposes another."""


def list_length(images: int, target_recall: float) -> int:
    """How many nearest neighbours of each image are candidates for verification: 4 to 32.

    A copy comes before every other image in the list of one of the two as a rule, and behind a few at worst; more are
    taken for a higher recall. Small sets afford longer lists, of ``LEAST_PLACES`` in all.
    """
    k = next(k for least, k in _LENGTHS if target_recall >= least)
    return max(k, min(_LENGTHS[0][1], LEAST_PLACES // max(images, 1)))


def facts_before(images: int, settings: JoinSettings) -> dict[str, Any]:
    """What is known of a join before anything was found, which :func:`join_vectors` completes.

    Args:
        images: Number of vectors, of both sets.
        settings: The bound, the floor and the search.

    Returns:
        The ``bound`` at or above which all pairs are there, and the measured ``recall``, as :func:`stated` has it.
        Where nearest neighbours are sought, ``ranks``: their ``floor``, the length ``k`` of a list, and the number of
        lists that are ``full``, so that more neighbours may reach the floor.
    """
    facts: dict[str, Any] = {"bound": settings.bound, "recall": {"estimate": 1.0, "low": 1.0, "high": 1.0}}
    if settings.floor is not None:
        k = list_length(images, settings.target_recall)
        facts |= {"bound": min(settings.bound, settings.floor), "ranks": {"floor": settings.floor, "k": k, "full": 0}}
    return facts


def join_vectors(spec: str, sets: Sequence[Vectors], settings: JoinSettings, facts: dict[str, Any]) -> Iterator[Edges]:
    """Pairs of places in one set of vectors or in two, each once: all within the bound, the nearest above the floor.

    With a background, scores are normalised: pairs are sought down to the lowest cosine that can still reach the bound,
    and those that do not are dropped.

    Args:
        spec: The embedder.
        sets: One set, joined with itself, or two; of two, each vector of the first seeks its nearest in the second.
        settings: The bound (a cosine, or with a background a normalised score), the floor and the search.
        facts: From :func:`facts_before`; complete when all pairs were drawn.
    """
    if settings.bound < np.inf:
        yield from _within(spec, sets, settings, facts["recall"])
    if settings.floor is not None:
        ranks = facts["ranks"]
        found = nearest(sets[0], settings.floor, settings, ranks["k"], other=None if len(sets) == 1 else sets[1])
        lower(facts["recall"], found.recall)
        ends = found.last[np.isfinite(found.last)]
        if len(ends):
            facts["bound"] = bound_of_lists(settings, float(ends.max()))
        ranks["full"] = len(ends)
        new = found.score < np.float32(settings.bound)
        yield found.a[new], found.b[new], found.score[new]


def _within(spec: str, sets: Sequence[Vectors], settings: JoinSettings, recall: dict[str, Any]) -> Iterator[Edges]:
    options: dict[str, Any] = {"seed": settings.seed, "device": join_device(settings), "max_pairs": MAX_EDGES}
    options |= {"method": "exact"} if settings.target_recall >= 1 else {"target_recall": settings.target_recall}
    floor = least = settings.bound
    biases = [_bias(spec, vectors) for vectors in sets]
    left, right = biases[0], biases[-1]
    if left is not None and right is not None:
        least = min(1.0, max(-0.999, floor + float(min(left.min(), right.min()))))
    other = None if len(sets) == 1 else sets[1]
    join = Join(sets[0], other, Settings(least, **options))
    recall.update(stated(join.facts[0]))
    for pairs in join.blocks():
        score = pairs.score
        if left is not None and right is not None:
            score = normalise_scores(score, pairs.a, pairs.b, left, right)
        reached = score >= np.float32(floor)
        yield pairs.a[reached], pairs.b[reached], score[reached]


def nearest(
    vectors: Vectors,
    floor: float,
    settings: JoinSettings,
    k: int,
    rows: NDArray[np.int64] | None = None,
    other: Vectors | None = None,
) -> Neighbors:
    """The k nearest neighbours of each vector, or of some rows, above a floor; see ``cosine_neighbors``."""
    from dedupkit.neighbors.cosine.neighbors import cosine_neighbors

    return cosine_neighbors(
        vectors,
        k,
        floor,
        other,
        rows=rows,
        method="auto" if settings.target_recall < 1 else "exact",
        target_recall=min(settings.target_recall, MOST_RECALL),
        seed=settings.seed,
        device=join_device(settings),
        memory=max(MEMORY, 64 * k * len(vectors)),
        known=known_pairs(settings),
    )


def known_pairs(settings: JoinSettings) -> KnownPairs | None:
    """The copies by which a search for nearest neighbours is planned, read from their file."""
    if settings.known is None:
        return None
    (path,) = here([Path(settings.known)])
    with np.load(path) as arrays:
        return KnownPairs(arrays["left"], arrays["right"], arrays["of"])


def join_device(settings: JoinSettings) -> str | None:
    """The device that was named, where the join can use it: the CPU in place of any but a CUDA device that torch sees.

    A model may run on others: on CUDA without torch, or on ``mps``.
    """
    device = settings.device
    if device is None:
        return None
    cuda = device.startswith("cuda") and importlib.util.find_spec("torch") is not None
    return device if cuda and import_optional("torch", "clip").cuda.is_available() else "cpu"


def bound_of_lists(settings: JoinSettings, last: float) -> float:
    """The bound at or above which all pairs are there, by the largest cosine at the end of a full list."""
    return min(settings.bound, float(np.nextafter(np.float32(last), np.float32(2))))  # others may have the same cosine


def stated(recall: Recall) -> dict[str, float | None]:
    """The ``estimate`` with its interval ``low`` to ``high``; None where the sample had no pair to measure it by."""
    estimate = None if np.isnan(recall.estimate) else recall.estimate
    return {"estimate": estimate, "low": recall.low, "high": recall.high}


def lower(recall: dict[str, Any], found: Recall) -> None:
    """Let the lower of two recalls stand, as which one counts that could not be measured."""
    if recall["estimate"] is not None and not found.estimate >= recall["estimate"]:
        recall.update(stated(found))


def _bias(spec: str, vectors: Vectors) -> NDArray[np.float32] | None:
    """What is subtracted from the scores of each vector, None without a background."""
    files = parse_spec(spec).background()
    return ScoreNormaliser(np.concatenate([np.load(path) for path in files])).bias(vectors) if files else None
