"""The settings of a cosine join."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dedupkit.neighbors.cosine.overlap import Overlap
    from dedupkit.neighbors.cosine.pairs import KnownPairs

__all__ = ["MEMORY", "Settings"]

METHODS = ("auto", "exact", "cells")
MEMORY = 2 * 2**30


@dataclass(frozen=True, slots=True)
class Settings:
    """How far and how vectors are joined.

    Attributes:
        floor: Least cosine, in (-1, 1].
        method: ``exact``, ``cells``, or ``auto``: exact where that takes seconds.
        target_recall: Share of the pairs that ``cells`` must find, in (0, 1).
        memory: Bytes for blocks; not counting the vectors.
        device: ``cpu`` or a CUDA device of torch; by default CUDA where there is one.
        seed: Seed for the sample and for k-means.
        workers: Number of threads of torch; by default its own setting.
        max_pairs: Number of pairs that there is room for; None for no limit.
        overlap: Overlap of the cells, for tests and comparisons; by default the cheapest that reaches the target.
        known: Pairs like those to be found: then ``cells`` must find this share of them, and not of all neighbours.

    Raises:
        ValueError: A number out of range, or an unknown method.
    """

    floor: float
    method: str = "auto"
    target_recall: float = 0.99
    memory: int = MEMORY
    device: str | None = None
    seed: int = 0
    workers: int | None = None
    max_pairs: int | None = None
    overlap: Overlap | None = None
    known: KnownPairs | None = None

    def __post_init__(self) -> None:
        if not -1 < self.floor <= 1:
            raise ValueError(f"floor must be a cosine in (-1, 1], not {self.floor}")
        if self.method not in METHODS or not 0 < self.target_recall < 1:
            raise ValueError(
                f"method must be one of {METHODS}, not {self.method!r}; target_recall in (0, 1), "
                f"not {self.target_recall}"
            )
        if self.memory < 1 or (self.workers is not None and self.workers < 1):
            raise ValueError(f"memory ({self.memory} bytes) and workers ({self.workers}) must be at least 1")
