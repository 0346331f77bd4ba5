"""Joins of sets by Jaccard similarity: exact for short sets, MinHash-LSH for long ones."""

from dedupkit.neighbors.sets.join import SetPairs, jaccard_pairs

__all__ = ["SetPairs", "jaccard_pairs"]
