"""What a calibration says, for the run's summary and as tables for a terminal, a notebook and the report."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dedupkit.calibration.facts import Facts
from dedupkit.calibration.tables import (
    BASES,
    Section,
    as_html,
    as_text,
    curve_table,
    expected_words,
    proposal_tables,
    recall_table,
    threshold_words,
)
from dedupkit.runfolder.layout import Layout
from dedupkit.store import read_json, write_json
from dedupkit.store.schema import to_json

__all__ = ["Calibration", "read_calibration", "write_calibration"]


@dataclass(frozen=True, slots=True, repr=False)
class Calibration:
    """A calibration of a run.

    Attributes:
        facts: The content of ``calibration.json``.
        rule: The run's rule now, which may be another since.
    """

    facts: Facts
    rule: str

    @property
    def current(self) -> bool:
        """Whether the rule is still the one that was calibrated."""
        return self.facts.rule == self.rule

    @property
    def proposals(self) -> dict[str, float | None]:
        """The proposed threshold by alternative of the rule, None where none can be proposed."""
        return {curve.reason: curve.proposal.threshold for curve in self.facts.curves}

    def digest(self) -> dict[str, Any]:
        """The few numbers that matter, JSON-ready, for the run's summary."""
        synthetic = self.facts.synthetic
        return {
            "rule": self.facts.rule,
            "current": self.current,
            "recall": synthetic.recall.share,
            "synthetic": synthetic.count,
            "precision": to_json(self.facts.precision),
            "impostors": {curve.reason: to_json(curve.in_force.impostors) for curve in self.facts.curves},
            "wanted": self.facts.wanted,
            "proposals": self.proposals,
        }

    def rows(self) -> list[tuple[str, str]]:
        """Label and text, for the run's summary."""
        synthetic, precision = self.facts.synthetic, self.facts.precision
        worst = min(synthetic.transformations, key=lambda row: row.recall.share or 0.0)
        recall = f"{synthetic.recall.share:.3f}, least: {worst.label} {worst.recall.share:.3f}"
        shown = [("recall of synthetic duplicates", recall)]
        if precision is not None:
            interval = f"[{precision.low:.3f}, {precision.high:.3f}]"
            shown.append(("precision, judged", f"{precision.share:.3f} {interval} by {precision.answers:,} pairs"))
        for curve in self.facts.curves:
            impostors = curve.in_force.impostors
            if impostors is not None:
                shown.append((f"false pairs of {curve.reason}", f"{expected_words(impostors)} expected"))
        for curve in self.facts.curves:
            proposal = curve.proposal
            if proposal.threshold is not None:
                text = f"{threshold_words(curve, proposal.threshold)}, by {BASES[proposal.basis]}"
                shown.append((f"for precision {self.facts.wanted:g}", text))
        if not self.current:
            shown.append(("calibrated for", f"{self.facts.rule}: the rule has changed since, calibrate again"))
        return shown

    def sections(self) -> list[Section]:
        """All of it as tables."""
        return [
            recall_table(self.facts),
            *(curve_table(curve) for curve in self.facts.curves),
            *proposal_tables(self.facts),
        ]

    def __repr__(self) -> str:
        recall = self.facts.synthetic.recall.share
        return f"<calibration of {self.facts.rule}: recall of synthetic duplicates {recall:.3f}; {self.proposals}>"

    def __str__(self) -> str:
        head = [f"rule  {self.facts.rule}"]
        if not self.current:
            head.append(f"      the run's rule is now {self.rule}: calibrate again")
        return "\n\n".join(["\n".join(head), *(as_text(section) for section in self.sections())])

    def _repr_html_(self) -> str:
        return "".join(as_html(section) for section in self.sections())


def read_calibration(run: Path, rule: str) -> Calibration | None:
    """The calibration of a run, None where there is none, or one of another version.

    Args:
        run: The run folder.
        rule: The run's rule now, spelled out.
    """
    facts = Facts.from_json(read_json(Layout(run).calibration))
    return None if facts is None else Calibration(facts, rule)


def write_calibration(run: Path, facts: Facts) -> Calibration:
    """Write ``calibration.json``.

    Args:
        run: The run folder.
        facts: What it says.
    """
    write_json(Layout(run).calibration, facts.to_json())
    return Calibration(facts, facts.rule)
