"""Captions between an update and the runs before it: what counts for templates, and what kept samples gain."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dedupkit.captions.modes import CaptionMode
from dedupkit.runfolder import RunConfig, RunFolder
from dedupkit.signals.columns import Scanned
from dedupkit.stages.caption_facts import carried_captions
from dedupkit.stages.caption_keys import CaptionKeys, count_captions, keys_of_column, keys_of_samples
from dedupkit.stages.manifest_table import MANIFEST_SCHEMA, OutsideWitnesses
from dedupkit.store import read_columns

__all__ = ["earlier_uses", "given_captions"]


def earlier_uses(config: RunConfig, samples: int) -> CaptionKeys | None:
    """The captions of the samples that earlier runs keep or dropped as templates, an entry a sample.

    Args:
        config: What was asked of the run.
        samples: Number of its samples, which says how keys are made.

    Returns:
        Their keys; None where there is no earlier run.
    """
    found = []
    for reference in config.references:
        if reference.role == "earlier":
            run = RunFolder(reference.path)
            theirs = run.read_config()
            kept = pc.equal(read_columns(run.manifest, ["verdict"])["verdict"], "keep").to_numpy()
            found.append(keys_of_samples(Scanned(run, len(theirs.shards)), np.flatnonzero(kept), samples))
            mode = CaptionMode.parse(theirs.captions)
            if mode.kind == "template" and mode.action == "drop":
                found.append(_dropped(run, samples))
    return CaptionKeys(*map(np.concatenate, zip(*found, strict=True))) if found else None


def given_captions(scanned: Scanned, witnesses: OutsideWitnesses, samples: int) -> pa.Table:
    """The captions that duplicates among new samples bring to kept samples of earlier runs, which stay as they are.

    Args:
        scanned: All samples.
        witnesses: For each removed sample the kept one of an earlier run.
        samples: Number of samples.

    Returns:
        ``source`` (the earlier run), ``sample`` and ``key`` there, and ``captions`` as in the manifest.
    """
    kind = MANIFEST_SCHEMA.field("captions").type
    pair = witnesses.references * (int(witnesses.numbers.max(initial=0)) + 1) + witnesses.numbers
    _, first, group = np.unique(pair, return_index=True, return_inverse=True)
    keys = keys_of_samples(scanned, witnesses.samples, samples)
    carried = carried_captions(scanned, count_captions(group.astype(np.int64), keys, witnesses.samples))
    place = pa.array(first[sorted(carried)], pa.int64())
    columns = (witnesses.sources, pa.array(witnesses.numbers), witnesses.keys)
    taken = [column.take(place) for column in columns]
    captions = pa.array([carried[number] for number in sorted(carried)], kind)
    return pa.table([*taken, captions], names=["source", "sample", "key", "captions"])


def _dropped(run: RunFolder, samples: int) -> CaptionKeys:
    """The captions of the samples that a run dropped for them; those of runs before it are counted there."""
    table = read_columns(run.templates)
    uses = table["count"].to_numpy()
    if "earlier" in table.column_names:
        uses = uses - table["earlier"].to_numpy()
    keys = keys_of_column(table["caption"].combine_chunks().cast(pa.large_string()), samples)
    return CaptionKeys(np.repeat(keys.hashes, uses, axis=0), np.repeat(keys.present, uses))
