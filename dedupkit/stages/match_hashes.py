"""The match stage: scored pairs of distinct hashes, written as edges between the first samples that have them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dedupkit.neighbors.hamming.crops import iter_crop_pairs
from dedupkit.neighbors.hamming.dihedral import iter_dihedral_pairs
from dedupkit.neighbors.hamming.flat import FLAT_BELOW, flat_dihedral_pairs
from dedupkit.neighbors.hamming.join import Pairs, iter_hamming_pairs
from dedupkit.runfolder.folder import RunFolder
from dedupkit.signals.columns import hash_column, write_edges

__all__ = ["match_hashes"]


def match_hashes(out: str, shards: int, signal: str, radius: int, workers: int, what: str) -> dict[str, Any]:
    """Join the distinct hashes of one signal; a task of the engine.

    Args:
        out: the run folder.
        shards: number of shards scanned.
        signal: ``pdq`` (in any of the eight orientations), ``crops`` (likewise) or a 64-bit hash.
        radius: the largest distance that is kept, in bits.
        workers: threads of the join.
        what: for messages about this task.

    Returns:
        ``distinct`` hashes joined, ``edges`` written, and the ``radius``.
    """
    del what
    folder = RunFolder(Path(out))
    first, distinct = hash_column(folder, shards, signal)
    leaders = np.flatnonzero(first == np.arange(len(first)))
    joins: dict[str, Callable[..., Iterator[Pairs]]] = {"pdq": iter_dihedral_pairs, "crops": iter_crop_pairs}
    join = joins.get(signal, iter_hamming_pairs)

    def blocks() -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]]:
        small = signal == "pdq" and len(distinct) < FLAT_BELOW
        found = [flat_dihedral_pairs(distinct, radius)] if small else join(distinct, radius, workers=workers)
        for pairs in found:
            yield leaders[pairs.a], leaders[pairs.b], pairs.distance.astype(np.float32)

    edges = write_edges(folder.edges(signal), blocks())
    return {"distinct": len(distinct), "edges": edges, "bound": radius}
