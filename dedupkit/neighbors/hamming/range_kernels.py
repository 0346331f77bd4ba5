"""The compiled loops that sort what one range of keys meets. Importing this file imports numba."""

from __future__ import annotations

from typing import Any

import numpy as np

from dedupkit.neighbors.hamming.kernels import ONE, ZERO, Probe, key_of, njit

__all__ = ["count_keys", "place_keys"]


@njit
def _takes_part(codes: Any, row: Any, blank: Any) -> Any:
    """Whether a hash is joined: all are, or with ``blank`` those that have a bit set."""
    if not blank:
        return True
    for word in range(codes.shape[1]):  # noqa: SIM110 - compiled
        if codes[row, word] != ZERO:
            return True
    return False


@njit
def count_keys(codes: Any, probe: Any, low: Any, reach: Any, blank: Any, starts: Any) -> None:
    """Add to ``starts[key + 2]`` the number of rows of each key in reach.

    Args:
        codes: uint64 (n, words per hash), some rows of the file.
        probe: Fields of a ``Probe``.
        low: uint64, number of low bits of a key that do not say in which range it is.
        reach: bool (ranges,), the ranges to take.
        blank: Whether rows of zeros are left out.
        starts: int32 (buckets + 2,); in and out.
    """
    probe = Probe(*probe)
    for row in range(len(codes)):
        key = key_of(codes[row, probe.word], probe)
        if reach[key >> low] and _takes_part(codes, row, blank):
            starts[key + ONE + ONE] += 1


@njit
def place_keys(
    codes: Any, first: Any, probe: Any, low: Any, reach: Any, blank: Any, starts: Any, words: Any, ids: Any
) -> None:
    """Put the rows of each key where ``starts[key + 1]`` says, and move that on.

    Args:
        codes: As for :func:`count_keys`.
        first: Number of the first of these rows.
        probe: As there.
        low: As there.
        reach: As there.
        blank: As there.
        starts: int32 (buckets + 2,); in and out: the next place of each key, one further.
        words: uint64 (rows in reach or more,); takes the word that holds the chunk.
        ids: int32 (rows in reach,); takes the number of the row.
    """
    probe = Probe(*probe)
    for row in range(len(codes)):
        word = codes[row, probe.word]
        key = key_of(word, probe)
        if reach[key >> low] and _takes_part(codes, row, blank):
            place = np.uint64(starts[key + ONE])
            words[place] = word
            ids[place] = first + row
            starts[key + ONE] += 1
