"""What a run is to compute, as its stages read it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from dedupkit.clustering import Rule
from dedupkit.runfolder.folder import RunFolder
from dedupkit.sources import Shard

__all__ = ["Job"]


@dataclass(frozen=True, slots=True)
class Job:
    """What is to be computed.

    Attributes:
        folder: where.
        shards: what is read.
        rule: what the edges are for.
        hashes: computed by the scan, beside those that it always computes.
        embedders: specification by signal name.
        workers: processes of the scan, threads of everything else.
        seed: of samples and clusters.
        device: for torch.
        target_recall: of clustered searches.
        given: embedders that were given as objects, by signal name.
    """

    folder: RunFolder
    shards: Sequence[Shard]
    rule: Rule
    hashes: Sequence[str]
    embedders: Mapping[str, str]
    workers: int
    seed: int
    device: str | None
    target_recall: float
    given: Mapping[str, Any] = field(default_factory=dict)
