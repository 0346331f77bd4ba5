"""The beginnings of shards, and what is measured on them."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice, pairwise
from typing import Any, NamedTuple

from dedupkit.errors import DedupkitError
from dedupkit.sources import Sample, Shard
from dedupkit.sources.sample import PassedOver, Place

__all__ = ["HEADERS", "Beginning", "Looking", "measure_looking"]

HEADERS = 1024
"""Bytes of a tar around a member: its header, and padding."""

_IMAGES = 300
_LOOKED_AT = 12


@dataclass(slots=True)
class Beginning:
    """The first samples of a shard, which reads as a shard.

    Attributes:
        shard: The shard.
        most: Greatest number of samples.
        count: Number of samples that were read last.
        nbytes: Bytes that they take in the shard, about.
        ended: Whether that was all of the shard.
    """

    shard: Shard
    most: int = _IMAGES
    count: int = 0
    nbytes: int = 0
    ended: bool = field(default=True)

    @property
    def source(self) -> str:
        """The shard's name."""
        return self.shard.source

    @property
    def paths(self) -> tuple[str, ...]:
        """Its files."""
        return self.shard.paths

    @property
    def settings(self) -> str:
        """How it is read."""
        return self.shard.settings

    def read(self, *, extra: bool = False, passed_over: PassedOver | None = None) -> Iterator[Sample]:
        """Yield its first samples; see :class:`dedupkit.sources.Shard`."""
        self.count = self.nbytes = 0
        self.ended = True
        for sample in self.shard.read(extra=extra, passed_over=passed_over):
            if self.count == self.most:
                self.ended = False
                return
            self.count += 1
            self.nbytes += sum(len(member) + HEADERS for member in sample.members.values())
            yield sample

    def fetch_many(self, places: Sequence[Place]) -> Iterator[tuple[Place, bytes | OSError]]:
        """Give images again; see :class:`dedupkit.sources.Shard`."""
        return self.shard.fetch_many(places)


class Looking(NamedTuple):
    """What looking at images again takes: seconds for the features of an image, and for a pair."""

    image: float
    pair: float


def measure_looking(shard: Shard) -> Looking | None:
    """Measure verification on the first images of a shard; None where its package is missing, or fewer than two.

    Args:
        shard: The shard.
    """
    try:
        from dedupkit.images import ImageError, decode_luma
        from dedupkit.verification.pair import local_features, verify_pair
    except (ImportError, DedupkitError):
        return None
    features: list[Any] = []
    began = time.perf_counter()
    for sample in islice((sample for sample in shard.read() if sample.image is not None), _LOOKED_AT + 1):
        if not features:
            began = time.perf_counter()  # the first loads code
        try:
            luma = decode_luma(sample.image or b"", min_side=320)
            features.append(local_features(luma.plane, size=(luma.width, luma.height)))
        except ImageError:
            continue
    if len(features) < 2:
        return None
    image = (time.perf_counter() - began) / len(features)
    began = time.perf_counter()
    for left, right in pairwise(features):
        verify_pair(left, right)
    return Looking(image, (time.perf_counter() - began) / (len(features) - 1))
