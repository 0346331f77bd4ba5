"""For a notebook: de-duplicate, look at what was found, decide again, and use single modules.

python examples/notebook_researcher.py                          # small shards of scikit-image's photos
python examples/notebook_researcher.py SHARDS --out runs/mine   # yours
"""

from __future__ import annotations

import argparse
import contextlib
import tempfile
from pathlib import Path

import numpy as np

import dedupkit as dk
from dedupkit.clustering import keep_set
from dedupkit.hashing import pdq
from dedupkit.images import ImageError
from dedupkit.neighbors import dihedral_pairs, hamming_pairs
from dedupkit.sources import find_shards


def main() -> None:
    """Print what a notebook would show."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sources", nargs="*", help="tars, Parquet files or folders")
    parser.add_argument("--out", type=Path, help="the run folder; a temporary one by default")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        sources = args.sources
        if not sources:
            from sample_shards import make_shards

            sources = make_shards(Path(temporary, "shards"))

        # The whole job. A notebook shows `run` as a table, and thumbnails for `run.groups[0].show()`.
        run = dk.dedup(sources, args.out or Path(temporary, "run"))
        print(run)
        for group in run.groups[:3]:
            for row in group.rows[:5]:
                print(group.group, row["verdict"], row["reason"], row["score"], row["key"], row["caption"])

        # Decide again within the pairs that the run has kept: nothing is read or matched again.
        for rule in ("exact", "pdq<=10", "copies"):
            print(f"{rule}: {run.rethreshold(rule).summary['keep']} kept")

        # The same by hand, from single modules.
        hashed = []
        for image in (sample.image for shard in find_shards(sources) for sample in shard.read() if sample.image):
            with contextlib.suppress(ImageError):
                hashed.append(pdq(image))
        codes = np.stack([code for code, quality in hashed if quality >= 50])
        pairs = dihedral_pairs(codes, 31)
        print(f"{len(hamming_pairs(codes, 31))} pairs as the images stand, {len(pairs)} mirrored and turned too")
        print(f"{keep_set(pairs.a, pairs.b, order=np.arange(len(codes)))[0].sum()} of {len(codes)} kept")


if __name__ == "__main__":
    main()
