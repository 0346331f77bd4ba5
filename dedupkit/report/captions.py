"""What the captions of duplicate groups are: from ``groups.parquet``, whole, and the counts of the decision."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from dedupkit.manifest.shown import clip
from dedupkit.report.facts import CaptionRepeats, Captions, RepeatedCaption, Template
from dedupkit.runfolder import RunFolder
from dedupkit.store import read_columns

__all__ = ["caption_facts"]

_LISTED = 20
_REPEATS = (1, 10, 100)


def caption_facts(folder: RunFolder, counts: Mapping[str, Any]) -> Captions:
    """What a report says of captions.

    Args:
        folder: Folder of the run.
        counts: The part ``captions`` of the decision's summary.
    """
    groups = read_columns(folder.groups, ["group", "size", "captions", "caption", "caption_count"])
    templates = counts.get("templates")
    return Captions(
        mode=str(counts.get("mode", "ignore")),
        groups_with_one_caption=int(counts.get("groups_with_one_caption", 0)),
        groups_with_several=int(counts.get("groups_with_several", 0)),
        groups_without=int(counts.get("groups_without", 0)),
        changed=int(counts.get("changed", 0)),
        repeats=tuple(_repeats(groups, more_than) for more_than in _REPEATS),
        repeated=_repeated(groups),
        templates=templates,
        frequent=_frequent(folder) if templates else (),
    )


def _repeats(groups: pa.Table, more_than: int) -> CaptionRepeats:
    often = groups.filter(pc.greater(groups["caption_count"], more_than))
    return CaptionRepeats(more_than, often.num_rows, pc.sum(often["caption_count"]).as_py() or 0)


def _repeated(groups: pa.Table) -> tuple[RepeatedCaption, ...]:
    often = groups.filter(pc.greater(groups["caption_count"], 1))
    top = often.sort_by([("caption_count", "descending"), ("group", "ascending")]).slice(0, _LISTED)
    return tuple(
        RepeatedCaption(clip(row["caption"]) or "", row["caption_count"], row["captions"], row["group"], row["size"])
        for row in top.to_pylist()
    )


def _frequent(folder: RunFolder) -> tuple[Template, ...]:
    table = read_columns(folder.templates, ["caption", "count"]).slice(0, _LISTED)
    return tuple(Template(clip(row["caption"]) or "", row["count"]) for row in table.to_pylist())
