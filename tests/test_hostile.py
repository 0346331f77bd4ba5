"""A small share of ``make hostile``: hostile inputs of every kind against their oracles."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from helpers import ROOT, python
from hostile.__main__ import table
from hostile.attempts import Outcome, Plan, run
from hostile.section import SECTIONS, load

HALVES = {
    ("coefficients", "tars", "parquet", "sidecars", "names", "rules", "decisions", "servers"): 12_000,
    ("images", "joins", "kills", "damages", "disks"): 3_000,
}
"""Sections, and the number of inputs of which they take their share."""


@pytest.mark.parametrize(("sections", "count"), HALVES.items(), ids=["values", "files"])
def test_nothing_crashes_hangs_is_lost_or_wrong(sections: tuple[str, ...], count: int) -> None:
    pytest.importorskip("cv2")
    chosen = [word for section in sections for word in ("--section", section)]
    path = os.pathsep.join([str(Path(__file__).parent), str(ROOT)])
    arguments = ("-m", "hostile", "--count", str(count), "--processes", "1", *chosen)
    done = python(*arguments, env={"PYTHONPATH": path}, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_section_belongs_to_a_half_and_they_make_a_million() -> None:
    assert sorted(name for half in HALVES for name in half) == sorted(SECTIONS)
    sections = {name: load(path) for name, path in SECTIONS.items()}
    assert all(section.name == name and section.oracle for name, section in sections.items())
    assert 990_000 <= sum(section.volume for section in sections.values()) <= 1_010_000


def test_crashes_hangs_losses_and_wrong_outcomes_are_counted_and_the_rest_goes_on() -> None:
    path = "hostile.faults:FaultsSection"
    outcome = run([Plan(path, 12)], seed=7, processes=1)[path]
    assert (outcome.tried, outcome.crashes, outcome.hangs, outcome.lost, outcome.wrong) == (12, 4, 2, 4, 2)
    assert not outcome.clean
    assert "--section faults --seed 7 --first 1 --attempts 1: took over 1 s" in outcome.notes
    assert any("--first 0" in note and "ended with" in note for note in outcome.notes)
    assert any("a crash of Python" in note for note in outcome.notes)
    assert table({"faults": outcome, "none": Outcome(tried=1)}).endswith("| all | 13 | 4 | 2 | 4 | 2 |")
