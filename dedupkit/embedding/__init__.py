"""Embedders: images to vectors whose cosine finds what hashes miss.

>>> import numpy as np
>>> embedder = load_embedder("lite")                                        # doctest: +SKIP
>>> vectors = embedder.encode(np.stack([embedder.preprocess(image)]))       # doctest: +SKIP
"""

from dedupkit.embedding.embedder import Embedder
from dedupkit.embedding.keys import embedder_key
from dedupkit.embedding.load import load_embedder, shared_embedder
from dedupkit.embedding.precomputed import Precomputed, load_precomputed
from dedupkit.embedding.spec import FORMS, embedder_name

__all__ = [
    "FORMS", "Embedder", "Precomputed", "embedder_key", "embedder_name", "load_embedder", "load_precomputed",
    "shared_embedder",
]  # fmt: skip
