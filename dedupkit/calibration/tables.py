"""A calibration as tables: for a terminal, a notebook, the report."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from dedupkit.calibration.facts import ExpectedPairs, Facts, Precision, Recall, ThresholdCurve
from dedupkit.clustering.rules import Atom

__all__ = [
    "BASES",
    "Section",
    "as_html",
    "as_text",
    "curve_table",
    "expected_words",
    "proposal_tables",
    "recall_table",
    "threshold_words",
]  # fmt: skip

_WIDTH = 100
_NONE = 0.01  # pairs
BASES = {"answers": "judged pairs", "impostors": "expected false pairs", "": "–"}


@dataclass(frozen=True, slots=True)
class Section:
    """A table: a title, what to know about it, headings, rows; the first column is text, the others are numbers."""

    title: str
    note: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def recall_table(facts: Facts) -> Section:
    """The share of synthetic duplicates that the rule finds, by transformation."""
    synthetic = facts.synthetic

    def row(label: str, recall: Recall, count: int) -> tuple[str, ...]:
        return label, _share(recall.share), f"{recall.low:.2f}–{recall.high:.2f}", f"{count:,}"

    rows = [row(kind.label, kind.recall, kind.count) for kind in synthetic.transformations]
    rows.append(row("all transformations", synthetic.recall, synthetic.count))
    note = (
        f"Synthetic duplicates of {synthetic.originals:,} of your images; found: the rule holds between a duplicate "
        "and its original."
    )
    if synthetic.originals < synthetic.asked:
        note += f" {synthetic.asked:,} were asked for, and there are no more."
    if synthetic.unmeasured:
        note += f" Without {', '.join(synthetic.unmeasured)}: its vectors were given, so duplicates have none."
    return Section("Recall by transformation", note, ("transformation", "found", "95 %", "duplicates"), tuple(rows))


def curve_table(curve: ThresholdCurve) -> Section:
    """Recall, pairs found, false pairs expected and judged precision along a threshold."""
    rows = tuple(
        (
            threshold_words(curve, point.threshold) + (" ◂ rule" if point.threshold == curve.bound else ""),
            _share(point.recall),
            "–" if point.pairs is None else f"{point.pairs:,}",
            expected_words(point.impostors),
            _interval(point.precision),
        )
        for point in curve.points
    )
    columns = (curve.signal, "recall", "pairs in the run", "false, expected", "precision, judged")
    return Section(f"Along the threshold of {curve.reason}", _curve_note(curve), columns, rows)


def proposal_tables(facts: Facts) -> list[Section]:
    """The proposed thresholds; nothing for a rule without any."""
    rows = tuple(_proposal(curve) for curve in facts.curves)
    if not rows:
        return []
    notes = [f"{curve.reason}: {curve.proposal.note}." for curve in facts.curves if curve.proposal.note]
    note = " ".join(["The loosest threshold that has it.", *notes])
    columns = ("alternative", "threshold", "precision", "rests on")
    return [Section(f"For a precision of {facts.wanted:g}", note, columns, rows)]


def threshold_words(curve: ThresholdCurve, value: float) -> str:
    """A condition as rules write it."""
    return str(Atom(curve.signal, value, curve.similarity))


def expected_words(expected: ExpectedPairs | None) -> str:
    """A number of pairs with the upper end of its interval."""
    if expected is None:
        return "–"
    if expected.high < _NONE:
        return f"<{_NONE:g}"
    return f"{_rounded(expected.estimate)} (≤ {_rounded(expected.high)})"


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


def _curve_note(curve: ThresholdCurve) -> str:
    alone = curve.reason == curve.signal
    notes = [f"Recall: by {curve.signal} alone." if not alone else ""]
    impostors = curve.impostors
    if impostors is None:
        return " ".join(filter(None, [*notes, "Too few different images to say how close impostor pairs come."]))
    notes.append(
        f"False: impostor pairs to expect among {impostors.size:,} different images, from {impostors.pairs:,} pairs of "
        f"{impostors.images:,}" + ("." if alone else ", before the other conditions.")
    )
    if impostors.looked_at:
        notes.append(
            f"{impostors.looked_at:,} of the closest were looked at again; {impostors.hidden:,} pairs are duplicates "
            "and do not count."
        )
    else:
        notes.append("Duplicates are among them: the extra verify takes these out.")
    return " ".join(filter(None, notes))


def _proposal(curve: ThresholdCurve) -> tuple[str, ...]:
    proposal = curve.proposal
    if proposal.threshold is None or proposal.precision is None or proposal.low is None:
        return curve.reason, "none", "–", BASES[proposal.basis]
    precision = f"{proposal.precision:.4f} (≥ {proposal.low:.4f})"
    return curve.reason, threshold_words(curve, proposal.threshold), precision, BASES[proposal.basis]


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _interval(precision: Precision | None) -> str:
    return "–" if precision is None else f"{precision.share:.3f} ({precision.low:.2f}–{precision.high:.2f})"


def _rounded(value: float) -> str:
    if value < _NONE:
        return f"<{_NONE:g}"
    return f"{value:,.0f}" if value >= 10 else f"{value:.1f}" if value >= 1 else f"{value:.2f}"
