"""What cleaned shards write instead of a sample's own caption: those that it carries, one of them, or none."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from dedupkit.manifest.extra import beside
from dedupkit.sources import Sample
from dedupkit.sources.columns import ALIASES, as_text

__all__ = ["CarriedCaptions", "captions_in", "carried_captions", "with_captions"]

_MEMBERS = ("txt", "caption", "text")


@dataclass(frozen=True, slots=True)
class CarriedCaptions:
    """Captions that a kept sample carries.

    Attributes:
        texts: Distinct captions, the most frequent first; none where the caption is blanked.
        text: The caption to write instead of the sample's own; None to leave it.
    """

    texts: tuple[str, ...]
    text: str | None


def carried_captions(manifest: Path, seed: int | None) -> dict[int, CarriedCaptions]:
    """The captions that kept samples of a manifest carry, by sample.

    Args:
        manifest: Path of ``manifest.parquet``.
        seed: Seed for drawing one caption per sample, in proportion to how often each occurs; None to keep its own.
    """
    found: dict[int, CarriedCaptions] = {}
    with pq.ParquetFile(manifest) as file:
        for batch in file.iter_batches(columns=["sample", "verdict", "captions"]):
            table = pa.Table.from_batches([batch])
            found |= captions_in(table.filter(pc.equal(table["verdict"], "keep")), seed)
    return found


def captions_in(kept: pa.Table, seed: int | None) -> dict[int, CarriedCaptions]:
    """As :func:`carried_captions`, of some kept rows of a manifest with their ``sample`` and ``captions``."""
    kept = kept.filter(pc.is_valid(kept["captions"]))
    rows = zip(kept["sample"].to_pylist(), kept["captions"].to_pylist(), strict=True)
    return {sample: _carried(sample, captions, seed) for sample, captions in rows}


def _carried(sample: int, captions: Sequence[Mapping[str, Any]], seed: int | None) -> CarriedCaptions:
    texts = tuple(str(one["caption"]) for one in captions)
    if not texts:
        return CarriedCaptions((), "")
    if seed is None:
        return CarriedCaptions(texts, None)
    ends = np.cumsum([one["count"] for one in captions])
    drawn = int(np.random.default_rng([seed, sample]).integers(ends[-1]))
    return CarriedCaptions(texts, texts[int(np.searchsorted(ends, drawn, side="right"))])


def with_captions(sample: Sample, row: dict[str, Any], carried: CarriedCaptions) -> tuple[Sample, dict[str, Any]]:
    """A sample and its row with the captions that it carries.

    A caption that replaces its own does so in the members, the JSON, the row and the columns of the source; where it
    has none, the JSON and the row have it. The list of all is ``captions`` in the row and in the JSON.
    """
    members, extra, text = dict(sample.members), sample.extra, carried.text
    if text is not None:
        row = {**row, "caption": text}
        members |= {name: text.encode("utf-8", "surrogatepass") for name in _MEMBERS if name in members}
        extra = _replaced(extra, text)
    if "json" in members:
        members["json"] = _stated(members["json"], carried)
    if carried.texts:
        row = {**row, "captions": list(carried.texts)}
    return replace(sample, members=members, extra=extra), row


def _replaced(values: Mapping[str, Any], text: str) -> dict[str, Any]:
    """The columns or JSON of a sample with one caption in place of its own, under whatever names that stands."""
    return {name: _in_place_of(value, text) if name in ALIASES["caption"] else value for name, value in values.items()}


def _in_place_of(value: Any, text: str) -> Any:
    """A caption as the type of a column takes it, text or a list of texts; in any other type there is none."""
    if isinstance(value, list):
        return [text] if text and any(isinstance(one, str | bytes) for one in value) else []
    return text if isinstance(value, str | bytes) else None


def _stated(data: bytes, carried: CarriedCaptions) -> bytes:
    """A sample's JSON with its captions; what is no object stays as it is."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return data
    if not isinstance(value, dict):
        return data
    if carried.text is not None:
        value = _replaced(value, carried.text)
        if carried.text and as_text(value, "caption") is None:
            value["caption"] = carried.text
    if carried.texts:
        value = beside(value, {"captions": list(carried.texts)})
    return json.dumps(value).encode()
