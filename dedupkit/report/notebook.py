"""A duplicate group as a notebook shows it."""

from __future__ import annotations

from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any

from dedupkit.manifest.shown import clip
from dedupkit.report.thumbnails import Thumbnails

__all__ = ["GroupView"]

_CARD = (
    "display:inline-block;vertical-align:top;width:168px;margin:4px;padding:6px;border-radius:6px;"
    "font:12px/1.35 sans-serif;overflow-wrap:anywhere;border:2px solid "
)
_BLANK = "width:160px;height:100px;line-height:100px;text-align:center;opacity:.6;border:1px dashed"
_COLOURS = {"keep": "#2a8f68", "remove": "#cf6a2c"}
_WORDS = {"keep": "kept", "remove": "removed"}


@dataclass(frozen=True, slots=True, repr=False)
class GroupView:
    """Some samples of a group with their thumbnails.

    Attributes:
        folder: Folder of the run.
        rows: Rows of the manifest to show.
        total: Number of samples of the group.
        keeper: What keeps a temporary run folder alive.
    """

    folder: Path
    rows: list[dict[str, Any]]
    total: int
    keeper: object = field(default=None, compare=False)

    def __repr__(self) -> str:
        kept = [str(row["key"]) for row in self.rows if row["verdict"] == "keep"]
        return f"<group of {self.total:,} samples, {len(self.rows):,} shown; kept: {', '.join(kept) or 'none shown'}>"

    def _repr_html_(self) -> str:
        thumbnails = Thumbnails(self.folder)
        images = thumbnails.get(row["sample"] for row in self.rows)
        cards = "".join(_card(row, images.get(row["sample"])) for row in self.rows)
        more = self.total - len(self.rows)
        notes = [f"and {more:,} more"] if more > 0 else []
        notes += [thumbnails.note] if thumbnails.note else []
        return f"<div>{cards}</div>" + "".join(f"<div>{escape(note)}</div>" for note in notes)


def _card(row: dict[str, Any], uri: str | None) -> str:
    verdict = str(row["verdict"])
    reason = " ".join(filter(None, (row["reason"], "" if row["score"] is None else f"{row['score']:g}")))
    image = f"<img src='{uri}' alt='' style='max-width:100%'>" if uri else f"<div style='{_BLANK}'>no image</div>"
    return (
        f"<div style='{_CARD}{_COLOURS.get(verdict, '#888')}'>{image}"
        f"<div><b>{escape(_WORDS.get(verdict, verdict))}</b> {escape(reason)}</div>"
        f"<div><code>{escape(clip(str(row['key'])) or '')}</code></div>"
        f"<div dir='auto'>{escape(clip(row['caption']) or '')}</div></div>"
    )
