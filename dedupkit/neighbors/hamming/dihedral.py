"""Exact join of PDQ hashes in any of eight orientations, from the upright hashes alone.

A PDQ hash is 16 x 16 bits, read row by row, highest bit first: bit (i, j) tells whether the DCT coefficient of
vertical frequency 16 - i and horizontal frequency 16 - j is above the median (the reference prints the highest
frequency first). Mirroring the image left to right negates the coefficients of odd horizontal frequency, so it
complements the columns of odd j, the median being near 0; mirroring it upside down complements the rows of odd i;
transposing it transposes the matrix. The eight orientations of a hash are *defined* by these: they generate a group G
of isometries of {0, 1}^256, so that
D(a, b) = min over g in G of d(a, g b) is symmetric.

Sort the bits by the parities of i and j into four words of 64 bits. A mirror keeps or complements whole words:

    word  i     j     upside down   left to right   both
    0     even  even  keeps         keeps           keeps
    1     odd   even  complements   keeps           complements
    2     even  odd   keeps         complements     complements
    3     odd   odd   complements   complements     keeps

so the four popcounts of a xor b give all four mirror distances. Transposing swaps words 1 and 2 and transposes each
word as 8 x 8 bits. The join has two halves, H with H and H with transposed H, each over the four mirrors.

Why a half is exact: let m be the best mirror of the pair, d(a, m b) <= r. The pigeonhole of `hamming` holds for a and
m b: some word of theirs, and in it some chunk of w bits, are within their radii t and s. A word of m b is that of b
or its complement, so of a and b that word differs in p bits with p <= t or 64 - p <= t, and the chunk in p bits with
p <= s or w - p <= s. These are the conditions by which words 1 to 3 and their chunks qualify. They are symmetric
and depend on the pair alone, so the first chunk that qualifies is well defined, and it does meet the pair: chunks
are sorted by the one of chunk and complement whose top bit is clear, two such keys differ by the mask f of the bits
in which the chunks differ or by its complement, and `hamming.make_probe` looks up the masks with |f| <= s or
w - |f| <= s. (That another mirror than the best may have qualified a word or a chunk only adds candidates: the
distance of each is computed over all the mirrors.)

A pair is emitted by the upright half if it is within r without transposing, else by the transposed half, there only
as (a, b) with a < b, for D is symmetric. Both write D. In a join of two sets there is one order of a pair only, so
the transposed half emits all that it finds.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dedupkit.neighbors.hamming.join import BLOCK_PAIRS, Pairs, Settings, as_words, join

__all__ = ["dihedral_distance", "dihedral_pairs", "iter_dihedral_pairs"]

FOLDED = (False, True, True, True)
"""Which words a mirror may complement."""

BYTES = np.arange(256, dtype=np.uint8)
POPCOUNT = np.unpackbits(BYTES[:, None], axis=1).sum(axis=1, dtype=np.int16)
EVEN_ODD = np.packbits(np.unpackbits(BYTES[:, None], axis=1).reshape(-1, 4, 2).swapaxes(1, 2).reshape(-1, 8))
"""A byte with the bits of even place moved to its upper half, those of odd place to its lower."""


def dihedral_pairs(
    hashes: ArrayLike,
    max_distance: int,
    other: ArrayLike | None = None,
    *,
    workers: int | None = None,
    block_pairs: int = BLOCK_PAIRS,
) -> Pairs:
    """Find every pair of PDQ hashes that are within `max_distance` bits in some orientation.

    Args:
        hashes: (n, 32) uint8, upright PDQ hashes.
        max_distance: the radius in bits, inclusive.
        other: (k, 32) uint8 to join with; without it, `hashes` is joined with itself.
        workers: threads, at least 1; by default one for each core that this process may use.
        block_pairs: pairs that wait in buffers at any time, about.

    Returns:
        The pairs sorted by (a, b), with their `dihedral_distance`; a < b where a set was joined with itself.

    Raises:
        ValueError: an array of another shape or type, or a number out of range.
    """
    return Pairs.gather(iter_dihedral_pairs(hashes, max_distance, other, workers=workers, block_pairs=block_pairs))


def iter_dihedral_pairs(
    hashes: ArrayLike,
    max_distance: int,
    other: ArrayLike | None = None,
    *,
    workers: int | None = None,
    block_pairs: int = BLOCK_PAIRS,
) -> Iterator[Pairs]:
    """As `dihedral_pairs`, but in blocks: each pair once over all of them, in no order, in bounded memory."""
    left, right = class_words(hashes), None if other is None else class_words(other)
    return join_turned(left, right, Settings.checked(max_distance, workers, block_pairs))


def join_turned(left: NDArray[np.uint64], right: NDArray[np.uint64] | None, settings: Settings) -> Iterator[Pairs]:
    """Join class words with others, or with themselves."""
    words = left if right is None else right
    transposed = transpose(words)
    yield from join(left, right, settings, FOLDED, turn=1, other=transposed)
    yield from join(left, transposed, settings, FOLDED, turn=2 if right is None else 3, other=words)


def dihedral_distance(a: ArrayLike, b: ArrayLike) -> NDArray[np.int16]:
    """Least Hamming distance of each row of `a` to the eight orientations of the same row of `b`.

    Args:
        a: (m, 32) uint8, upright PDQ hashes.
        b: (m, 32) uint8.

    Returns:
        int16 (m,), in bits.

    Raises:
        ValueError: an array of another shape or type.
    """
    return class_distance(class_words(a), class_words(b))


def class_distance(left: NDArray[np.uint64], right: NDArray[np.uint64]) -> NDArray[np.int16]:
    """:func:`dihedral_distance` of class words, uint64 (m, 4) each."""
    return np.minimum(_mirror_distance(left, right), _mirror_distance(left, transpose(right)))


def _mirror_distance(left: NDArray[np.uint64], right: NDArray[np.uint64]) -> NDArray[np.int16]:
    p = POPCOUNT[(left ^ right).view(np.uint8)].reshape(-1, 4, 8).sum(axis=2, dtype=np.int16).T
    q = 64 - p
    mirrors = (p[1] + p[2] + p[3], q[1] + p[2] + q[3], p[1] + q[2] + q[3], q[1] + q[2] + p[3])
    least: NDArray[np.int16] = p[0] + np.minimum.reduce(mirrors)
    return least


def class_words(hashes: ArrayLike) -> NDArray[np.uint64]:
    """Sort the bits of PDQ hashes, (n, 32) uint8, by parity: uint64 (n, 4), a byte per row, the first highest.

    Raises:
        ValueError: another shape or type.
    """
    if as_words(hashes).shape[1] != 4:
        raise ValueError("PDQ hashes have 32 bytes a row")
    halves = EVEN_ODD[np.asarray(hashes)].reshape(-1, 8, 2, 2)  # row i = 2 * axis 1 + axis 2
    first, second = halves[..., 0], halves[..., 1]
    even_j = (first & 0xF0) | (second >> 4)
    odd_j = (first << 4) | (second & 0x0F)
    classes = (even_j[..., 0], even_j[..., 1], odd_j[..., 0], odd_j[..., 1])
    return np.stack(classes, axis=1).view(">u8").astype(np.uint64).reshape(-1, 4)


def transpose(words: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Class words of the transposed hashes: words 1 and 2 swapped, each transposed as 8 x 8 bits.

    The transposition swaps off-diagonal blocks of 1, 2 and 4 bits (Warren, "Hacker's Delight", 2nd ed., section 7-3).
    """
    x = words[:, [0, 2, 1, 3]]
    for shift, upper in ((7, 0x00AA00AA00AA00AA), (14, 0x0000CCCC0000CCCC), (28, 0x00000000F0F0F0F0)):
        swap = (x ^ (x >> np.uint64(shift))) & np.uint64(upper)
        x ^= swap ^ (swap << np.uint64(shift))
    return x
