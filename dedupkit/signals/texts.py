"""The captions of a run as word sets: their join, their labels, and the similarity of given pairs."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from dedupkit.captions.folding import Folding, words
from dedupkit.captions.tokens import tokenize
from dedupkit.neighbors.sets.join import Sets, iter_jaccard_pairs
from dedupkit.neighbors.sets.lsh import join_distinct
from dedupkit.signals.across import Across, restricted
from dedupkit.signals.columns import Edges, write_edges
from dedupkit.signals.matches import leading
from dedupkit.store import atomic_path, read_columns

if TYPE_CHECKING:
    from dedupkit.signals.columns import Scanned
    from dedupkit.signals.signal import JoinSettings

__all__ = [
    "across_captions", "across_uncaptioned", "caption_sets", "first_rows", "folded_captions", "match_captions",
    "similarities", "uncaptioned",
]  # fmt: skip


def match_captions(name: str, scanned: Scanned, settings: JoinSettings) -> dict[str, Any]:
    """Join the captions of all readable samples, and write edges and labels.

    Returns:
        ``distinct`` word sets, ``edges`` written, the ``bound``, the steps of ``folding``, and the ``method`` in words.
    """
    folding = Folding()
    sets = caption_sets(scanned, folding)
    blocks, method = join_distinct(sets, settings.bound, workers=settings.workers, seed=1)
    written = write_edges(scanned.folder.edges(name), (_edges(block) for block in blocks))
    with atomic_path(scanned.folder.labels(name)) as temporary, temporary.open("wb") as stream:
        np.save(stream, first_rows(sets))
    return {
        "distinct": len(sets.first), **written._asdict(), "bound": settings.bound, "folding": str(folding),
        "method": method,
    }  # fmt: skip


def caption_sets(scanned: Scanned, folding: Folding) -> Sets:
    """The word sets of the captions of all readable samples."""
    offsets, tokens, _ = tokenize(_captions(scanned), folding)
    return Sets.of(offsets, tokens)


def first_rows(sets: Sets) -> NDArray[np.int32]:
    """For each row the first with the same set, -1 for an empty one."""
    first = sets.first[np.maximum(sets.row, 0)] if len(sets.first) else -1
    return np.where(sets.row >= 0, first, -1).astype(np.int32)


def _edges(block: Any) -> Edges:
    return block.a, block.b, block.score


def _captions(scanned: Scanned) -> Iterator[str | None]:
    """The captions of all samples, one shard at a time; None for unreadable samples."""
    for shard in range(scanned.shards):
        table = read_columns(scanned.folder.samples(shard), ["caption", "error"])
        for caption, error in zip(table["caption"].to_pylist(), table["error"].to_pylist(), strict=True):
            yield caption if error is None else None


def uncaptioned(scanned: Scanned) -> NDArray[np.int32]:
    """(n,) int32: the first readable sample without a caption for each of these, -1 for all others."""
    folding = Folding()
    empty = [caption is None or not folding(caption) for caption in _captions(scanned)]
    readable = scanned.readable()
    mine = np.flatnonzero(np.array(empty, bool) & readable)
    labels = np.full(len(readable), -1, np.int32)
    labels[mine] = mine[0] if len(mine) else -1
    return labels


def across_captions(own: Scanned, other: Scanned, active: NDArray[np.bool_], settings: JoinSettings) -> Across:
    """Join the captions of a run's samples with those of the rows of a reference that take part, exactly."""
    texts = chain(_captions(own), (text if used else None for text, used in zip(_captions(other), active, strict=True)))
    offsets, tokens, _ = tokenize(texts, Folding())
    count = len(offsets) - 1 - len(active)
    cut = offsets[count]
    sides = Sets.pair((offsets[: count + 1], tokens[:cut]), (offsets[count:] - cut, tokens[cut:]))
    labels = [first_rows(side) for side in sides]
    found = iter_jaccard_pairs(sides, settings.bound, workers=settings.workers)
    return Across(labels[0], labels[1], (_edges(block) for block in found))


def across_uncaptioned(own: Scanned, other: Scanned, active: NDArray[np.bool_]) -> Across:
    """The pair of the first samples without a caption."""
    mine, theirs = uncaptioned(own), restricted(uncaptioned(other), active)
    a, b = leading(mine), leading(theirs)
    pairs = min(len(a), len(b))
    return Across(mine, theirs, iter([(a[:pairs], b[:pairs], np.zeros(pairs, np.float32))]))


def folded_captions(scanned: Scanned, samples: NDArray[np.int64]) -> tuple[NDArray[np.bool_], NDArray[Any]]:
    """Which of some samples have a caption, (k,) bool; and the words of these, separated by spaces, as objects."""
    folding = Folding()
    column = scanned.read("caption")["caption"].take(pa.array(samples)).to_pylist()
    folded = [folding(caption) if caption else "" for caption in column]
    present = np.array([bool(text) for text in folded], bool)
    return present, np.array([words(text) or text for text in folded if text] or [], object)


def similarities(left: NDArray[Any], right: NDArray[Any]) -> NDArray[np.float32]:
    """Jaccard similarities of the word sets of pairs of texts, (m,) float32."""
    sets = ((set(one.split()) or {one}, set(other.split()) or {other}) for one, other in zip(left, right, strict=True))
    return np.array([len(one & other) / len(one | other) for one, other in sets], np.float32)
