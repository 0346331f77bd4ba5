"""A calibration as tables: for a terminal, a notebook, the report."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

__all__ = [
    "BASES", "Section", "as_html", "as_text", "axis_table", "copies_table", "expected_words", "proposal_tables",
    "threshold_words",
]  # fmt: skip

_WIDTH = 100
_NONE = 0.01  # pairs
BASES = {"answers": "judged pairs", "strangers": "expected false pairs", "": "–"}


@dataclass(frozen=True, slots=True)
class Section:
    """A table: a title, what to know about it, headings, rows; the first column is text, the others are numbers."""

    title: str
    note: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def copies_table(facts: Mapping[str, Any]) -> Section:
    """The share of planted copies that the rule finds, by edit."""
    copies = facts["copies"]
    every = {**copies, "label": "all edits", "copies": copies["planted"]}
    rows = tuple(
        (edit["label"], _share(edit["recall"]), f"{edit['low']:.2f}–{edit['high']:.2f}", f"{edit['copies']:,}")
        for edit in [*copies["edits"], every]
    )
    note = f"Copies of {copies['originals']:,} of your images; found: the rule holds between a copy and its original."
    if copies["originals"] < copies["asked"]:
        note += f" {copies['asked']:,} were asked for, and there are no more."
    if copies["unmeasured"]:
        names = ", ".join(copies["unmeasured"])
        note += f" Without {names}: its vectors were given, so copies have none."
    return Section("Recall by edit", note, ("edit", "found", "95 %", "copies"), rows)


def axis_table(axis: Mapping[str, Any]) -> Section:
    """Recall, pairs found, false pairs expected and judged precision along a threshold."""
    rows = tuple(
        (
            threshold_words(axis, row["threshold"]) + (" ◂ rule" if row["threshold"] == axis["bound"] else ""),
            _share(row["recall"]),
            "–" if row["pairs"] is None else f"{row['pairs']:,}",
            expected_words(row["strangers"]),
            _interval(row["precision"]),
        )
        for row in axis["thresholds"]
    )
    columns = (axis["signal"], "copies found", "pairs in the run", "false, expected", "precision, judged")
    return Section(f"Along the threshold of {axis['reason']}", _axis_note(axis), columns, rows)


def proposal_tables(facts: Mapping[str, Any]) -> list[Section]:
    """The proposed thresholds; nothing for a rule without any."""
    rows = tuple(_proposal(axis) for axis in facts["axes"])
    if not rows:
        return []
    notes = [f"{axis['reason']}: {axis['proposal']['note']}." for axis in facts["axes"] if axis["proposal"]["note"]]
    note = " ".join(["The loosest threshold that has it.", *notes])
    columns = ("alternative", "threshold", "precision", "rests on")
    return [Section(f"For a precision of {facts['wanted']:g}", note, columns, rows)]


def threshold_words(axis: Mapping[str, Any], value: float) -> str:
    """A condition as rules write it."""
    return f"{axis['signal']}{'>=' if axis['similarity'] else '<='}{value:g}"


def expected_words(expected: Mapping[str, float] | None) -> str:
    """A number of pairs with the upper end of its interval."""
    if expected is None:
        return "–"
    if expected["high"] < _NONE:
        return f"<{_NONE:g}"
    return f"{_rounded(expected['estimate'])} (≤ {_rounded(expected['high'])})"


def as_text(section: Section) -> str:
    """For a terminal."""
    table = [section.columns, *section.rows]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    note = textwrap.wrap(section.note, _WIDTH, initial_indent="  ", subsequent_indent="  ")
    lines = []
    for first, *others in table:
        cells = [first.ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True))]
        lines.append("  " + "  ".join(cells))
    return "\n".join([section.title, *note, *lines])


def as_html(section: Section) -> str:
    """For a notebook."""

    def cells(row: Sequence[str], tag: str) -> str:
        first, *others = (escape(cell) for cell in row)
        left, right = (f"<{tag} style='text-align:{side}'>" for side in ("left", "right"))
        return f"{left}{first}</{tag}>" + "".join(f"{right}{cell}</{tag}>" for cell in others)

    head = f"<caption style='text-align:left'><b>{escape(section.title)}</b><br>{escape(section.note)}</caption>"
    body = "".join(f"<tr>{cells(row, 'td')}</tr>" for row in section.rows)
    return f"<table>{head}<tr>{cells(section.columns, 'th')}</tr>{body}</table>"


def _axis_note(axis: Mapping[str, Any]) -> str:
    alone = axis["reason"] == axis["signal"]
    notes = [f"Copies: by {axis['signal']} alone." if not alone else ""]
    strangers = axis["strangers"]
    if strangers is None:
        return " ".join(filter(None, [*notes, "Too few different images to say how close strangers come."]))
    notes.append(
        f"False: pairs of strangers to expect among {strangers['size']:,} different images, from "
        f"{strangers['pairs']:,} pairs of {strangers['images']:,}"
    )
    if not alone:
        notes[-1] += ", before the other conditions"
    notes[-1] += "."
    if strangers["looked_at"]:
        notes.append(
            f"{strangers['looked_at']:,} of the closest were looked at again; {strangers['hidden']:,} pairs are copies "
            "and do not count."
        )
    else:
        notes.append("Copies are among them: the extra verify takes these out.")
    return " ".join(filter(None, notes))


def _proposal(axis: Mapping[str, Any]) -> tuple[str, ...]:
    proposal = axis["proposal"]
    if proposal["threshold"] is None:
        return axis["reason"], "none", "–", BASES[proposal["basis"]]
    precision = f"{proposal['precision']:.4f} (≥ {proposal['low']:.4f})"
    return axis["reason"], threshold_words(axis, proposal["threshold"]), precision, BASES[proposal["basis"]]


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _interval(precision: Mapping[str, float] | None) -> str:
    return "–" if precision is None else f"{precision['share']:.3f} ({precision['low']:.2f}–{precision['high']:.2f})"


def _rounded(value: float) -> str:
    if value < _NONE:
        return f"<{_NONE:g}"
    return f"{value:,.0f}" if value >= 10 else f"{value:.1f}" if value >= 1 else f"{value:.2f}"
