"""Edges of a signal read back, and scores of given pairs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from dedupkit.signals.matches import Block, Streamed
from dedupkit.store import count_rows, iter_columns

if TYPE_CHECKING:
    from dedupkit.signals.columns import Scanned
    from dedupkit.signals.signal import Signal

__all__ = ["iter_edges", "pair_scores", "stream_matches"]


def stream_matches(signal: Signal, scanned: Scanned) -> Streamed:
    """What a signal says about all samples, as it lies in the run folder."""
    files = signal.edge_files(scanned)
    return Streamed(
        len(scanned),
        sum(map(count_rows, files)),
        lambda: signal.labels(scanned),
        lambda: (block for file in files for block in iter_edges(file)),
        signal.origin,
    )


def iter_edges(path: Path) -> Iterator[Block]:
    """The scored pairs of one file, block by block: a and b as int32, the score as float32.

    Raises:
        DamagedError: The file is missing or damaged.
    """
    for table in iter_columns(path, ["a", "b", "score"]):
        a, b, score = (table[name].to_numpy() for name in ("a", "b", "score"))
        yield a.astype(np.int32), b.astype(np.int32), score.astype(np.float32)


def pair_scores(signal: Signal, scanned: Scanned, a: NDArray[np.int64], b: NDArray[np.int64]) -> NDArray[np.float32]:
    """The scores of given pairs of samples.

    Args:
        signal: Any signal with a fingerprint of each sample.
        scanned: All samples.
        a: (m,) int64 samples.
        b: (m,) int64 samples.

    Returns:
        (m,) float32: the distance or similarity; for identities 1 where they are equal, else 0. NaN where one of the
        two has no fingerprint.
    """
    samples, place = np.unique(np.concatenate([a, b]), return_inverse=True)
    present, rows = signal.rows(scanned, samples)
    row = np.cumsum(present) - 1
    left, right = place[: len(a)], place[len(a) :]
    known = present[left] & present[right]
    score = np.full(len(a), np.nan, np.float32)
    score[known] = signal.compare(rows[row[left[known]]], rows[row[right[known]]])
    return score
