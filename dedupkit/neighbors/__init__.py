"""Joins: pairs of hashes within a Hamming radius, of vectors above a cosine, of sets above a Jaccard similarity."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dedupkit.neighbors.cosine import KnownPairs, Recall, ScoredPairs, cosine_pairs, iter_cosine_pairs
from dedupkit.neighbors.hamming import (
    Pairs,
    dihedral_distance,
    dihedral_pairs,
    hamming_pairs,
    iter_dihedral_pairs,
    iter_hamming_pairs,
)
from dedupkit.neighbors.sets import SetPairs, jaccard_pairs
from dedupkit.startup.lazy import lazy_names

if TYPE_CHECKING:
    from dedupkit.neighbors.cosine.neighbors import Neighbors, cosine_neighbors

__all__ = [
    "KnownPairs", "Neighbors", "Pairs", "Recall", "ScoredPairs", "SetPairs", "cosine_neighbors", "cosine_pairs",
    "dihedral_distance", "dihedral_pairs", "hamming_pairs", "iter_cosine_pairs", "iter_dihedral_pairs",
    "iter_hamming_pairs", "jaccard_pairs",
]  # fmt: skip

__getattr__ = lazy_names(__name__, dict.fromkeys(("Neighbors", "cosine_neighbors"), "cosine.neighbors"))
