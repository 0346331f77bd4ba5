"""Vectors with equal rows collapsed, so that an image with a thousand copies is one vector in the search."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from dedupkit.neighbors.cosine.rows import Rows

__all__ = ["Distinct", "check_vectors", "collapse"]

SCAN_BYTES = 2**24
SHORTEST, LONGEST = 1e-37, 1e37  # lengths whose inverse float32 can hold


class Distinct(NamedTuple):
    """A set of vectors with equal rows collapsed.

    Attributes:
        rows: the distinct vectors, each the first of its kind.
        starts: int64 (u + 1,), where in `members` the rows equal to each begin.
        members: int64, all usable rows by distinct vector.
        skipped: int64, the others.
    """

    rows: Rows
    starts: NDArray[np.int64]
    members: NDArray[np.int64]
    skipped: NDArray[np.int64]

    @property
    def sizes(self) -> NDArray[np.int64]:
        """How often each distinct vector occurs, int64 (u,)."""
        return np.diff(self.starts)


def check_vectors(array: Any, name: str) -> NDArray[Any]:
    """Return the array, which stays on disk if it is a memmap; ValueError unless it is float16 or float32 (n, d)."""
    checked: NDArray[Any] = np.asanyarray(array)
    if checked.ndim != 2 or checked.shape[1] == 0 or checked.dtype not in (np.float16, np.float32):
        raise ValueError(f"{name} must be float16 or float32 of shape (n, d), not {checked.dtype} {checked.shape}")
    return checked


def collapse(array: NDArray[Any]) -> Distinct:
    """Measure the rows and find equal ones: by a 64-bit multilinear hash of their bytes, then by comparing."""
    from dedupkit.neighbors.cosine.rows import Rows

    rows, dims = array.shape
    words = -(-dims * array.itemsize // 8)
    factors = np.random.default_rng(0).integers(0, 2**63, words, dtype=np.uint64) * np.uint64(2) + np.uint64(1)
    length, hashes = np.empty(rows, np.float64), np.empty(rows, np.uint64)
    step = max(1, SCAN_BYTES // (4 * dims))
    for at in range(0, rows, step):
        block = np.ascontiguousarray(array[at : at + step])
        values = block.astype(np.float32)
        with np.errstate(over="ignore", invalid="ignore"):
            square = np.einsum("ij,ij->i", values, values)
            odd = ~((square > 1e-30) & (square < np.inf))  # too small or large to be squared as float32
            length[at : at + step] = np.sqrt(square)
            length[at : at + step][odd] = np.linalg.norm(values[odd].astype(np.float64), axis=1)
        padded = np.zeros((len(block), words * 8), np.uint8)
        padded[:, : dims * array.itemsize] = block.view(np.uint8)
        hashes[at : at + step] = padded.view(np.uint64) @ factors
    usable = (length > SHORTEST) & (length < LONGEST)
    ids = np.flatnonzero(usable)
    order = ids[np.argsort(hashes[ids], kind="stable")]
    fresh = np.ones(len(order), bool)
    fresh[1:] = hashes[order[1:]] != hashes[order[:-1]]
    first = order[np.maximum.accumulate(np.where(fresh, np.arange(len(order)), 0))]
    for at in range(0, len(order), step):  # rows whose hashes collide stay apart
        part = np.arange(at, min(len(order), at + step))
        part = part[~fresh[part]]
        first[part] = np.where((array[order[part]] == array[first[part]]).all(axis=1), first[part], order[part])
    by_first = np.lexsort((order, first))
    distinct, starts = np.unique(first[by_first], return_index=True)
    scale = (1 / length[distinct]).astype(np.float32)
    return Distinct(
        Rows(array, distinct, scale), np.append(starts, len(order)), order[by_first], np.flatnonzero(~usable)
    )
