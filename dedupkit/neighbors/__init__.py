"""Joins: pairs of hashes within a Hamming radius, pairs of vectors above a cosine."""

from dedupkit.neighbors.cosine import Recall, ScoredPairs, cosine_pairs, iter_cosine_pairs
from dedupkit.neighbors.hamming import (
    Pairs,
    dihedral_distance,
    dihedral_pairs,
    hamming_pairs,
    iter_dihedral_pairs,
    iter_hamming_pairs,
)

__all__ = [
    "Pairs", "Recall", "ScoredPairs", "cosine_pairs", "dihedral_distance", "dihedral_pairs", "hamming_pairs",
    "iter_cosine_pairs", "iter_dihedral_pairs", "iter_hamming_pairs",
]  # fmt: skip
