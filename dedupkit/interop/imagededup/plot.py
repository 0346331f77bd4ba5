"""A plot of an image above its duplicates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from dedupkit.errors import import_optional
from dedupkit.images import luma_of, open_image
from dedupkit.interop.imagededup.arguments import existing_folder

__all__ = ["plot_duplicates"]

_COLUMNS = 4
_MOST_PLOTTED = 40
_PLOTTED_SIDE = 512


def plot_duplicates(
    image_dir: str | Path,
    duplicate_map: Mapping[str, Sequence[Any]],
    filename: str,
    outfile: str | Path | bool | None = None,
) -> None:
    """Plot an image above its duplicates, the nearest first, each with its score where the map has scores.

    Args:
        image_dir: Folder that the map's names are relative to.
        duplicate_map: Result of :func:`find_duplicates`, with or without scores; its ``outfile`` read back too.
        filename: Key of ``duplicate_map`` to plot; at most its first 40 duplicates are shown.
        outfile: Image file for the figure; without one the figure is shown, as matplotlib is set up.

    Raises:
        MissingExtraError: Matplotlib is not installed.
        ValueError: No such folder, a map that is no mapping, a name that is not in it or has no duplicates, or a file
            that is no longer an image.
        OSError: A file that cannot be read.
    """
    folder = existing_folder(image_dir)
    if not isinstance(duplicate_map, Mapping):
        raise ValueError("duplicate_map must be what find_duplicates returns: a dict of file names")
    if filename not in duplicate_map:
        raise ValueError(f"{filename!r} is no key of duplicate_map")
    duplicates = duplicate_map[filename]
    if not duplicates:
        raise ValueError(f"{filename!r} has no duplicates to plot")
    plt = import_optional("matplotlib.pyplot", extra="notebook")

    shown = duplicates[:_MOST_PLOTTED]
    count = f"{len(duplicates)} duplicate" + ("" if len(duplicates) == 1 else "s")
    count += f", {len(shown)} shown" if len(shown) < len(duplicates) else ""
    rows = -(-len(shown) // _COLUMNS)
    figure = plt.figure(figsize=(10, 4 + 2.7 * rows), layout="constrained")
    try:
        grid = figure.add_gridspec(rows + 1, _COLUMNS, height_ratios=[1.5, *[1.0] * rows])
        _draw(figure.add_subplot(grid[0, 1:3]), folder / filename, f"{filename}\n{count}", size=10)
        for place, entry in enumerate(shown):
            name, score = (entry, None) if isinstance(entry, str) else entry
            title = name if score is None else f"{name}\ndistance {score:.3g}"
            _draw(figure.add_subplot(grid[1 + place // _COLUMNS, place % _COLUMNS]), folder / name, title, size=7)
        if outfile and outfile is not True:
            figure.savefig(outfile)
        else:
            plt.show()
    finally:
        plt.close(figure)


def _draw(axes: Any, path: Path, title: str, size: int) -> None:
    image = open_image(path.read_bytes())
    if image.mode.startswith(("I", "F")):  # more than 8 bits a value
        image = Image.fromarray(luma_of(image).plane)
    image = image.convert("RGBA")
    image.thumbnail((_PLOTTED_SIDE, _PLOTTED_SIDE))
    axes.imshow(np.asarray(image))
    axes.set_title(title, fontsize=size, wrap=True, parse_math=False)
    axes.axis("off")
