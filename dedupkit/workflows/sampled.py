"""The beginnings of shards, and what is measured on them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice, pairwise
from pathlib import Path
from typing import Any, NamedTuple

from dedupkit.errors import DedupkitError
from dedupkit.sources import Sample, Shard
from dedupkit.sources.around import AroundShard
from dedupkit.sources.sample import Extra, PassedOver
from dedupkit.store import read_columns

__all__ = ["HEADERS", "Beginning", "Looking", "caption_words", "measure_looking", "vector_length"]

HEADERS = 1024
"""Bytes of a tar around a member: its header, and padding."""

_IMAGES = 300
_LOOKED_AT = 12


@dataclass(slots=True)
class Beginning(AroundShard):
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

    def read(self, *, extra: Extra = False, passed_over: PassedOver | None = None) -> Iterator[Sample]:
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


def caption_words(samples: str) -> list[int]:
    """Numbers of words of the captions in a file of samples."""
    captions = read_columns(Path(samples), ["caption"])["caption"].to_pylist()
    return [len(caption.split()) for caption in captions if caption]


def vector_length(vectors: str) -> int:
    """Length of the vectors in a file of them."""
    import numpy as np

    return int(np.load(vectors, mmap_mode="r").shape[1])


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
