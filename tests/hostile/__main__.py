"""Try hostile inputs of every kind, and print what came of them; exit status 1 if any figure is not zero.

    PYTHONPATH=tests python -m hostile --count 1000000

Every input follows from the seed, the section and a number: a finding is printed with the options that repeat it.
"""

from __future__ import annotations

import argparse
import os
import sys
import time

from hostile.attempts import Outcome, Plan, run
from hostile.section import SECTIONS, Section, load

_COLUMNS = ("tried", "crashes", "hangs", "lost", "wrong")


def main() -> None:
    """Run the sections and print the table."""
    parser = argparse.ArgumentParser(prog="hostile", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--count", type=int, default=1_000_000, help="Number of inputs, all sections together.")
    parser.add_argument("--section", action="append", choices=SECTIONS, help="A section to try; all by default.")
    parser.add_argument("--seed", type=int, default=0, help="Seed for all random choices.")
    parser.add_argument("--first", type=int, default=0, help="Number of the first attempt, to repeat a finding.")
    parser.add_argument("--attempts", type=int, help="Number of attempts of each section, instead of --count.")
    parser.add_argument("--processes", type=int, default=min(2, os.cpu_count() or 1), help="Number of processes.")
    options = parser.parse_args()
    names = options.section or list(SECTIONS)
    sections = {name: load(SECTIONS[name]) for name in names}
    plans = []
    for name, section in sections.items():
        attempts = options.attempts
        if attempts is None:
            attempts = max(1, round(options.count * section.volume / 1_000_000 / section.each))
        plans.append(Plan(SECTIONS[name], attempts, options.first))
    plans.sort(key=lambda plan: not load(plan.path).whole)  # what one process does alone begins first
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ.setdefault(name, "1")
    began = time.monotonic()
    outcomes = run(plans, options.seed, options.processes, _told if sys.stderr.isatty() else lambda *_: None)
    for name in names:
        for note in outcomes[SECTIONS[name]].notes:
            print(note, file=sys.stderr)
    print(table({name: outcomes[SECTIONS[name]] for name in names}))
    print(f"\nseed {options.seed}, {time.monotonic() - began:,.0f} s with {options.processes} processes")
    sys.exit(not all(outcome.clean for outcome in outcomes.values()))


def table(outcomes: dict[str, Outcome]) -> str:
    """The figures as a Markdown table, the sum of all sections last."""
    rows = [[name, *(f"{getattr(outcome, column):,}" for column in _COLUMNS)] for name, outcome in outcomes.items()]
    total = [sum(getattr(outcome, column) for outcome in outcomes.values()) for column in _COLUMNS]
    rows.append(["all", *(f"{figure:,}" for figure in total)])
    lines = [["section", *_COLUMNS], ["---", *["---:"] * len(_COLUMNS)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _told(path: str, outcome: Outcome) -> None:
    section: Section = load(path)
    print(f"\r{section.name:12} {outcome.tried:>9,} tried", end="", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
