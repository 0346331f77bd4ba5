"""Filter a generation loop: an image that copies the training set is drawn again, and at last left out.

Usage: python examples/guard_generations.py RUN_FOLDER GENERATED_FOLDER

The generator here is a folder of images; put your model in its place.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from PIL import Image

import dedupkit as dk

TRIES = 3


def generations(folder: Path) -> Iterator[Path]:
    """What a model would give, one image after the other; captions beside them are passed over."""
    yield from (path for path in sorted(folder.iterdir()) if path.suffix.lower() in Image.registered_extensions())


def main(run: str, generated: str) -> None:
    """Count the images that pass."""
    guard = dk.CopyGuard(run, embedder=None if dk.Run(run).config["embedders"] else False)
    images = generations(Path(generated))
    passed = copies = broken = 0
    while True:
        for _ in range(TRIES):
            image = next(images, None)
            if image is None:
                print(f"{passed} passed, {copies} copied a training image, {broken} could not be read")
                return
            try:
                found = guard.check(image)
            except dk.DedupkitError as error:
                broken += 1
                print(f"{image.name}: {error}")
                continue
            if not found:
                passed += 1  # hand it to whoever asked for it
                break
            copies += 1
            assert found.nearest is not None
            print(f"a copy of {found.nearest.key} (group of {found.nearest.group_size}): {found.nearest.in_words()}")


if __name__ == "__main__":
    main(*sys.argv[1:])
