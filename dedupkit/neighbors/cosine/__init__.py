"""Joins of vectors above a cosine, and the nearest of each vector; exact and clustered."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dedupkit.neighbors.cosine.join import ScoredPairs, cosine_pairs, iter_cosine_pairs
from dedupkit.neighbors.cosine.pairs import KnownPairs
from dedupkit.neighbors.cosine.recall import Recall
from dedupkit.startup.lazy import lazy_names

if TYPE_CHECKING:
    from dedupkit.neighbors.cosine.neighbors import Neighbors, cosine_neighbors

__all__ = ["KnownPairs", "Neighbors", "Recall", "ScoredPairs", "cosine_neighbors", "cosine_pairs", "iter_cosine_pairs"]

__getattr__ = lazy_names(__name__, dict.fromkeys(("Neighbors", "cosine_neighbors"), "neighbors"))  # it compiles
