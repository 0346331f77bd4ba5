"""The compiled loops that number words and make MinHash signatures. Importing this file imports numba."""

from typing import Any

import numpy as np

from dedupkit.neighbors.hamming.kernels import njit

__all__ = ["encode", "rehash"]

_PRIME = np.uint64(0x100000001B3)
_BASIS = np.uint64(0xCBF29CE484222325)


@njit
def _is_word(byte: Any) -> Any:
    """Whether a byte belongs to a word: ASCII letters and digits, underscores, and all of UTF-8 beyond ASCII."""
    return byte >= 128 or 97 <= byte <= 122 or 65 <= byte <= 90 or 48 <= byte <= 57 or byte == 95


@njit
def _hash(data: Any, begin: Any, end: Any) -> Any:
    """FNV-1a with a final mix, for the slots of the table; words are compared byte by byte."""
    value = _BASIS
    for place in range(begin, end):
        value = (value ^ np.uint64(data[place])) * _PRIME
    value ^= value >> np.uint64(29)
    return value * np.uint64(0xBF58476D1CE4E5B9)


@njit
def rehash(hashes: Any, count: Any, table: Any) -> None:
    """Enter words 0 to ``count`` into an empty table (-1) of a power of two of slots."""
    mask = np.uint64(len(table) - 1)
    for word in range(count):
        slot = (hashes[word] >> np.uint64(20)) & mask
        while table[slot] >= 0:
            slot = (slot + np.uint64(1)) & mask
        table[slot] = word


@njit
def _number(data: Any, begin: Any, end: Any, table: Any, hashes: Any, bounds: Any, arena: Any, state: Any) -> Any:
    """The number of a word; a new one is entered."""
    mask = np.uint64(len(table) - 1)
    value = _hash(data, begin, end)
    slot = (value >> np.uint64(20)) & mask
    size = end - begin
    while table[slot] >= 0:
        word = table[slot]
        if hashes[word] == value and bounds[word + 1] - bounds[word] == size:
            place, start = 0, bounds[word]
            while place < size and arena[start + place] == data[begin + place]:
                place += 1
            if place == size:
                return word
        slot = (slot + np.uint64(1)) & mask
    word = np.int32(state[0])
    table[slot] = word
    hashes[word] = value
    start = bounds[word]
    for place in range(size):
        arena[start + place] = data[begin + place]
    bounds[word + 1] = start + size
    state[0] += 1
    return word


@njit
def encode(
    data: Any, offsets: Any, out_offsets: Any, out: Any, table: Any, hashes: Any, bounds: Any, arena: Any, state: Any
) -> None:
    """Number the words of many texts; a text that has none, but is not empty, is one word itself.

    ``data`` (uint8) and ``offsets`` (n + 1,) hold the texts as UTF-8; ``out_offsets`` (n + 1,) and ``out`` receive the
    words' numbers. The table of known words consists of ``table`` (slots), ``hashes``, ``bounds`` (where each word
    begins in ``arena``) and ``state`` (how many there are).
    """
    filled = 0
    for text in range(len(offsets) - 1):
        out_offsets[text] = filled
        at, end = offsets[text], offsets[text + 1]
        before = filled
        while at < end:
            while at < end and not _is_word(data[at]):
                at += 1
            begin = at
            while at < end and _is_word(data[at]):
                at += 1
            if at > begin:
                out[filled] = _number(data, begin, at, table, hashes, bounds, arena, state)
                filled += 1
        if filled == before and end > offsets[text]:
            out[filled] = _number(data, offsets[text], end, table, hashes, bounds, arena, state)
            filled += 1
    out_offsets[len(offsets) - 1] = filled
