"""Joins: pairs of hashes within a Hamming radius, of vectors above a cosine, of sets above a Jaccard similarity."""

from dedupkit.neighbors.cosine import Recall, ScoredPairs, cosine_pairs, iter_cosine_pairs
from dedupkit.neighbors.hamming import (
    Pairs,
    dihedral_distance,
    dihedral_pairs,
    hamming_pairs,
    iter_dihedral_pairs,
    iter_hamming_pairs,
)
from dedupkit.neighbors.sets import SetPairs, jaccard_pairs

__all__ = [
    "Pairs", "Recall", "ScoredPairs", "SetPairs", "cosine_pairs", "dihedral_distance", "dihedral_pairs",
    "hamming_pairs", "iter_cosine_pairs", "iter_dihedral_pairs", "iter_hamming_pairs", "jaccard_pairs",
]  # fmt: skip
