"""What one signal says about all samples: which are equal under it, and scored pairs of the others. Arrays only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

__all__ = ["Matches", "Origin"]

Origin = Literal["bytes", "image", "sample"]
"""What a fingerprint is computed from: it *is* the identity of the stored bytes, it is a function of them, or it
depends on something else of the sample (its caption, its address), so that equal bytes may have different ones."""


@dataclass(frozen=True, slots=True)
class Matches:
    """What one signal says about n samples.

    Attributes:
        first: (n,) int32; the smallest sample with the same fingerprint (its own number where it is the first), -1
            where the sample has none, as every sample that takes no part in deciding.
        a: (m,) int32; edges between first samples of different fingerprints, each once.
        b: (m,) int32; the other end.
        score: (m,) float32 distance or similarity.
        origin: what the fingerprints are computed from.
    """

    first: NDArray[np.int32]
    a: NDArray[np.int32]
    b: NDArray[np.int32]
    score: NDArray[np.float32]
    origin: Origin = "image"

    @classmethod
    def identity(cls, first: NDArray[np.int32], origin: Origin = "image") -> Matches:
        """A signal that only holds between equal fingerprints."""
        none = np.zeros(0, np.int32)
        return cls(first, none, none, np.zeros(0, np.float32), origin)
