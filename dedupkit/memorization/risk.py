"""What of a data set a model is likely to memorize: how often images occur, with which captions, and what remains."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from os import PathLike
from typing import Any

import numpy as np
import pyarrow as pa

from dedupkit.errors import DedupkitError
from dedupkit.manifest.shown import clip
from dedupkit.runfolder import RunFolder
from dedupkit.store import read_columns

__all__ = ["SOURCES", "Copies", "Repeated", "Risk", "Templates", "address_of", "measure_risk"]

SOURCES = (
    (
        "Most of the images that were extracted from Stable Diffusion had 100 copies or more in its training set. None "
        "of its 10,000 most unusual images could be extracted; three of Imagen's 500 most unusual ones could, each of "
        "which occurs once.",
        "Carlini et al., arXiv 2301.13188",
    ),
    (
        "Images that Stable Diffusion copied occur more often in its training set than others.",
        "Somepalli et al., arXiv 2212.03860",
    ),
    (
        "In fine-tuning experiments, repeating an image together with its caption raised copying; several captions for "
        "one image lowered it.",
        "Somepalli et al., arXiv 2305.20086",
    ),
    (
        "Images of one template, which agree but for a part, are reproduced too, also by models whose training data "
        "were de-duplicated.",
        "Webster, arXiv 2305.08694",
    ),
)
"""What is known, and where it is published."""


def address_of(source: str) -> str:
    """The address of a paper of :data:`SOURCES`.

    >>> address_of("Webster, arXiv 2305.08694")
    'https://arxiv.org/abs/2305.08694'
    """
    return f"https://arxiv.org/abs/{source.rpartition(' ')[2]}"


_BOUNDS = (2, 10, 100, 1000)


@dataclass(frozen=True, slots=True)
class Copies:
    """The duplicate groups of at least some size.

    Attributes:
        at_least: Least number of samples in a group.
        groups: Number of such groups.
        samples: Number of samples in them.
        one_caption: Number of these groups in which one caption occurs at least so often.
        remaining: Number of these groups of which the rule in force keeps at least so many samples.
    """

    at_least: int
    groups: int
    samples: int
    one_caption: int
    remaining: int


@dataclass(frozen=True, slots=True)
class Templates:
    """The families of one template of at least some size: images that share a layout and differ in a part of it.

    Attributes:
        at_least: Least number of samples in a family.
        families: Number of such families.
        samples: Number of samples in them, without those that were removed as duplicates.
        remaining: Number of these families of which the rule in force keeps at least so many samples.
    """

    at_least: int
    families: int
    samples: int
    remaining: int


@dataclass(frozen=True, slots=True)
class Repeated:
    """A group among the largest.

    Attributes:
        group: Its number in the manifest.
        size: Number of its samples.
        kept: Number of samples that the rule in force keeps.
        captions: Number of its distinct captions.
        caption: The most frequent caption as one line, cut after 200 characters.
        caption_count: How often that occurs in the group.
    """

    group: int
    size: int
    kept: int
    captions: int | None
    caption: str | None
    caption_count: int | None


@dataclass(frozen=True, slots=True)
class Risk:
    """What a data set repeats, before training.

    Attributes:
        rule: The rule in force.
        samples: Number of samples read.
        copies: Groups by least size.
        top: The largest groups.
        templates: Families of one template by least size; None where the rule verifies no pairs and so finds none.
    """

    rule: str
    samples: int
    copies: tuple[Copies, ...]
    top: tuple[Repeated, ...]
    templates: tuple[Templates, ...] | None = None

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready object, with the published findings."""
        sources = [{"finding": finding, "source": source} for finding, source in SOURCES]
        lists = {
            name: None if rows is None else [asdict(each) for each in rows]
            for name, rows in (("copies", self.copies), ("top", self.top), ("templates", self.templates))
        }
        return asdict(self) | lists | {"sources": sources}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Risk:
        """Read what :meth:`to_json` gives."""
        copies = tuple(Copies(**each) for each in value["copies"])
        top = tuple(Repeated(**each) for each in value["top"])
        families = value.get("templates")
        templates = None if families is None else tuple(Templates(**each) for each in families)
        return cls(value["rule"], value["samples"], copies, top, templates)

    def __str__(self) -> str:
        lines = [f"{self.samples:,} samples; rule {self.rule}", "copies     groups   samples  one caption  remaining"]
        lines += [
            f">= {each.at_least:<6,} {each.groups:>7,} {each.samples:>9,} {each.one_caption:>12,} {each.remaining:>10,}"
            for each in self.copies
        ]
        lines += [
            "",
            *self._template_lines(),
            "",
            "most repeated (samples, kept, captions, the most frequent caption and its count)",
        ]
        for each in self.top:
            caption = "no caption"
            if each.caption is not None:
                caption = f"{' '.join(each.caption.split())[:80]} ({each.caption_count or 0:,})"
            lines.append(f"{each.size:>8,} {each.kept:>6,} {each.captions or 0:>6,}  {caption}")
        lines += ["", *(f"{finding} ({source})" for finding, source in SOURCES)]
        return "\n".join(lines)

    def _template_lines(self) -> list[str]:
        if self.templates is None:
            return ["template families: not looked for; a rule that verifies pairs, such as thorough, finds them"]
        if not self.templates[0].families:
            return ["template families: none"]
        return ["templates  families   samples  remaining"] + [
            f">= {each.at_least:<6,} {each.families:>9,} {each.samples:>9,} {each.remaining:>10,}"
            for each in self.templates
        ]


def measure_risk(run: str | PathLike[str], top: int = 20) -> Risk:
    """Count what a finished run repeats.

    Args:
        run: The run folder.
        top: Greatest number of groups to list.

    Raises:
        DedupkitError: There is no finished run, or ``top`` is negative.
    """
    if top < 0:
        raise DedupkitError(f"the number of groups is at least 0, not {top}")
    folder = RunFolder(run)
    decision = folder.verdicts()
    table = read_columns(folder.groups, ["group", "size", "kept", "captions", "caption", "caption_count"])
    size, kept = (table[name].to_numpy() for name in ("size", "kept"))
    repeats = table["caption_count"].fill_null(0).to_numpy()
    copies = tuple(
        Copies(
            bound,
            int((size >= bound).sum()),
            int(size[size >= bound].sum()),
            int((repeats >= bound).sum()),
            int((kept >= bound).sum()),
        )
        for bound in _BOUNDS
    )
    largest = table.take(pa.array(np.lexsort((table["group"].to_numpy(), -size.astype(np.int64)))[:top]))
    samples = int(read_columns(folder.manifest, ["sample"]).num_rows)
    return Risk(
        decision.rule,
        samples,
        copies,
        tuple(Repeated(**row | {"caption": clip(row["caption"])}) for row in largest.to_pylist()),
        _templates(folder),
    )


def _templates(folder: RunFolder) -> tuple[Templates, ...] | None:
    if not folder.families.exists():
        return None
    table = read_columns(folder.families, ["size", "kept"])
    size, kept = (table[name].to_numpy() for name in ("size", "kept"))
    return tuple(
        Templates(bound, int((size >= bound).sum()), int(size[size >= bound].sum()), int((kept >= bound).sum()))
        for bound in _BOUNDS
    )
