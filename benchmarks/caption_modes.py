"""What each way of treating captions keeps and removes, over shards whose truth is known.

    python benchmarks/caption_modes.py SHARDS TRUTH.csv [--rule copies]

Arguments as for known_answers.py. A caption is lost if a removed or blocked sample had it and no kept sample of the
same photo has or carries it, after folding.
"""

from __future__ import annotations

import csv
import tempfile
import time
from collections import defaultdict
from pathlib import Path

from known_answers import arguments

import dedupkit as dk
from dedupkit.captions import Folding

MODES = ("ignore", "pair", "pair>=0.5", "merge", "template>3", "template>3:blank", "template>3:drop")


def main() -> None:
    options = arguments(__doc__).parse_args()
    with options.truth.open() as stream:
        origin = {row["url"]: row["origin"] for row in csv.DictReader(stream)}
    out = options.out or Path(tempfile.mkdtemp()) / "run"
    fold = Folding()
    print(f"{'captions':<20}{'kept':>7}{'removed':>9}{'wrong':>7}{'blocked':>9}{'captions lost':>15}{'seconds':>9}")
    for mode in MODES:
        begin = time.perf_counter()
        run = dk.dedup(options.shards, out, rule=options.rule, embed=options.embed, captions=mode)
        seconds = time.perf_counter() - begin
        rows = run.manifest.to_pylist()
        held: dict[str, set[str]] = defaultdict(set)
        for row in rows:
            if row["verdict"] == "keep":
                texts = [one["caption"] for one in row["captions"] or []] if row["captions"] else [row["caption"]]
                held[origin[row["url"]]] |= {fold(text or "") for text in texts}
        removed = [row for row in rows if row["verdict"] == "remove"]
        wrong = sum(origin[row["url"]] != origin[rows[row["kept_sample"]]["url"]] for row in removed)
        gone = [row for row in rows if row["verdict"] in ("remove", "blocked") and row["caption"]]
        lost = {(origin[row["url"]], fold(row["caption"])) for row in gone}
        lost = {(photo, text) for photo, text in lost if text not in held[photo]}
        blocked = run.summary["blocked"]
        print(
            f"{mode:<20}{run.summary['keep']:>7}{len(removed):>9}{wrong:>7}{blocked:>9}{len(lost):>15}{seconds:>9.2f}"
        )


if __name__ == "__main__":
    main()
