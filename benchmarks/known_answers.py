"""Recall per edit and wrong removals over shards whose truth is known.

    python benchmarks/known_answers.py SHARDS TRUTH.csv --rule thorough --embed lite

TRUTH.csv has the columns url, origin, edit: which photo an address shows, and how it was edited (``original`` for the
photo itself, ``dead`` and ``broken`` for addresses without an image). A copy counts as found if it is in the group of
its original.
"""

from __future__ import annotations

import argparse
import csv
import tempfile
from collections import Counter
from pathlib import Path

import dedupkit as dk


def arguments(description: str | None) -> argparse.ArgumentParser:
    """Those of a benchmark over shards whose truth is known."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shards")
    parser.add_argument("truth", type=Path)
    parser.add_argument("--rule", default="copies")
    parser.add_argument("--embed", action="append", default=[])
    parser.add_argument("--out", type=Path, help="run folder to make or go on with")
    return parser


def main() -> None:
    options = arguments(__doc__).parse_args()
    with options.truth.open() as stream:
        truth = {row["url"]: row for row in csv.DictReader(stream)}
    out = options.out or Path(tempfile.mkdtemp()) / "run"
    run = dk.dedup(options.shards, out, rule=options.rule, embed=options.embed)
    rows = run.manifest.select(["url", "verdict", "kept_sample", "group"]).to_pylist()
    pages = [truth[row["url"]] for row in rows]
    home = {p["origin"]: row["group"] for row, p in zip(rows, pages, strict=True) if p["edit"] == "original"}
    planted, found = Counter(), Counter()
    wrong = unreadable = 0
    for row, page in zip(rows, pages, strict=True):
        if page["edit"] in ("dead", "broken"):
            unreadable += row["verdict"] == "unreadable"
        elif page["edit"] != "original":
            planted[page["edit"]] += 1
            found[page["edit"]] += row["group"] == home[page["origin"]]
        if row["verdict"] == "remove":
            wrong += pages[row["kept_sample"]]["origin"] != page["origin"]
    print(run)
    for edit, count in sorted(planted.items()):
        print(f"{edit:<12}{found[edit]:>5} of {count:<5}{found[edit] / count:.3f}")
    total = sum(planted.values())
    print(f"{'all edits':<12}{sum(found.values()):>5} of {total:<5}{sum(found.values()) / total:.3f}")
    print(f"removed by mistake {wrong}; dead and broken reported {unreadable}")


if __name__ == "__main__":
    main()
