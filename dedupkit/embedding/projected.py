"""An embedder whose vectors go through a projection."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from dedupkit.embedding.embedder import Embedder, Pixels, Vectors
from dedupkit.embedding.projection import Projection
from dedupkit.errors import DedupkitError

__all__ = ["Projected", "check_model"]


class Projected:
    """An :class:`~dedupkit.embedding.embedder.Embedder` and a projection of its vectors.

    Args:
        embedder: The model.
        projection: Projection that was fitted to vectors of this model.
        key: Fingerprint of both; by default one that follows from the model's and the projection's values.

    Raises:
        DedupkitError: The projection is for another model.
    """

    def __init__(self, embedder: Embedder, projection: Projection, key: str = "") -> None:
        check_model(projection, embedder.key, embedder.dim, embedder.name)
        self._embedder, self._projection = embedder, projection
        self.name, self.dim = embedder.name, projection.dim
        self.key = key or f"{embedder.key}-{projection.digest()}"
        self.min_side, self.precision, self.device = embedder.min_side, embedder.precision, embedder.device

    def preprocess(self, image: Image.Image) -> Pixels:
        """One RGB image at the model's input size; see the protocol."""
        return self._embedder.preprocess(image)

    def encode(self, batch: Pixels) -> Vectors:
        """Embed a batch and project the vectors; see the protocol."""
        return self._projection(self._embedder.encode(batch))


def check_model(projection: Projection, key: str, dim: int, name: str, path: Path | None = None) -> None:
    """Raise DedupkitError where a projection is for another model.

    Args:
        projection: The projection.
        key: Key of the embedder; empty where that is not known.
        dim: Number of values of its vectors.
        name: Its name, for the message.
        path: File of the projection, for the message.
    """
    what = "the projection" if path is None else str(path)
    if len(projection.mean) != dim:
        raise DedupkitError(
            f"{what} was fitted for another model: it takes vectors of {len(projection.mean)} values, {name} has {dim}"
        )
    if key and projection.model and projection.model != key:
        raise DedupkitError(
            f"{what} was fitted for another model than {name}, or for other weights or options of it; fit one for this "
            "with ?project=copies"
        )
