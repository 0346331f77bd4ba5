"""The decide stage: edges and a rule in, manifest and groups out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from dedupkit.clustering import Policy, Rule, decide
from dedupkit.clustering.rules import reason_of
from dedupkit.manifest.tables import write_groups, write_manifest
from dedupkit.runfolder.folder import RunFolder
from dedupkit.signals import find_signal
from dedupkit.signals.columns import Scanned, read_column
from dedupkit.store import read_columns

__all__ = ["decide_and_write"]


def decide_and_write(folder: RunFolder, sources: list[str], rule: Rule, policy: Policy) -> dict[str, Any]:
    """Decide, and write the manifest and the groups.

    Args:
        folder: a run whose samples and edges are there.
        sources: one name per shard.
        rule: what makes two samples duplicates.
        policy: which of them is kept.

    Returns:
        Counts for the summary: ``samples``, ``keep``, ``remove``, ``unreadable``, ``reasons``, ``groups``,
        ``largest_group``, ``edges``.
    """
    shards = len(sources)
    readable = read_column(folder, shards, "error")["error"].is_null().to_numpy()
    order = policy.order(_policy_columns(folder, shards, policy), len(readable))
    signals = {name: find_signal(name).matches(Scanned(folder, shards)) for name in rule.signals}
    decision = decide(rule, signals, order, readable)
    counts = write_manifest(
        folder.manifest,
        [folder.samples(shard) for shard in range(shards)],
        sources,
        decision,
        [reason_of(clause) for clause in rule.clauses],
    )
    groups, largest = write_groups(folder.groups, decision, readable)
    return {
        "samples": len(readable),
        **{verdict: counts.verdicts.get(verdict, 0) for verdict in ("keep", "remove", "unreadable")},
        "reasons": dict(sorted(counts.reasons.items())),
        "groups": groups,
        "largest_group": largest,
        "edges": decision.edges,
    }


def _policy_columns(folder: RunFolder, shards: int, policy: Policy) -> dict[str, NDArray[Any]]:
    """The policy's columns as float64, NaN where missing."""
    values: dict[str, NDArray[Any]] = {}
    for name in policy.needs:
        if name == "pixels":
            table = read_column(folder, shards, "width", "height")
            width, height = (_floats(table[side]) for side in ("width", "height"))
            values[name] = width * height
        elif name == "caption_length":
            # One shard at a time: captions can be larger than everything else together.
            columns = (read_columns(folder.samples(shard), ["caption"])["caption"] for shard in range(shards))
            lengths = [pc.utf8_length(column) for column in columns]
            values[name] = np.concatenate([_floats(part) for part in lengths])
        else:
            values[name] = _floats(read_column(folder, shards, name)[name])
    return values


def _floats(column: Any) -> NDArray[np.float64]:
    result: NDArray[np.float64] = column.cast("float64").to_numpy()
    return result
