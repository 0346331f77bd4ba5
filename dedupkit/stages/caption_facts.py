"""What the captions of a run say about its groups, and what the caption mode makes of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from dedupkit.captions.modes import CaptionMode
from dedupkit.clustering import Decision
from dedupkit.signals.columns import Scanned
from dedupkit.stages.caption_keys import (
    CaptionCounts,
    CaptionKeys,
    captions_of_samples,
    count_captions,
    keys_of_samples,
)
from dedupkit.stages.group_captions import captions_of_groups, in_groups

__all__ = ["CaptionFacts", "caption_facts", "carried_captions", "template_samples"]

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
        changed: How many of these carry another caption than their own, or none.
        templates: Captions of more kept samples than the mode allows, as :func:`template_samples` lists them.
        given: Captions that kept samples of earlier runs gain by an update, as :func:`.earlier_captions.given_captions`
            lists them.
    """

    groups: pa.Table
    carried: dict[int, list[dict[str, Any]]] = field(default_factory=dict)
    changed: int = 0
    templates: pa.Table | None = None
    given: pa.Table | None = None


def caption_facts(
    scanned: Scanned,
    decision: Decision,
    readable: NDArray[np.bool_],
    mode: CaptionMode,
    earlier: CaptionKeys | None = None,
) -> CaptionFacts:
    """Look at the captions of duplicate groups, and at what the mode asks for.

    Captions that are equal after folding count as one, and empty ones not at all.

    Args:
        scanned: All samples.
        decision: Their verdicts.
        readable: (n,) bool, which samples took part.
        mode: What is done with captions.
        earlier: For templates the captions of earlier runs, which count too.
    """
    mine = in_groups(decision.group, readable)
    counts = captions_of_groups(scanned, decision.group, mine)
    groups = pa.table({
        "group": counts.group,
        "captions": counts.captions,
        "caption": captions_of_samples(scanned, counts.row),
        "caption_count": counts.uses,
    })  # fmt: skip
    if mode.kind == "merge":
        return CaptionFacts(groups, *_merged(scanned, np.flatnonzero(mine), decision))
    if mode.kind == "template":
        kept = readable & (decision.witness < 0)
        templates, samples = template_samples(scanned, kept, mode.uses, earlier)
        blank = samples[kept[samples]].tolist() if mode.action == "blank" else []
        return CaptionFacts(groups, {sample: [] for sample in blank}, len(blank), templates)
    return CaptionFacts(groups)


def template_samples(
    scanned: Scanned, kept: NDArray[np.bool_], uses: int, earlier: CaptionKeys | None = None
) -> tuple[pa.Table, Ints]:
    """Captions that more than ``uses`` kept samples have, and all samples that have them.

    Args:
        scanned: All samples.
        kept: (n,) bool, which are kept.
        uses: How many may have a caption.
        earlier: Captions of earlier runs, which count too.

    Returns:
        ``caption`` and ``count``, the most frequent first; for an update also ``earlier``, how many of the uses are of
        earlier runs; and the samples, ascending.
    """
    rows, own = np.flatnonzero(kept), len(kept)
    keys = keys_of_samples(scanned, rows, own)
    counts = mine = count_captions(np.zeros(len(rows), np.int64), keys, rows)
    if earlier is not None:
        every = np.concatenate([rows, own + np.arange(len(earlier.present))])  # a caption goes by its first sample
        together = CaptionKeys(*(np.concatenate(pair) for pair in zip(keys, earlier, strict=True)))
        counts = count_captions(np.zeros(len(every), np.int64), together, every)
    often = (counts.uses > uses) & (counts.row < own)
    chosen = counts.row[often]
    table = pa.table({"caption": captions_of_samples(scanned, chosen), "count": counts.uses[often]})
    if earlier is not None:
        used = dict(zip(mine.row.tolist(), mine.uses.tolist(), strict=True))
        here = np.array([used[row] for row in chosen.tolist()], np.int64)
        table = table.append_column("earlier", pa.array(counts.uses[often] - here))
    if not often.any():
        return table, rows[:0]
    keys = keys_of_samples(scanned, np.arange(own), own)
    wanted = keys_of_samples(scanned, np.sort(chosen), own)
    pairs = keys.hashes.view([("high", np.uint64), ("low", np.uint64)]).ravel()
    known = wanted.hashes.view(pairs.dtype).ravel()
    return table, np.flatnonzero(keys.present & np.isin(pairs, known))


def _merged(scanned: Scanned, grouped: Ints, decision: Decision) -> tuple[dict[int, list[dict[str, Any]]], int]:
    """By kept sample the captions of itself and of those that it stands for, if any; and how many have another one.

    Args:
        scanned: All samples.
        grouped: The samples that are of groups of two or more, ascending.
        decision: The verdicts.
    """
    keys = keys_of_samples(scanned, grouped, len(decision.witness))
    witness = decision.witness[grouped]
    target = np.where(witness >= 0, witness, grouped)
    stands = np.isin(target, witness[witness >= 0]) & (target < len(decision.witness))  # not those of earlier runs
    counts = count_captions(target[stands], CaptionKeys(keys.hashes[stands], keys.present[stands]), grouped[stands])
    kept, captions = np.unique(counts.group, return_counts=True)
    only_own = (captions == 1) & np.isin(kept, grouped[keys.present])
    return carried_captions(scanned, counts), int((~only_own).sum())


def carried_captions(scanned: Scanned, counts: CaptionCounts) -> dict[int, list[dict[str, Any]]]:
    """By group the captions that are carried, the most frequent first, with their counts."""
    kept, starts = np.unique(counts.group, return_index=True)
    place = np.arange(len(counts.group)) - np.repeat(starts, np.diff(np.append(starts, len(counts.group))))
    shown = place < _MOST
    texts = captions_of_samples(scanned, counts.row[shown]).to_pylist()
    carried: dict[int, list[dict[str, Any]]] = {sample: [] for sample in kept.tolist()}
    for sample, text, count in zip(counts.group[shown].tolist(), texts, counts.uses[shown].tolist(), strict=True):
        carried[sample].append({"caption": text, "count": count})
    return carried
