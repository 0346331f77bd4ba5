"""From a sample's row number in a run to its shard, its key and its place there."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from dedupkit.runfolder.layout import Layout
from dedupkit.store import count_rows, read_columns

__all__ = ["Location", "RowIndex"]


class Location(NamedTuple):
    """Where a sample lies.

    Attributes:
        shard: Number of its shard.
        key: Its name in the shard.
        offset: Its position in the shard, as the reader gave it; None where the reader gives none.
    """

    shard: int
    key: str
    offset: int | None


class RowIndex:
    """The rows of a run, shard by shard; only their numbers are held in memory.

    Args:
        folder: A run folder whose shards are scanned.
        shards: Number of its shards.

    Raises:
        DamagedError: Samples of a shard are missing or damaged.

    Attributes:
        starts: The first sample of each shard, and the number of samples; (shards + 1,) int64.
    """

    def __init__(self, folder: Layout, shards: int) -> None:
        self._folder = folder
        rows = [count_rows(folder.samples(shard)) for shard in range(shards)]
        self.starts: NDArray[np.int64] = np.concatenate([[0], np.cumsum(rows)]).astype(np.int64)

    def __len__(self) -> int:
        return int(self.starts[-1])

    def shards_of(self, samples: NDArray[np.int64]) -> NDArray[np.int64]:
        """The number of each sample's shard, (k,) int64."""
        found: NDArray[np.int64] = np.searchsorted(self.starts, samples, side="right") - 1
        return found

    def by_shard(self, samples: Iterable[int]) -> Iterator[tuple[int, NDArray[np.int64]]]:
        """The samples grouped by shard: the shard's number, and those of it, ascending and each once."""
        wanted = np.unique(np.fromiter(samples, np.int64))
        numbers = self.shards_of(wanted)
        return ((number, wanted[numbers == number]) for number in np.unique(numbers).tolist())

    def locate(self, samples: Iterable[int]) -> dict[int, Location]:
        """Where samples lie, by their row number; one shard is read at a time.

        Raises:
            IndexError: The run has no such sample.
            DamagedError: Samples of a shard are missing or damaged.
        """
        found: dict[int, Location] = {}
        for number, here in self.by_shard(samples):
            if here[0] < 0 or here[-1] >= len(self):
                raise IndexError(f"sample {int(here[-1])} of {len(self)} in {self._folder.path}")
            table = read_columns(self._folder.samples(number), ["key", "offset"])
            rows = table.take(pa.array(here - self.starts[number]))
            pairs = zip(rows["key"].to_pylist(), rows["offset"].to_pylist(), strict=True)
            found |= {sample: Location(number, *pair) for sample, pair in zip(here.tolist(), pairs, strict=True)}
        return found
