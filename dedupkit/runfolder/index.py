"""From a sample's row number in a run to its shard."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from dedupkit.runfolder.layout import Layout
from dedupkit.store import count_rows

__all__ = ["RowIndex"]


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
        rows = [count_rows(folder.samples(shard)) for shard in range(shards)]
        self.starts: NDArray[np.int64] = np.concatenate([[0], np.cumsum(rows)]).astype(np.int64)

    def by_shard(self, samples: Iterable[int]) -> Iterator[tuple[int, NDArray[np.int64]]]:
        """The samples grouped by shard: the shard's number, and those of it, ascending and each once."""
        wanted = np.unique(np.fromiter(samples, np.int64))
        numbers = np.searchsorted(self.starts, wanted, side="right") - 1
        return ((number, wanted[numbers == number]) for number in np.unique(numbers).tolist())
