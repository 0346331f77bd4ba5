"""``audit.parquet``: one row for each generated image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from dedupkit.memorization.again import Seen
from dedupkit.memorization.copied import group_facts
from dedupkit.memorization.floor import share_as_near
from dedupkit.memorization.nearest import Nearest
from dedupkit.memorization.neighbours import Neighbours
from dedupkit.memorization.prompted import Prompted
from dedupkit.memorization.small import Small

__all__ = ["PROMPT_SCHEMA", "SCHEMA", "Decided", "audit_table", "prompt_table"]

SCHEMA = pa.schema(
    [
        ("key", pa.string()),
        ("source", pa.string()),
        ("prompt", pa.string()),
        ("error", pa.string()),
        ("copy", pa.bool_()),
        ("signal", pa.string()),
        ("score", pa.float32()),
        ("floor", pa.float32()),
        ("threshold", pa.float32()),
        ("cosine", pa.float32()),
        ("train_key", pa.string()),
        ("train_source", pa.string()),
        ("train_run", pa.string()),
        ("train_verdict", pa.string()),
        ("kept_key", pa.string()),
        ("kept_source", pa.string()),
        ("group", pa.int64()),
        ("group_size", pa.int32()),
        ("group_kept", pa.int32()),
        ("one_left", pa.bool_()),
        ("captions", pa.int32()),
        ("caption", pa.string()),
        ("caption_count", pa.int32()),
        ("verified", pa.bool_()),
        ("relation", pa.string()),
        ("tile_distance", pa.float32()),
        ("clique", pa.int32()),
        ("adaptive", pa.float32()),
        ("adaptive_key", pa.string()),
        ("adaptive_source", pa.string()),
    ]
)
"""Columns of ``audit.parquet`` and ``audit.csv``; docs/memorization.md says what each holds."""

PROMPT_SCHEMA = pa.schema(
    [
        ("prompt", pa.string()),
        ("generations", pa.int32()),
        ("compared", pa.int32()),
        ("clique", pa.int32()),
        ("extracted", pa.bool_()),
        ("width", pa.float32()),
        ("middle_key", pa.string()),
        ("train_key", pa.string()),
        ("train_source", pa.string()),
        ("tile_distance", pa.float32()),
    ]
)
"""Columns of ``prompts.parquet``: one row for each prompt with enough generations for a clique."""


@dataclass(frozen=True, slots=True)
class Decided:
    """What an audit knows of its images.

    Attributes:
        made: The generated images.
        copy: (n,) bool, which are copies.
        cosine: Least cosine of a copy; None where none is known.
        real: Held-out real images; None without any.
        seen: Pairs of a generated image and a training sample that were looked at.
        prompted: The prompts with several generations.
        small: What the distance for small images says; None where it was not asked for.
    """

    made: Nearest
    copy: NDArray[np.bool_]
    cosine: float | None
    real: Nearest | None
    seen: dict[tuple[int, int], Seen]
    prompted: Prompted
    small: Small | None


def audit_table(near: Neighbours, found: Decided, max_distance: int, name: str | None) -> pa.Table:
    """One row for each generated image.

    Args:
        near: The training set.
        found: What is known of the images.
        max_distance: Largest PDQ distance of a copy, in bits.
        name: The embedder; None where no vectors were compared.
    """
    made, samples = found.made, found.made.sample
    floors = _floors(made, found.real)
    groups = near.column("group").take(pa.array(samples[samples >= 0])).drop_null().to_numpy()
    facts = group_facts(near, groups)
    cliques = {row: len(each.clique) for each in found.prompted.cliques for row in each.clique}
    texts = {name: made.images[name].to_pylist() for name in ("key", "source", "caption", "reason")}
    rows: list[dict[str, Any]] = []
    for row, sample in enumerate(samples.tolist()):
        readable = bool(made.readable[row])
        line: dict[str, Any] = {
            "key": texts["key"][row],
            "source": texts["source"][row],
            "prompt": texts["caption"][row],
            "error": None if readable else texts["reason"][row],
            "copy": bool(found.copy[row]),
            "cosine": _number(made.cosine[row]),
            "clique": cliques.get(row),
        }
        if readable and sample >= 0:
            by_hash = made.hash_sample[row] >= 0
            each = near.describe(sample, "pdq" if by_hash else name or "", 0.0)
            group = facts.get(near.column("group")[sample].as_py())
            pair = found.seen.get((row, sample))
            line |= {
                "signal": each.signal,
                "score": float(made.bits[row] if by_hash else made.cosine[row]),
                "threshold": float(max_distance) if by_hash else found.cosine,
                "floor": None if floors is None else float(floors[row]),
                "train_key": each.key,
                "train_source": each.source,
                "train_run": each.run,
                "train_verdict": each.verdict,
                "kept_key": each.kept_key,
                "kept_source": each.kept_source,
                "group": each.group,
                "group_size": None if each.verdict == "blocked" else each.group_size,
                "group_kept": None if group is None else group["kept"],
                "one_left": None if group is None else group["kept"] <= 1,
                "captions": None if group is None else group["captions"],
                "caption": each.caption if group is None else group["caption"],
                "caption_count": None if group is None else group["caption_count"],
            }
            if pair is not None:
                line |= {"verified": pair.verified, "relation": pair.relation, "tile_distance": pair.tile_distance}
        if found.small is not None and found.small.sample[row] >= 0:
            nearest = int(found.small.sample[row])
            line["adaptive"] = float(found.small.distance[row])
            line |= {f"adaptive_{name}": near.column(name)[nearest].as_py() for name in ("key", "source")}
        rows.append(line)
    return pa.Table.from_pylist(rows, schema=SCHEMA)


def prompt_table(near: Neighbours, made: Nearest, prompted: Prompted) -> pa.Table:
    """One row for each prompt whose generations were compared, in the order of their text."""
    keys, trained, sources = made.images["key"], near.column("key"), near.column("source")
    rows = [
        {
            "prompt": each.prompt,
            "generations": each.generations,
            "compared": each.compared,
            "clique": len(each.clique),
            "extracted": len(each.clique) >= prompted.filter.clique,
            "width": each.width,
            "middle_key": keys[each.middle].as_py(),
            "train_key": trained[each.sample].as_py() if each.sample >= 0 else None,
            "train_source": sources[each.sample].as_py() if each.sample >= 0 else None,
            "tile_distance": each.to_training,
        }
        for each in prompted.prompts
    ]
    return pa.Table.from_pylist(rows, schema=PROMPT_SCHEMA)


def _floors(made: Nearest, real: Nearest | None) -> NDArray[np.float64] | None:
    """(n,) The share of real images that are at least as near by the signal that found the generated image."""
    if real is None:
        return None
    bits, cosine = (values[real.readable] for values in (real.bits, real.cosine))
    by_hash = share_as_near(made.bits, bits, similarity=False)
    by_vector = share_as_near(made.cosine, cosine, similarity=True)
    return np.where(made.hash_sample >= 0, by_hash, by_vector)


def _number(value: np.floating[Any]) -> float | None:
    return None if np.isnan(value) else float(value)
