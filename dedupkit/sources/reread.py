"""The original images of a run, read again: by calibration, which plants copies of them and shows pairs."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from dedupkit.errors import DedupkitError
from dedupkit.runfolder.folder import RunFolder
from dedupkit.sources import Shard
from dedupkit.sources.again import fetcher, find_again
from dedupkit.store import read_columns

__all__ = ["Originals", "Place", "read_images"]

Place = dict[str, Any]
"""Where an image lies: ``sample``, ``shard`` (its number), ``key``, ``offset``, ``nbytes``, ``sha256``, ``format``."""

_COLUMNS = ("key", "offset", "nbytes", "sha256", "format")


class Originals:
    """Where the images of a run are now.

    Args:
        folder: of the run.

    Attributes:
        shards: in the run's order; None for one that is gone.
        starts: the first sample of each shard, and the number of samples; (shards + 1,) int64.
    """

    def __init__(self, folder: RunFolder) -> None:
        config = folder.read_config()
        self._folder = folder
        self._names: list[str] = config["shards"]
        self.shards: list[Shard | None] = find_again(config["sources"], self._names)
        rows = [pq.read_metadata(folder.samples(shard)).num_rows for shard in range(len(self._names))]
        self.starts: NDArray[np.int64] = np.concatenate([[0], np.cumsum(rows)]).astype(np.int64)

    def places(self, samples: Iterable[int]) -> list[Place]:
        """Where some samples lie, in ascending order.

        Raises:
            DedupkitError: a shard that holds one of them is not where it was.
        """
        wanted = np.unique(np.fromiter(samples, np.int64))
        numbers = np.searchsorted(self.starts, wanted, side="right") - 1
        found: list[Place] = []
        for number in np.unique(numbers).tolist():
            self.shard(number)
            table = read_columns(self._folder.samples(number), _COLUMNS)
            here = wanted[numbers == number]
            rows = table.take(pa.array(here - self.starts[number])).to_pylist()
            found += [{**row, "sample": s, "shard": number} for s, row in zip(here.tolist(), rows, strict=True)]
        return found

    def shard(self, number: int) -> Shard:
        """A shard of the run.

        Raises:
            DedupkitError: it is gone.
        """
        shard = self.shards[number]
        if shard is None:
            raise DedupkitError(
                f"{self._names[number]} is not where it was when the run read it; "
                "calibration needs the original images: bring them back, or run again where they are now"
            )
        return shard

    def needed(self, places: Sequence[Place]) -> dict[int, Shard]:
        """The shards of some places, by number: what a task needs to read them."""
        return {number: self.shard(number) for number in sorted({place["shard"] for place in places})}

    def read(self, sample: int) -> bytes:
        """The stored bytes of one image; errors as :func:`read_images`."""
        places = self.places([sample])
        return next(data for _, data in read_images(self.needed(places), places))


def read_images(shards: dict[int, Shard], places: Sequence[Place]) -> Iterator[tuple[Place, bytes]]:
    """Read some images again, and see that they are those that the run read.

    Args:
        shards: by number, those that the places name.
        places: where the images lie.

    Yields:
        Each place with the stored bytes, shard by shard.

    Raises:
        DedupkitError: an image is not the one that was scanned.
        OSError: it cannot be read.
    """
    by_shard: dict[int, list[Place]] = defaultdict(list)
    for place in places:
        by_shard[place["shard"]].append(place)
    for number, here in by_shard.items():
        fetch = fetcher(shards[number], here)
        for place in here:
            data = fetch(place)
            if hashlib.sha256(data).digest() != place["sha256"]:
                raise DedupkitError(
                    f"{shards[number].source} has changed since the run (sample {place['key']}); "
                    "run again, so that it is scanned again"
                )
            yield place, data
