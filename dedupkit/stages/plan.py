"""What a run is to compute, as its stages read it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from dedupkit.clustering import Rule
from dedupkit.runfolder.folder import RunFolder
from dedupkit.sources import Shard

__all__ = ["Computing", "Job"]


@dataclass(frozen=True, slots=True)
class Computing:
    """How it is computed.

    Attributes:
        threads: Number of threads for joins and decoding, and of processes for verification; the result does not
            depend on it.
        seed: Seed for all random choices.
        device: Device for torch, e.g. ``cuda``; None for a GPU where there is one.
        target_recall: Recall of searches that are clustered because the exact one would take long.
    """

    threads: int = 1
    seed: int = 0
    device: str | None = None
    target_recall: float = 0.99


@dataclass(frozen=True, slots=True)
class Job:
    """What is to be computed.

    Attributes:
        folder: The run folder.
        shards: The shards to read.
        rule: The rule that the edges are for.
        hashes: Names of hashes that the scan computes beside those that it always computes.
        embedders: Embedder specification by signal name.
        computing: How it is computed.
        given: Embedders that were given as objects, by signal name.
    """

    folder: RunFolder
    shards: Sequence[Shard]
    rule: Rule
    hashes: Sequence[str] = ()
    embedders: Mapping[str, str] = field(default_factory=dict)
    computing: Computing = field(default_factory=Computing)
    given: Mapping[str, Any] = field(default_factory=dict)
