"""The groups of training images that generated images copy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from dedupkit.memorization.audited import Left
from dedupkit.memorization.neighbours import Neighbours
from dedupkit.signals.pdq import MIN_PDQ_QUALITY
from dedupkit.store import read_columns

__all__ = ["KS", "CopiedGroups", "group_facts"]

KS = (1, 10, 100)
"""Numbers of copies for which eidetic memorization is counted."""


class CopiedGroups:
    """Groups of training images, or single images, each once.

    Images that the run blocks are counted apart, because it has no groups of them.

    Args:
        near: The training set.
        samples: Samples that are copied; several may lie in one group.
    """

    def __init__(self, near: Neighbours, samples: NDArray[np.int64]) -> None:
        self._near = near
        removed, kept = near.removed_for_earlier
        stands = np.arange(near.samples)
        stands[removed] = kept
        samples = np.unique(stands[samples])
        blocked = pc.equal(near.column("verdict").take(pa.array(samples)), "blocked").to_numpy()
        self._blocked = samples[blocked]
        units, size = self._units(samples[~blocked])
        self._found, first = np.unique(units, return_index=True)
        more = self._units(kept)[0]  # duplicates in updates, which the run of the group does not count
        counted = np.isin(more, self._found)
        self._more = removed[counted]
        at = np.searchsorted(self._found, more[counted])
        self._sizes = size[first] + np.bincount(at, minlength=len(self._found))
        self._facts = group_facts(near, self._found)

    def _units(self, samples: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The group of each sample, or -1 - sample where it has no duplicate in its run, and its size."""
        chosen = pa.array(samples)
        group = self._near.column("group").take(chosen).fill_null(-1).to_numpy()
        size = self._near.column("group_size").take(chosen).fill_null(1).to_numpy()
        return np.where((group < 0) | (size < 2), -1 - samples, group), np.maximum(size, 1)

    def __len__(self) -> int:
        return len(self._sizes)

    def eidetic(self) -> dict[str, int]:
        """For each k the number of those that have at most k training samples."""
        return {str(k): int((self._sizes <= k).sum()) for k in KS}

    def left(self) -> Left:
        """What the rule of the run leaves of them."""
        kept = np.array([self._facts[unit]["kept"] if unit >= 0 else 1 for unit in self._found.tolist()], np.int64)
        several = self._sizes > 1
        one, more = int((several & (kept <= 1)).sum()), int((several & (kept > 1)).sum())
        return Left(int((~several).sum()), one, more, len(self._blocked))

    def hashes(self) -> list[str]:
        """Hashes of all their samples, and of those that are blocked, in hex, each once.

        The PDQ hash, or the SHA-256 of a sample that is too flat for a PDQ hash to be compared.
        """
        chosen = np.isin(self._near.column("group").fill_null(-1).to_numpy(), self._found[self._found >= 0])
        chosen[np.concatenate([-1 - self._found[self._found < 0], self._blocked, self._more])] = True
        rows = self._near.stored(["sha256", "pdq", "pdq_quality"]).filter(pa.array(chosen))
        hashed = pc.fill_null(pc.greater_equal(rows["pdq_quality"], MIN_PDQ_QUALITY), False)
        parts = (rows["pdq"].filter(hashed), rows["sha256"].filter(pc.invert(hashed)))
        return sorted({_hex(code) for part in parts for code in part.drop_null().to_pylist()})


def group_facts(near: Neighbours, groups: NDArray[np.int64]) -> dict[int, dict[str, Any]]:
    """Size, kept samples and captions of some groups, by their number among those of all runs."""
    columns = ["group", "size", "kept", "captions", "caption", "caption_count"]
    found: dict[int, dict[str, Any]] = {}
    for part in near.parts:
        here = np.unique(groups[(groups >= part.start) & (groups < part.start + part.samples)]) - part.start
        if len(here):
            table = read_columns(part.folder.groups, columns)
            chosen = table.filter(pc.is_in(table["group"], pa.array(here, table["group"].type)))
            found |= {row["group"] + part.start: row for row in chosen.to_pylist()}
    return found


def _hex(code: bytes | str) -> str:
    return code.hex() if isinstance(code, bytes) else code
