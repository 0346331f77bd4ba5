"""Generate-and-filter over the prompts of an audit (arXiv 2301.13188, section 4.2)."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from dedupkit.errors import DedupkitError
from dedupkit.memorization.again import Again, Seen
from dedupkit.memorization.audited import Extraction
from dedupkit.memorization.copied import KS
from dedupkit.memorization.extraction import TILES, Filter, at_side, largest_clique, tile_distances
from dedupkit.memorization.nearest import Nearest
from dedupkit.memorization.neighbours import Neighbours

__all__ = ["MOST_GENERATIONS", "Prompt", "Prompted", "compare_generations"]

MOST_GENERATIONS = 2000
"""Number of generations of one prompt that are compared, at 512 pixels: 1.6 GB. With more tiles there are fewer."""

_THREADS = 4


@dataclass(frozen=True, slots=True)
class Prompt:
    """A prompt whose generations were compared.

    Attributes:
        prompt: The prompt.
        generations: Number of its generations that could be read.
        compared: Number of those that were compared, the first ones.
        clique: Rows of the largest clique, ascending; of one row where no two are near.
        middle: The row of the clique that is nearest to the others.
        width: The largest tile distance in the clique.
        sample: The training sample nearest to ``middle``; -1 where none is known.
        to_training: Their tile distance; None where the clique is too small or the image cannot be read.
    """

    prompt: str
    generations: int
    compared: int
    clique: tuple[int, ...]
    middle: int
    width: float
    sample: int
    to_training: float | None = None


@dataclass(frozen=True, slots=True)
class Prompted:
    """The prompts of an audit.

    Attributes:
        filter: What counts as near.
        prompts: Those with enough generations for a clique, in the order of their text.
        too_few: Number of those with fewer, one included.
        seen: The pairs of a clique's middle and a training sample that were looked at.
    """

    filter: Filter
    prompts: tuple[Prompt, ...] = ()
    too_few: int = 0
    seen: dict[tuple[int, int], Seen] = field(default_factory=dict)

    @property
    def cliques(self) -> list[Prompt]:
        """The prompts with a clique that is large enough, the largest first."""
        found = [prompt for prompt in self.prompts if len(prompt.clique) >= self.filter.clique]
        return sorted(found, key=lambda each: (-len(each.clique), each.prompt))

    def result(self, near: Neighbours) -> Extraction | None:
        """The counts; None where there are no prompts."""
        if not self.prompts and not self.too_few:
            return None
        cliques = self.cliques
        known = [each for each in cliques if each.to_training is not None]
        close = [each for each in known if (each.to_training or 0.0) <= self.filter.delta]
        counted = [each.sample for each in close if near.column("verdict")[each.sample].as_py() != "blocked"]
        sizes = [near.column("group_size")[sample].as_py() or 1 for sample in counted]
        return Extraction(
            tiles=self.filter.tiles,
            clique=self.filter.clique,
            delta=self.filter.delta,
            prompts=len(self.prompts),
            too_few=self.too_few,
            cut=sum(each.compared < each.generations for each in self.prompts),
            cliques=len(cliques),
            generations=sum(len(each.clique) for each in cliques),
            near_training=len(close) if known or not cliques else None,
            eidetic={str(k): sum(size <= k for size in sizes) for k in KS},
        )


def compare_generations(made: Nearest, again: Again, how: Filter) -> Prompted:
    """Compare the generations of each prompt with each other, and the cliques with the training images nearest to them.

    Args:
        made: The generated images, with their prompts as captions.
        again: What reads them and the training images.
        how: What counts as near.
    """
    rows: dict[str, list[int]] = {}
    for row, (prompt, readable) in enumerate(zip(made.images["caption"].to_pylist(), made.readable, strict=True)):
        if prompt and prompt.strip() and readable:
            rows.setdefault(prompt.strip(), []).append(row)
    enough = {prompt: members for prompt, members in sorted(rows.items()) if len(members) >= how.clique}
    found = [_compare(prompt, members, made, again, how) for prompt, members in enough.items()]
    pairs = [(each.middle, each.sample) for each in found if len(each.clique) >= how.clique and each.sample >= 0]
    seen = again.look(pairs, how)
    placed = []
    for each in found:
        pair = seen.get((each.middle, each.sample))
        placed.append(replace(each, to_training=None if pair is None else pair.tile_distance))
    return Prompted(how, tuple(placed), len(rows) - len(enough), seen)


def _compare(prompt: str, rows: Sequence[int], made: Nearest, again: Again, how: Filter) -> Prompt:
    most = MOST_GENERATIONS * TILES // max(TILES, how.tiles)
    images, kept = _squares(rows[:most], again, how.side)
    if not kept:
        return Prompt(prompt, len(rows), 0, (rows[0],), rows[0], 0.0, -1)
    distances = tile_distances(images, images, how.tiles)
    clique = largest_clique(distances <= how.delta) or [0]
    inside = distances[np.ix_(clique, clique)]
    np.fill_diagonal(inside, 0.0)
    middle = kept[clique[int(inside.sum(axis=1).argmin())]]
    members = tuple(kept[place] for place in clique)
    return Prompt(prompt, len(rows), len(kept), members, middle, float(inside.max()), int(made.sample[middle]))


def _squares(rows: Sequence[int], again: Again, side: int) -> tuple[NDArray[np.uint8], list[int]]:
    """Generations at one size, (k, side, side, 3), and their rows; those that cannot be read again are left out."""

    def decoded(data: bytes) -> NDArray[np.uint8] | None:
        try:
            return at_side(data, side)
        except DedupkitError:
            return None

    files = again.read(rows)
    with ThreadPoolExecutor(_THREADS) as pool:
        images = dict(zip(files, pool.map(decoded, files.values()), strict=True))
    kept = [row for row in rows if images.get(row) is not None]
    squares = [image for row in kept if (image := images[row]) is not None]
    return (np.stack(squares) if squares else np.zeros((0, side, side, 3), np.uint8)), kept
