"""Joins of vectors above a cosine, exact and clustered."""

from dedupkit.neighbors.cosine.join import ScoredPairs, cosine_pairs, iter_cosine_pairs
from dedupkit.neighbors.cosine.recall import Recall

__all__ = ["Recall", "ScoredPairs", "cosine_pairs", "iter_cosine_pairs"]
