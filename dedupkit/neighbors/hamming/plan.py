"""How hashes are cut into chunks: radii by the pigeonhole principle, the cheapest number of chunks; see `join`."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from functools import lru_cache
from math import comb
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from dedupkit.neighbors.hamming.kernels import Probe

__all__ = ["Chunk", "cost", "make_plan", "make_probe", "split_radius", "split_word"]

WORD_BITS = 64
WIDEST_CHUNK = 24  # its table of bucket starts takes 64 MiB

# Cost model, in nanoseconds on one core of a 2023 server; only the ratios matter.
SORT_ROW, TABLE_ENTRY, LOOKUP, COMPARE, VERIFY = 35.0, 2.0, 5.0, 0.14, 10.0


class Chunk(NamedTuple):
    """Some bits of a word, and the distance within which pairs are looked up by them."""

    word: int
    shift: int
    width: int
    radius: int
    folded: bool
    """Whether the chunk and its complement share a bucket (for `dihedral`)."""

    @property
    def buckets(self) -> int:
        """Number of keys."""
        return 1 << (self.width - self.folded)


def split_radius(radius: int, parts: int) -> list[int]:
    """Radii of the parts, as even as can be, whose (radius + 1) add up to radius + 1; -1 leaves a part out."""
    whole, rest = divmod(radius, parts)
    return [whole if part <= rest else whole - 1 for part in range(parts)]


@lru_cache(maxsize=4096)
def ball(bits: int, radius: int) -> int:
    """Number of masks of `bits` bits that have at most `radius` set."""
    return sum(comb(bits, k) for k in range(min(bits, radius) + 1))


def split_word(word: int, radius: int, parts: int, widest: int, folded: bool) -> list[Chunk]:
    """Cut a word into chunks; 0 parts: one chunk of no bits. Bits go where they save most candidates."""
    if parts == 0:
        return [Chunk(word, 0, 0, radius, folded=False)]
    radii = [r for r in split_radius(radius, parts) if r >= 0]
    widths = [1] * len(radii)
    while sum(widths) < WORD_BITS and min(widths) < widest:
        open_parts = [p for p, width in enumerate(widths) if width < widest]
        widths[max(open_parts, key=lambda p: ball(widths[p], radii[p]) / 2 ** widths[p])] += 1
    shifts = [0, *itertools.accumulate(widths)]
    return [Chunk(word, s, w, r, folded) for s, w, r in zip(shifts, widths, radii, strict=False)]


def cost(chunk: Chunk, word_radius: int, lookups: float, rows: int) -> float:
    """Nanoseconds that a chunk takes with random hashes, when `lookups` rows meet `rows` rows."""
    candidates = rows / chunk.buckets
    free = WORD_BITS - chunk.width
    passing: float = ball(free, word_radius) / 2**free  # of the candidates, how many are as close in the whole word
    per_lookup = LOOKUP + candidates * COMPARE + candidates * passing * VERIFY
    return SORT_ROW * rows + TABLE_ENTRY * chunk.buckets + lookups * ball(chunk.width, chunk.radius) * per_lookup


def make_plan(
    radius: int, sizes: Sequence[int], folded: Sequence[bool], parts: int | None = None
) -> tuple[list[int], list[Chunk]]:
    """Choose the radius of each word, and the chunks.

    Args:
        radius: of the whole hash, in bits.
        sizes: rows of the set that is joined with itself, or of the two sets.
        folded: for each word, whether its complement counts as equal.
        parts: chunks of a word, if not to be chosen here; 0 is brute force.
    """
    lookups, rows = (sizes[0] / 2 if len(sizes) == 1 else sizes[0]), sizes[-1]
    widest = min(WIDEST_CHUNK, max(2, *sizes).bit_length())
    words = len(folded)
    plans = []
    for radii in (split_radius(radius, words), [radius] + [-1] * (words - 1)):  # or all by the first word
        for k in range(9) if parts is None else [parts]:
            chunks = [
                chunk
                for word, r in enumerate(radii)
                if r >= 0
                for chunk in split_word(word, min(r, WORD_BITS), min(k, r + 1), widest, folded[word])
            ]
            plans.append((sum(cost(c, radii[c.word], lookups, rows) for c in chunks), radii, chunks))
    return min(plans)[1:]


def band(bits: int, radius: int, folded: bool) -> tuple[int, int]:
    """Low and span of the distances in `bits` bits that do not qualify; folded: neither do bits - distance."""
    return radius + 1, max(0, bits - radius - (radius + 1 if folded else 0))


def make_probe(radii: Sequence[int], chunks: Sequence[Chunk], index: int, folded: Sequence[bool]) -> Probe:
    """Put what the kernels need to know of chunk `index` into arrays."""
    from dedupkit.neighbors.hamming.kernels import Probe

    chunk = chunks[index]
    keep = (1 << chunk.width) - 1
    top = (keep + 1) >> 1 if chunk.folded else 0
    flips = {
        sum(1 << bit for bit in bits)
        for count in range(min(chunk.radius, chunk.width) + 1)
        for bits in itertools.combinations(range(chunk.width), count)
    }
    # Folded keys have a clear top bit: flipping it and complementing the result flips all the others.
    flips = {flip ^ keep if flip & top else flip for flip in flips}
    earlier = [
        (((1 << c.width) - 1) << c.shift, *band(c.width, c.radius, c.folded))
        for c in chunks[:index]
        if c.word == chunk.word
    ]
    return Probe(
        chunk.word,
        np.uint64(chunk.shift),
        np.uint64(keep),
        np.uint64(top),
        np.array(sorted(flips), np.uint64),
        np.array([band(WORD_BITS, r, f) for r, f in zip(radii, folded, strict=True)], np.uint64),
        np.array(earlier, np.uint64).reshape(-1, 3),
    )
