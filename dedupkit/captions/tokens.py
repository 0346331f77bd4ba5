"""Captions to sets of numbered words, block by block."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice, pairwise

import numpy as np
from numpy.typing import NDArray

from dedupkit.captions.folding import Folding, words

__all__ = ["Vocabulary", "tokenize"]

_BLOCK = 1 << 16  # texts folded before they are numbered
_PRIVATE = {code: chr(0xE000 + code) for code in range(128)}


class Vocabulary:
    """Words numbered in the order of their first occurrence; different words never share a number.

    Example:
        >>> vocabulary = Vocabulary()
        >>> offsets, tokens = vocabulary.encode(["a red fox", "a fox"])
        >>> offsets.tolist(), tokens.tolist(), vocabulary.words()
        ([0, 3, 5], [0, 1, 2, 0, 2], ['a', 'red', 'fox'])
    """

    def __init__(self) -> None:
        self._table = np.full(1 << 12, -1, np.int32)
        self._hashes = np.empty(0, np.uint64)
        self._bounds = np.zeros(1, np.int64)
        self._arena = np.empty(0, np.uint8)
        self._state = np.zeros(1, np.int64)

    def __len__(self) -> int:
        return int(self._state[0])

    def encode(self, texts: Iterable[str]) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
        """Number the words of texts, as :func:`dedupkit.captions.words` separates them.

        Args:
            texts: n texts whose words are separated by anything but letters, digits and underscores in ASCII.

        Returns:
            Offsets, (n + 1,) int64, and the words' numbers, (t,) int32, in the order of each text.
        """
        from dedupkit.captions import kernels

        coded = [text.encode("utf-8", "surrogatepass") for text in texts]
        offsets = np.zeros(len(coded) + 1, np.int64)
        np.cumsum([len(text) for text in coded], out=offsets[1:])
        data = np.frombuffer(b"".join(coded) or b"\0", np.uint8)
        room = len(data) // 2 + len(coded) + 1  # words that this block can hold at most
        self._grow(room, len(data))
        out_offsets, out = np.empty(len(coded) + 1, np.int64), np.empty(room, np.int32)
        kernels.encode(
            data, offsets, out_offsets, out, self._table, self._hashes, self._bounds, self._arena, self._state
        )
        return out_offsets, out[: out_offsets[-1]]

    def words(self) -> list[str]:
        """All words by number."""
        data, bounds = self._arena.tobytes(), self._bounds[: len(self) + 1].tolist()
        return [data[begin:end].decode("utf-8", "surrogatepass") for begin, end in pairwise(bounds)]

    def _grow(self, words: int, size: int) -> None:
        """Make room for so many new words of so many bytes in all."""
        from dedupkit.captions import kernels

        count = len(self)
        if count + words > len(self._hashes):
            more = count + max(words, count // 2)
            self._hashes = np.resize(self._hashes, more)
            self._bounds = np.concatenate([self._bounds[: count + 1], np.zeros(more - count, np.int64)])
        used = int(self._bounds[count])
        if used + size > len(self._arena):
            self._arena = np.concatenate([self._arena[:used], np.empty(max(size, used), np.uint8)])
        if 2 * (count + words) > len(self._table):
            self._table = np.full(1 << (2 * (count + words)).bit_length(), -1, np.int32)
            kernels.rehash(self._hashes, count, self._table)


def tokenize(
    texts: Iterable[str | None], folding: Folding | None = None, *, ngram: int = 2
) -> tuple[NDArray[np.int64], NDArray[np.int32], Vocabulary]:
    """Fold texts and number their words.

    Args:
        texts: n texts; None counts as empty.
        folding: steps applied before words are separated; all by default.
        ngram: characters of an n-gram in scripts without spaces.

    Returns:
        Offsets, (n + 1,) int64; the words' numbers, (t,) int32, in the order of each text; and the vocabulary.
    """
    folding = folding or Folding()
    vocabulary = Vocabulary()
    offsets, tokens = [np.zeros(1, np.int64)], [np.zeros(0, np.int32)]
    stream = iter(texts)
    while block := list(islice(stream, _BLOCK)):
        folded = (folding(text) if text else "" for text in block)
        ends, numbers = vocabulary.encode(text if text.isascii() else _separated(text, ngram) for text in folded)
        offsets.append(ends[1:] + offsets[-1][-1])
        tokens.append(numbers)
    return np.concatenate(offsets), np.concatenate(tokens), vocabulary


def _separated(text: str, ngram: int) -> str:
    """The words of a text with characters beyond ASCII; a text without any is one word, so no ASCII may part it."""
    return words(text, ngram) or text.translate(_PRIVATE)
