"""The page of an audit: pairs of a generated and a training image, blurred until the reader asks."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from dedupkit.manifest.shown import clip
from dedupkit.memorization.audited import AuditResult
from dedupkit.memorization.prompted import Prompt
from dedupkit.report.templates import templates
from dedupkit.report.thumbnails import Thumbnails
from dedupkit.store import atomic_path

__all__ = ["PAIR_SIDE", "AuditPair", "Side", "pairs_of", "write_audit_page"]

PAIR_SIDE = 240
"""Side of a thumbnail, in pixels."""


@dataclass(frozen=True, slots=True)
class Side:
    """Where the images of one side are.

    Attributes:
        thumbnails: What makes their thumbnails.
        keys: Their keys.
    """

    thumbnails: Thumbnails
    keys: pa.ChunkedArray


@dataclass(frozen=True, slots=True)
class AuditPair:
    """A generated image beside a training image, as the page shows it.

    Attributes:
        row: The generated image.
        sample: The training sample.
        copy: Whether the audit takes it for a copy.
        prompt: The prompt.
        caption: The most frequent caption of the training image's group.
        lines: What is known of the two, in words.
    """

    row: int
    sample: int
    copy: bool
    prompt: str | None
    caption: str | None
    lines: tuple[str, ...]


def pairs_of(table: pa.Table, shown: Sequence[tuple[int, int]], prompts: Sequence[Prompt], of: int) -> list[AuditPair]:
    """Pairs as a page shows them.

    Args:
        table: ``audit.parquet``.
        shown: The pairs, a row of it and a training sample each.
        prompts: Prompts whose clique has the row as its middle, for pairs of cliques.
        of: Number of held-out real images; 0 without any.
    """
    cliques = {prompt.middle: prompt for prompt in prompts}
    found = []
    for row, sample in shown:
        about = table.slice(row, 1).to_pylist()[0]
        lines = [_score(about, of), *_looked(about), _group(about)] if sample >= 0 else ["no training image is near"]
        if row in cliques:
            each = cliques[row]
            lines.insert(0, f"{len(each.clique):,} of {each.compared:,} generations of the prompt are near-copies")
        texts = (clip(about["prompt"]), clip(about["caption"]))
        found.append(AuditPair(row, sample, about["copy"], *texts, tuple(filter(None, lines))))
    return found


def write_audit_page(
    path: Path,
    result: AuditResult,
    pairs: tuple[Sequence[AuditPair], Sequence[AuditPair]],
    sides: tuple[Side, Side],
) -> None:
    """Write ``audit.html``: one file that loads nothing, runs no script, and blurs its images.

    Args:
        path: The file.
        result: The counts.
        pairs: Pairs to show, and the middles of cliques, each with the training image nearest to it.
        sides: The generated images and the training images.
    """
    everything = [*pairs[0], *pairs[1]]
    made, trained = sides
    environment = templates()
    style = environment.get_template("style.css").render() + environment.get_template("audit.css").render()
    document = environment.get_template("audit.html.j2").render(
        r=result,
        pairs=pairs[0],
        cliques=pairs[1],
        made=made.thumbnails.get(pair.row for pair in everything),
        trained=trained.thumbnails.get(pair.sample for pair in everything if pair.sample >= 0),
        keys=(made.keys, trained.keys),
        note=trained.thumbnails.note,
        style=style,
        digest=base64.b64encode(hashlib.sha256(style.encode()).digest()).decode(),
    )
    with atomic_path(path) as temporary:
        temporary.write_text(document, "utf-8")


def _score(about: dict[str, Any], of: int) -> str:
    if about["signal"] is None:
        return ""
    score = f"{about['signal']} cosine {about['score']:.3f}"
    if about["signal"] == "pdq":
        score = f"PDQ distance {about['score']:.0f} of 256 bits"
    if about["floor"] is None:
        return score
    return f"{score}; {round(about['floor'] * of):,} of {of:,} real images are as near to a training image"


def _looked(about: dict[str, Any]) -> list[str]:
    lines = []
    if about["relation"] is not None:
        lines.append(f"local features: {about['relation']}" if about["verified"] is not None else about["relation"])
    if about["tile_distance"] is not None:
        lines.append(f"largest tile distance {about['tile_distance']:.3f}")
    if about["adaptive"] is not None:
        lines.append(f"distance for small images {about['adaptive']:.2f}, extracted at 1 or less")
    return lines


def _group(about: dict[str, Any]) -> str:
    if about["train_verdict"] == "blocked":
        return f"the run blocks the training image and counts no duplicates of it{_earlier(about)}"
    if about["train_verdict"] == "remove" and about["group_kept"] is None:
        return f"the rule in force keeps {about['kept_key']} of {about['kept_source']} in place of the training image"
    if about["group_kept"] is None:
        return f"no duplicate of the training image is known{_earlier(about)}"
    left = "one" if about["group_kept"] == 1 else f"{about['group_kept']:,}"
    captions, times = about["captions"] or 0, about["caption_count"] or 0
    said = f"{captions:,} captions, the most frequent {times:,} times"
    if captions < 2:
        said = f"one caption, {times:,} times" if captions else "no captions"
    copies = f"{about['group_size']:,} copies in the training set ({said}); the rule in force keeps {left}"
    return f"{copies}{_earlier(about)}"


def _earlier(about: dict[str, Any]) -> str:
    return f"; of the earlier run {about['train_run']}" if about["train_run"] else ""
