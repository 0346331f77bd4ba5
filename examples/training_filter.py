"""For training: run once, then skip duplicates while reading the original shards; nothing is rewritten.

python examples/training_filter.py                             # small shards of scikit-image's photos
python examples/training_filter.py 'shards/*.tar' --out runs/mine
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import datasets
import webdataset as wds

import dedupkit as dk


def main() -> None:
    """Count what each loader yields with the filter and without."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sources", nargs="*", help="WebDataset tars, with globs and braces, or folders of them")
    parser.add_argument("--out", type=Path, help="the run folder; a temporary one by default")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        sources = args.sources
        if not sources:
            from sample_shards import make_shards

            sources = make_shards(Path(temporary, "shards"))
        run = dk.dedup(sources, args.out or Path(temporary, "run"))
        tars = run.config["shards"]
        keep = dk.keep_filter(run.path)  # picklable: each data-loader worker reads the verdicts of the shards it meets

        # webdataset: samples carry __key__ and __url__. Filter before decoding, so that no duplicate is decoded.
        read = sum(1 for _ in wds.WebDataset(tars, shardshuffle=False))
        pipeline = wds.WebDataset(tars, shardshuffle=False).select(keep).decode("pil").to_tuple("jpg", "txt")
        sizes = [image.size for image, _ in pipeline]
        print(f"webdataset: {len(sizes)} of {read} samples, the first of {sizes[0]} pixels")

        # Hugging Face datasets, over the same tars. Images are decoded after the filter, as some files may be broken.
        stream = datasets.load_dataset(
            "webdataset", data_files={"train": tars}, split="train", streaming=True, cache_dir=temporary
        )
        stream = stream.cast_column("jpg", datasets.Image(decode=False))
        decode = datasets.Image().decode_example
        kept = stream.filter(keep).map(lambda example: {"jpg": decode(example["jpg"])})
        captions = [(example["txt"], example["jpg"].size) for example in kept]
        print(f"datasets: {len(captions)} samples, the first: {captions[0][0]}, {captions[0][1]} pixels")
        print(f"manifest: {run.summary['keep']} kept")


if __name__ == "__main__":
    main()
