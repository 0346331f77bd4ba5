"""What the captions of a run say about its groups, and what the caption mode makes of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from dedupkit.captions.folding import Folding
from dedupkit.captions.modes import CaptionMode
from dedupkit.clustering import Decision
from dedupkit.metadata.keys import Keys, caption_keys
from dedupkit.signals.columns import Scanned
from dedupkit.store import read_columns

__all__ = ["CaptionFacts", "caption_facts", "template_samples"]

_FEW = 50_000  # samples
_MOST = 20  # captions that a kept sample carries

Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class CaptionFacts:
    """Captions of groups and of kept samples.

    Attributes:
        groups: One row a group that has captions: ``group`` (ascending), ``captions`` (distinct ones), ``caption`` (the
            most frequent) and ``caption_count`` (how often it occurs).
        carried: By kept sample the captions that stand for its own, the most frequent first, with their counts; empty
            where its caption is blanked.
        templates: Captions of more kept samples than the mode allows (``caption``, ``count``), the most frequent first.
    """

    groups: pa.Table
    carried: dict[int, list[dict[str, Any]]] = field(default_factory=dict)
    templates: pa.Table | None = None


def caption_facts(scanned: Scanned, decision: Decision, readable: NDArray[np.bool_], mode: CaptionMode) -> CaptionFacts:
    """Look at the captions of duplicate groups, and at what the mode asks for.

    Captions that are equal after folding count as one, and empty ones not at all.

    Args:
        scanned: All samples.
        decision: Their verdicts.
        readable: (n,) bool, which samples took part.
        mode: What is done with captions.
    """
    sizes = np.bincount(decision.group, minlength=len(decision.group))
    grouped = np.flatnonzero((sizes[decision.group] > 1) & readable)
    keys = _keys(scanned, grouped, len(readable))
    counts = _count(decision.group[grouped].astype(np.int64), keys, grouped)
    ids, starts, distinct = np.unique(counts.group, return_index=True, return_counts=True)
    groups = pa.table({
        "group": ids,
        "captions": distinct.astype(np.int32),
        "caption": _captions(scanned, counts.row[starts]),
        "caption_count": counts.uses[starts].astype(np.int32),
    })  # fmt: skip
    if mode.kind == "merge":
        return CaptionFacts(groups, _merged(scanned, grouped, keys, decision))
    if mode.kind == "template":
        templates, samples = template_samples(scanned, readable & (decision.witness < 0), mode.uses)
        carried: dict[int, list[Any]] = {sample: [] for sample in samples.tolist()} if mode.action == "blank" else {}
        return CaptionFacts(groups, carried, templates)
    return CaptionFacts(groups)


def template_samples(scanned: Scanned, kept: NDArray[np.bool_], uses: int) -> tuple[pa.Table, Ints]:
    """Captions that more than ``uses`` kept samples have, the most frequent first; and all samples that have them."""
    rows = np.flatnonzero(kept)
    counts = _count(np.zeros(len(rows), np.int64), _keys(scanned, rows, len(kept)), rows)
    often = counts.uses > uses
    table = pa.table({"caption": _captions(scanned, counts.row[often]), "count": counts.uses[often]})
    if not often.any():
        return table, rows[:0]
    every = np.arange(len(kept))
    keys = _keys(scanned, every, len(kept))
    wanted = _keys(scanned, np.sort(counts.row[often]), len(kept))
    pairs = keys.hashes.view([("high", np.uint64), ("low", np.uint64)]).ravel()
    known = wanted.hashes.view(pairs.dtype).ravel()
    return table, every[(keys.present) & np.isin(pairs, known)]


class _Keys(NamedTuple):
    """Folded captions of some samples as keys, (n, 2) uint64, and which have any."""

    hashes: NDArray[np.uint64]
    present: NDArray[np.bool_]


class _Counts(NamedTuple):
    """Captions by group, the most frequent first, then that of the first sample: group, a sample that has it, uses."""

    group: Ints
    row: Ints
    uses: Ints


def _count(group: Ints, keys: _Keys, rows: Ints) -> _Counts:
    mine = keys.present
    group, high, low, rows = group[mine], keys.hashes[mine, 0], keys.hashes[mine, 1], rows[mine]
    order = np.lexsort((rows, low, high, group))
    fresh = np.zeros(len(order), bool)
    fresh[:1] = True
    fresh[1:] |= np.diff(group[order]) != 0
    for half in (high[order], low[order]):
        fresh[1:] |= half[1:] != half[:-1]
    starts = np.flatnonzero(fresh)
    groups, first, size = group[order[starts]], rows[order[starts]], np.diff(np.append(starts, len(order)))
    best = np.lexsort((first, -size, groups))
    return _Counts(groups[best], first[best], size[best])


def _merged(scanned: Scanned, grouped: Ints, keys: _Keys, decision: Decision) -> dict[int, list[dict[str, Any]]]:
    """By kept sample the captions of itself and of those that it stands for, if it stands for any."""
    witness = decision.witness[grouped]
    target = np.where(witness >= 0, witness, grouped)
    stands = np.isin(target, witness[witness >= 0]) & (target < len(decision.witness))  # not those of earlier runs
    counts = _count(target[stands], _Keys(keys.hashes[stands], keys.present[stands]), grouped[stands])
    kept, starts = np.unique(counts.group, return_index=True)
    place = np.arange(len(counts.group)) - np.repeat(starts, np.diff(np.append(starts, len(counts.group))))
    shown = place < _MOST
    texts = _captions(scanned, counts.row[shown]).to_pylist()
    carried: dict[int, list[dict[str, Any]]] = {sample: [] for sample in kept.tolist()}
    for sample, text, count in zip(counts.group[shown].tolist(), texts, counts.uses[shown].tolist(), strict=True):
        carried[sample].append({"caption": text, "count": count})
    return carried


def _keys(scanned: Scanned, rows: Ints, samples: int) -> _Keys:
    """Keys of the captions of some of a run's samples."""
    hashes, present = np.zeros((len(rows), 2), np.uint64), np.zeros(len(rows), bool)
    folding = Folding()
    for low, high, column in _parts(scanned, rows):
        keys = _few_keys(column, folding) if samples < _FEW else caption_keys(column, folding)
        hashes[low:high], present[low:high] = keys.hashes, keys.state.astype(bool)
    return _Keys(hashes, present)


