"""Captions: folding, word sets, and pairs of near-duplicate texts."""

from dedupkit.captions.folding import Folding, words
from dedupkit.captions.pairs import CaptionPairs, caption_pairs
from dedupkit.captions.tokens import Vocabulary, tokenize

__all__ = ["CaptionPairs", "Folding", "Vocabulary", "caption_pairs", "tokenize", "words"]
