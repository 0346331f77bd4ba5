"""Embedders: images to vectors whose cosine finds what hashes miss.

>>> import numpy as np
>>> embedder = load_embedder("lite")                                        # doctest: +SKIP
>>> vectors = embedder.encode(np.stack([embedder.preprocess(image)]))       # doctest: +SKIP
"""

from dedupkit.embedding.embedder import Embedder
from dedupkit.embedding.keys import embedder_key
from dedupkit.embedding.load import load_embedder, shared_embedder
from dedupkit.embedding.precomputed import Precomputed, load_precomputed
from dedupkit.embedding.projected import Projected
from dedupkit.embedding.projection import Projection, fit_projection, load_projection
from dedupkit.embedding.separation import Separation, held_out, separation
from dedupkit.embedding.spec import FORMS, embedder_name

__all__ = [
    "FORMS", "Embedder", "Precomputed", "Projected", "Projection", "Separation", "embedder_key", "embedder_name",
    "fit_projection", "held_out", "load_embedder", "load_precomputed", "load_projection", "separation",
    "shared_embedder",
]  # fmt: skip
