"""Texts to a form in which copies are equal: entities decoded, compatibility characters and case folded, spaces merged.

Sources: Unicode Standard Annex 15 (normalization form KC) and the Unicode Standard, section 3.13 (case folding).
"""

from __future__ import annotations

import html
import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass

from dedupkit.captions.steps import Steps

__all__ = ["Folding", "words"]

_ENTITY = re.compile(r"&(?:#\d{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]{1,31});")
_ASCII_SEPARATORS = re.compile(r"[^A-Za-z0-9_]+")
_JOINERS = "\u200c\u200d\ufe0e\ufe0f"
# Scripts that write no spaces between words; their runs become overlapping character n-grams.
_UNSPACED = re.compile(
    "[\u0e00-\u0edf\u1000-\u109f\u1780-\u17ff\u3005-\u3007\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff"
    "\uf900-\ufaff\U0001b000-\U0001b16f\U00020000-\U0003ffff]+"
)


@dataclass(frozen=True)
class Folding(Steps):
    """Which steps are applied to a text before it is compared; each can be switched off.

    Attributes:
        entities: decode HTML entities such as ``&amp;``.
        nfkc: replace compatibility characters (full-width letters, ligatures) by their plain form.
        casefold: remove differences of case.
        spaces: merge runs of white space into one space, and strip the ends.

    Example:
        >>> Folding()("A  Caf\u0065\u0301 &amp; BAR ")
        'a café & bar'
        >>> str(Folding(casefold=False))
        'entities,nfkc,spaces'
    """

    entities: bool = True
    nfkc: bool = True
    casefold: bool = True
    spaces: bool = True

    def __call__(self, text: str) -> str:
        """The folded text."""
        if self.entities and "&" in text:
            text = _ENTITY.sub(lambda match: html.unescape(match[0]), text)
        if text.isascii():
            text = text.lower() if self.casefold else text
        else:
            text = unicodedata.normalize("NFKC", text) if self.nfkc else text
            text = text.casefold() if self.casefold else text
            # Folding can undo the normal form (Unicode 3.13, definition D146).
            text = unicodedata.normalize("NFKC", text) if self.nfkc and self.casefold else text
        return " ".join(text.split()) if self.spaces else text


class _Separators(dict[int, str | None]):
    """A table for ``str.translate``: what separates words becomes a space; filled as characters occur."""

    def __missing__(self, code: int) -> str | None:
        character = chr(code)
        kind = unicodedata.category(character)
        if character in _JOINERS:
            replaced: str | None = None  # within a word or an emoji
        elif kind[0] in "LMN" or character == "_":
            replaced = character
        elif kind == "So" or "\U0001f3fb" <= character <= "\U0001f3ff":
            replaced = f" {character} "  # an emoji is a word
        else:
            replaced = " "
        self[code] = replaced
        return replaced


_SEPARATORS = _Separators()


def words(text: str, ngram: int = 2) -> str:
    """The words of a folded text, separated by spaces.

    A word is a run of letters, marks and digits of any script; an emoji is a word of its own. A run of a script that
    writes no spaces (Chinese, Japanese kana, Thai, Lao, Burmese, Khmer) becomes its overlapping character n-grams.

    Args:
        text: a folded text.
        ngram: characters of an n-gram; a shorter run is one word.

    Example:
        >>> words("a black-and-white cat, 東京タワー")
        'a black and white cat 東京 京タ タワ ワー'
    """
    if text.isascii():
        return _ASCII_SEPARATORS.sub(" ", text).strip()
    text = text.translate(_SEPARATORS)
    text = _UNSPACED.sub(lambda match: f" {' '.join(_ngrams(match[0], ngram))} ", text)
    return " ".join(text.split())


def _ngrams(run: str, size: int) -> Iterable[str]:
    return (run[start : start + size] for start in range(max(1, len(run) - size + 1)))
