"""For whoever publishes a data set: clean it, document it, and list for every lost sample why it is gone.

python examples/dataset_maintainer.py                             # small shards of scikit-image's photos
python examples/dataset_maintainer.py SHARDS --out runs/v2 --clean clean/v2 --removed removed.csv
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
import tempfile
from pathlib import Path

import dedupkit as dk

COLUMNS = ["source", "key", "url", "verdict", "reason", "score", "kept_source", "kept_key"]


def main() -> None:
    """Write the report, the cleaned shards and the list of removals."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sources", nargs="*", help="tars, Parquet files or folders")
    parser.add_argument("--out", type=Path, help="the run folder; a temporary one by default")
    parser.add_argument("--clean", type=Path, help="where the cleaned data goes; temporary by default")
    parser.add_argument("--format", default="webdataset", help="webdataset, parquet, urls, datacomp or keys")
    parser.add_argument("--removed", type=Path, help="a CSV file; standard output by default")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        sources = args.sources
        if not sources:
            from sample_shards import make_shards

            sources = make_shards(Path(temporary, "shards"))
        run = dk.dedup(sources, args.out or Path(temporary, "run"), rule="copies", keep="-pixels, -nbytes, sample")
        page = run.report()
        facts = json.loads((run.path / "report.json").read_text("utf-8"))
        written = run.apply(args.clean or Path(temporary, "clean"), format=args.format)

        # A key is unique within its shard only, so the witness is named by its shard too.
        rows = run.manifest.select([name for name in COLUMNS if name != "kept_source"] + ["kept_sample"]).to_pylist()
        stream = args.removed.open("w", newline="", encoding="utf-8") if args.removed else sys.stdout
        table = csv.DictWriter(stream, COLUMNS, extrasaction="ignore")
        table.writeheader()
        for row in rows:
            if row["verdict"] != "keep":
                witness = row["kept_sample"]
                table.writerow(row | {"kept_source": None if witness is None else rows[witness]["source"]})
        if args.removed:
            stream.close()
        print(f"{facts['samples']} read, {facts['removed']} removed, {facts['unreadable']} unreadable", file=sys.stderr)
        print(f"report {page}, card {run.path / 'DATASET_CARD.md'}", file=sys.stderr)
        print(f"wrote {written['samples']} samples to {written['files']} files in {written['to']}", file=sys.stderr)


if __name__ == "__main__":
    main()
