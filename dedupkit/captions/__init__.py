"""Captions: folding, word sets, and pairs of near-duplicate texts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dedupkit.captions.folding import Folding, words
from dedupkit.startup.lazy import lazy_names

if TYPE_CHECKING:
    from dedupkit.captions.pairs import CaptionPairs, caption_pairs
    from dedupkit.captions.tokens import Vocabulary, tokenize

__all__ = ["CaptionPairs", "Folding", "Vocabulary", "caption_pairs", "tokenize", "words"]

__getattr__ = lazy_names(
    __name__,
    dict.fromkeys(("CaptionPairs", "caption_pairs"), "pairs") | dict.fromkeys(("Vocabulary", "tokenize"), "tokens"),
)
