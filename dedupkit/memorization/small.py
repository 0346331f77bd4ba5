"""Small images, such as CIFAR-10's, by the adaptive distance of arXiv 2301.13188, section 5."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray
from PIL import Image

from dedupkit.embedding.pixels import decode_rgb
from dedupkit.errors import DedupkitError
from dedupkit.images import ImageError
from dedupkit.memorization.audited import Share, share_of
from dedupkit.memorization.extraction import adaptive_distance
from dedupkit.memorization.nearest import Nearest
from dedupkit.memorization.neighbours import Neighbours
from dedupkit.sources.reread import Images

__all__ = ["MOST_SIDE", "Small", "SmallTraining"]

MOST_SIDE = 64
"""Largest side of a small image, in pixels."""

_MOST_BYTES = 4 << 30


class Small(NamedTuple):
    """How near small images lie to training images.

    Attributes:
        distance: (n,) float32, the adaptive distance; NaN where an image could not be read.
        sample: (n,) int64, the training sample; -1 where there is none.
    """

    distance: NDArray[np.float32]
    sample: NDArray[np.int64]

    @property
    def extracted(self) -> Share:
        """The share of those that could be read that the paper takes for extracted."""
        known = self.distance[~np.isnan(self.distance)]
        return share_of(int((known <= 1).sum()), len(known))


@dataclass(frozen=True, slots=True)
class SmallTraining:
    """The kept training images at one size: copies count once, or they would hide extraction.

    Attributes:
        samples: (m,) int64, the samples.
        images: (m, h, w, 3) uint8.
        unreadable: Number of kept training images that cannot be read again, and are not among them.
    """

    samples: NDArray[np.int64]
    images: NDArray[np.uint8]
    unreadable: int = 0

    @classmethod
    def read(cls, near: Neighbours, originals: Images, size: tuple[int, int]) -> SmallTraining:
        """Read the kept training images.

        Args:
            near: The training set.
            originals: Its images.
            size: (width, height) at which images are compared.

        Raises:
            DedupkitError: The images are not small, are too many, or fewer than two can be read.
        """
        if max(size) > MOST_SIDE:
            raise DedupkitError(
                f"the distance for small images is for sides of up to {MOST_SIDE} pixels, the generated ones have "
                f"{size[0]}x{size[1]}; leave --adaptive away"
            )
        kept = np.flatnonzero(pc.equal(near.column("verdict"), "keep").to_numpy())
        if len(kept) * size[0] * size[1] * 12 > _MOST_BYTES:
            raise DedupkitError(
                f"{len(kept):,} training images of {size[0]}x{size[1]} take more than {_MOST_BYTES >> 30} GiB to "
                "compare; leave --adaptive away"
            )
        found = dict(_at_size(((place.sample, data) for place, data in originals.read(kept, lambda *_: None)), size))
        if len(found) < 2:
            raise DedupkitError("fewer than two training images can be read again, so none can be compared")
        return cls(np.array(list(found), np.int64), np.stack(list(found.values())), len(kept) - len(found))

    def compare(self, images: Nearest, originals: Images) -> Small:
        """The adaptive distance of some images to these."""
        height, width = self.images.shape[1:3]
        rows = np.flatnonzero(images.readable)
        read = ((place.sample, data) for place, data in originals.read(rows, lambda *_: None))
        pixels = np.empty((len(rows), height, width, 3), np.uint8)
        found: list[int] = []
        for row, image in _at_size(read, (width, height)):
            pixels[len(found)] = image
            found.append(row)
        distance = np.full(len(images.readable), np.nan, np.float32)
        sample = np.full(len(images.readable), -1, np.int64)
        if found:
            at, value = adaptive_distance(pixels[: len(found)], self.images)
            distance[found], sample[found] = value, self.samples[at]
        return Small(distance, sample)


def _at_size(files: Iterable[tuple[int, bytes]], size: tuple[int, int]) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    for sample, data in files:
        try:
            image = decode_rgb(data, min(size))
        except ImageError:
            continue
        yield sample, np.asarray(image if image.size == size else image.resize(size, Image.Resampling.BOX))
