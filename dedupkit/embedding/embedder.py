"""What an embedder is: five facts and two methods."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from PIL import Image

__all__ = ["Embedder", "Pixels", "Vectors", "unit_rows"]

Pixels = NDArray[np.uint8]
"""RGB images: (height, width, 3), or a batch of them (n, height, width, 3)."""

Vectors = NDArray[np.float32]


@runtime_checkable
class Embedder(Protocol):
    """Turns images into vectors whose cosine says how alike two images are.

    Attributes:
        name: the signal's name in rules and of the folder under ``embeddings/``, e.g. ``clip``.
        dim: length of a vector.
        key: fingerprint of the model, its weights and its preprocessing; another key is another embedding.
        min_side: an image may be decoded at a reduced scale as long as its shorter side keeps this many pixels.
        precision: ``float32``, ``bfloat16`` or ``float16``: what the model computes in.
        device: ``cpu``, ``cuda``, ….
    """

    name: str
    dim: int
    key: str
    min_side: int
    precision: str
    device: str

    def preprocess(self, image: Image.Image) -> Pixels:
        """One RGB image to (height, width, 3) uint8 at the model's input size; runs in the decoding threads."""

    def encode(self, batch: Pixels) -> Vectors:
        """(n, height, width, 3) uint8 to (n, dim) float32 of unit length; a row that has no length stays as it is."""


def unit_rows(vectors: Vectors) -> Vectors:
    """Scale rows to length 1; rows that are zero or not finite come back as they are."""
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    usable = np.isfinite(length) & (length > 0)
    return (vectors / np.where(usable, length, 1)).astype(np.float32, copy=False)
