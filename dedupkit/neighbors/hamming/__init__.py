"""Joins of hashes within a Hamming radius, in any orientation too."""

from dedupkit.neighbors.hamming.dihedral import dihedral_distance, dihedral_pairs, iter_dihedral_pairs
from dedupkit.neighbors.hamming.join import Pairs, hamming_pairs, iter_hamming_pairs

__all__ = [
    "Pairs", "dihedral_distance", "dihedral_pairs", "hamming_pairs", "iter_dihedral_pairs", "iter_hamming_pairs",
]  # fmt: skip
