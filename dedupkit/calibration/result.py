"""What a calibration says: ``calibration.json``, and the same as tables for a terminal, a notebook and the report.

================  ======================================================================================================
key               meaning
================  ======================================================================================================
``format``        version of this layout, 1
``dedupkit``      the version that wrote it
``rule``          the rule that was calibrated, spelled out
``seed``          of the samples
``wanted``        the precision that thresholds are proposed for
``samples``       readable samples of the run
``copies``        ``originals``, ``asked``, ``planted``, ``found``, ``recall``, ``low``, ``high``, ``unmeasured``
                  (embedders whose vectors were given, so that copies have none), and ``edits``: ``name``, ``label``,
                  ``family``, ``copies``, ``found``, ``recall``, ``low``, ``high``
``precision``     of the rule by judged pairs: ``share``, ``low``, ``high``, ``answers``; null without answers
``axes``          one for each alternative of the rule with a threshold, see below
================  ======================================================================================================

An axis is ``reason``, ``signal``, ``similarity`` (else a distance), ``bound`` (in force), ``floor`` (how far the run's
pairs reach), ``thresholds``, ``recall_by_edit`` (edit to one share per threshold, by this signal alone), ``bands``
(``from``, ``to``, ``pairs``, ``same``, ``different``, ``precision``, ``low``, ``high``), ``strangers`` (``images``,
``pairs``, ``looked_at``, ``hidden``, ``size``, and the fitted tail, :class:`dedupkit.calibration.tail.Tail`; null where
there was too little) and ``proposal`` (``threshold``, ``precision``, ``low``, ``basis``, ``note``). One of
``thresholds`` is ``threshold``, ``recall`` (of all copies, by this signal alone), ``pairs`` (in the run, at or within
it), ``strangers`` (expected among them: ``estimate``, ``low``, ``high``) and ``precision`` (judged, at or within it).
Numbers are null where they are not known. Intervals are at 95 %.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dedupkit.calibration.tables import (
    BASES,
    Section,
    as_html,
    as_text,
    axis_table,
    copies_table,
    expected_words,
    proposal_tables,
    threshold_words,
)
from dedupkit.runfolder.layout import Layout
from dedupkit.store import read_json

__all__ = ["FORMAT", "Calibration", "read_calibration"]

FORMAT = 1


@dataclass(frozen=True, slots=True, repr=False)
class Calibration:
    """A calibration of a run.

    Attributes:
        facts: the content of ``calibration.json``.
        rule: the run's rule now, which may be another since.
    """

    facts: Mapping[str, Any]
    rule: str

    @property
    def current(self) -> bool:
        """Whether the rule is still the one that was calibrated."""
        return bool(self.facts["rule"] == self.rule)

    @property
    def proposals(self) -> dict[str, float | None]:
        """The proposed threshold by alternative of the rule, None where none can be proposed."""
        return {axis["reason"]: axis["proposal"]["threshold"] for axis in self.facts["axes"]}

    def digest(self) -> dict[str, Any]:
        """For the run's summary: the few numbers that matter."""
        copies = self.facts["copies"]
        return {
            "rule": self.facts["rule"],
            "current": self.current,
            "recall": copies["recall"],
            "copies": copies["planted"],
            "precision": self.facts["precision"],
            "strangers": {axis["reason"]: _at_bound(axis)["strangers"] for axis in self.facts["axes"]},
            "wanted": self.facts["wanted"],
            "proposals": self.proposals,
        }

    def rows(self) -> list[tuple[str, str]]:
        """Label and text, for the run's summary."""
        copies, precision = self.facts["copies"], self.facts["precision"]
        worst = min(copies["edits"], key=lambda edit: edit["recall"])
        shown = [("recall of planted copies", f"{copies['recall']:.3f}, least: {worst['label']} {worst['recall']:.3f}")]
        if precision is not None:
            interval = f"[{precision['low']:.3f}, {precision['high']:.3f}]"
            shown.append(
                ("precision, judged", f"{precision['share']:.3f} {interval} by {precision['answers']:,} pairs")
            )
        for axis in self.facts["axes"]:
            strangers = _at_bound(axis)["strangers"]
            if strangers is not None:
                shown.append((f"false pairs of {axis['reason']}", f"{expected_words(strangers)} expected"))
        for axis in self.facts["axes"]:
            proposal = axis["proposal"]
            if proposal["threshold"] is not None:
                text = f"{threshold_words(axis, proposal['threshold'])}, by {BASES[proposal['basis']]}"
                shown.append((f"for precision {self.facts['wanted']:g}", text))
        if not self.current:
            shown.append(("calibrated for", f"{self.facts['rule']}: the rule has changed since, calibrate again"))
        return shown

    def sections(self) -> list[Section]:
        """All of it as tables."""
        return [
            copies_table(self.facts),
            *(axis_table(axis) for axis in self.facts["axes"]),
            *proposal_tables(self.facts),
        ]

    def __repr__(self) -> str:
        recall = self.facts["copies"]["recall"]
        return f"<calibration of {self.facts['rule']}: recall of planted copies {recall:.3f}; {self.proposals}>"

    def __str__(self) -> str:
        head = [f"rule  {self.facts['rule']}"]
        if not self.current:
            head.append(f"      the run's rule is now {self.rule}: calibrate again")
        return "\n\n".join(["\n".join(head), *(as_text(section) for section in self.sections())])

    def _repr_html_(self) -> str:
        return "".join(as_html(section) for section in self.sections())


def read_calibration(run: Path, rule: str) -> Calibration | None:
    """The calibration of a run, None where there is none.

    Args:
        run: the run folder.
        rule: the run's rule now, spelled out.
    """
    facts = read_json(Layout(run).calibration)
    if not isinstance(facts, dict) or facts.get("format") != FORMAT:
        return None
    return Calibration(facts, rule)


def _at_bound(axis: Mapping[str, Any]) -> Mapping[str, Any]:
    return next(row for row in axis["thresholds"] if row["threshold"] == axis["bound"])
