"""Embedders: images to vectors whose cosine finds what hashes miss.

>>> embedder = load_embedder("lite")                                        # doctest: +SKIP
>>> vectors = embedder.encode(np.stack([embedder.preprocess(image)]))       # doctest: +SKIP
"""

from dedupkit.embedding.embedder import Embedder
from dedupkit.embedding.precomputed import Precomputed, join_shard, load_precomputed
from dedupkit.embedding.spec import FORMS, embedder_key, embedder_name, load_embedder, shared_embedder

__all__ = [
    "FORMS",
    "Embedder",
    "Precomputed",
    "embedder_key",
    "embedder_name",
    "join_shard",
    "load_embedder",
    "load_precomputed",
    "shared_embedder",
]
