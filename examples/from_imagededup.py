"""The workflow of imagededup: a folder of images to a map of duplicates, a list of files to remove, and a plot.

python examples/from_imagededup.py PHOTOS --recursive --plot duplicates.png
"""

from __future__ import annotations

import argparse
from pathlib import Path

import dedupkit as dk


def main() -> None:
    """Print what is duplicated and what can go."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("image_dir", type=Path)
    parser.add_argument("--method", default="pdq", choices=["pdq", "phash", "dhash", "ahash", "whash"])
    parser.add_argument("--threshold", type=int, help="bits; 31 for pdq, else 10 by default")
    parser.add_argument("--recursive", action="store_true")
    parser.add_argument("--json", type=Path, help="where to write the map of duplicates")
    parser.add_argument("--plot", type=Path, help="where to write a picture of the image with the most duplicates")
    args = parser.parse_args()
    asked = {"max_distance_threshold": args.threshold, "recursive": args.recursive, "method": args.method}

    # In imagededup: PHash().find_duplicates(image_dir=..., max_distance_threshold=..., scores=True)
    duplicates = dk.find_duplicates(image_dir=args.image_dir, scores=True, outfile=args.json, **asked)
    for name, others in duplicates.items():
        if others:
            print(name, *others, sep="\n    ")

    # In imagededup: PHash().find_duplicates_to_remove(...). Both functions also take the hashes of encode_images.
    removed = dk.find_duplicates_to_remove(image_dir=args.image_dir, **asked)
    print(f"{len(duplicates)} images, {len(removed)} to remove:", *removed, sep="\n    ")

    if args.plot and removed:
        most = max(duplicates, key=lambda name: len(duplicates[name]))
        dk.plot_duplicates(image_dir=args.image_dir, duplicate_map=duplicates, filename=most, outfile=args.plot)
        print(f"wrote {args.plot}")


if __name__ == "__main__":
    main()
