"""Edges of a signal read back, and scores of given pairs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from dedupkit.signals.matches import Matches, Origin
from dedupkit.store import read_columns

if TYPE_CHECKING:
    from dedupkit.signals.columns import Scanned
    from dedupkit.signals.signal import Signal

__all__ = ["pair_scores", "read_matches"]


def read_matches(
    scanned: Scanned, name: str, first: NDArray[np.int32], origin: Origin = "image", more: Path | None = None
) -> Matches:
    """Labels and the edges in ``edges/{name}``, as deciding takes them; and those of another file, if it is there."""
    table = read_columns(scanned.folder.edges(name))
    if more is not None and more.exists():
        table = pa.concat_tables([table.select(["a", "b", "score"]), read_columns(more)])
    a, b, score = (table[column].to_numpy() for column in ("a", "b", "score"))
    return Matches(first, a.astype(np.int32), b.astype(np.int32), score.astype(np.float32), origin)


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