def _few_keys(column: pa.Array, folding: Folding) -> Keys:
    """Keys without compiled code, whose loading takes longer than a short run."""
    folded = [folding(text) if text else "" for text in column.to_pylist()]
    digests = (blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest() for text in folded)
    hashes = np.frombuffer(b"".join(digests), np.uint64).reshape(-1, 2)
    return Keys(hashes, np.array([bool(text) for text in folded], np.uint8))


def _captions(scanned: Scanned, rows: Ints) -> pa.Array:
    """The captions of some samples, in any order."""
    order = np.argsort(rows, kind="stable")
    found = pa.concat_arrays([pa.array([], pa.large_string()), *(part for _, _, part in _parts(scanned, rows[order]))])
    back = np.empty(len(rows), np.int64)
    back[order] = np.arange(len(rows))
    return found.take(pa.array(back))


def _parts(scanned: Scanned, rows: Ints) -> Iterator[tuple[int, int, pa.Array]]:
    """The captions of some samples, ascending, one shard in memory at a time; and which of the rows they are."""
    start = 0
    for shard in range(scanned.shards):
        column = read_columns(scanned.folder.samples(shard), ["caption"])["caption"]
        low, high = np.searchsorted(rows, [start, start + len(column)]).tolist()
        if high > low:
            yield low, high, column.take(pa.array(rows[low:high] - start)).combine_chunks().cast(pa.large_string())
        start += len(column)
