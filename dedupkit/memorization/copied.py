"""The groups of training images that generated images copy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from dedupkit.memorization.audited import Left
from dedupkit.memorization.neighbours import Neighbours
from dedupkit.runfolder import RunFolder
from dedupkit.signals.pdq import MIN_PDQ_QUALITY
from dedupkit.store import read_columns

__all__ = ["KS", "CopiedGroups", "group_facts"]

KS = (1, 10, 100)
"""Numbers of copies for which eidetic memorization is counted."""


class CopiedGroups:
    """Groups of training images, or single images, each once.

    Args:
        near: The training set.
        samples: Samples that are copied; several may lie in one group.
    """

    def __init__(self, near: Neighbours, samples: NDArray[np.int64]) -> None:
        samples = np.unique(samples)
        chosen = pa.array(samples)
        group = near.column("group").take(chosen).fill_null(-1).to_numpy()
        size = near.column("group_size").take(chosen).fill_null(1).to_numpy()
        alone = (group < 0) | (size < 2)
        self._singles = samples[alone]
        self._groups, first = np.unique(group[~alone], return_index=True)
        self._sizes = np.concatenate([size[~alone][first], np.ones(len(self._singles), np.int64)])
        self._facts = group_facts(near.folder, self._groups)

    def __len__(self) -> int:
        return len(self._sizes)

    def eidetic(self) -> dict[str, int]:
        """For each k the number of those that have at most k training samples."""
        return {str(k): int((self._sizes <= k).sum()) for k in KS}

    def left(self) -> Left:
        """What the rule of the run leaves of them."""
        kept = np.array([self._facts[group]["kept"] for group in self._groups.tolist()], np.int64)
        return Left(len(self._singles), int((kept <= 1).sum()), int((kept > 1).sum()))

    def hashes(self, folder: RunFolder) -> list[str]:
        """Hashes of all their samples in hex, each once.

        The PDQ hash, or the SHA-256 of a sample that is too flat for a PDQ hash to be compared.
        """
        table = read_columns(folder.manifest, ["sample", "group", "sha256", "pdq", "pdq_quality"])
        group = table["group"].fill_null(-1).to_numpy()
        chosen = np.isin(group, self._groups) | np.isin(table["sample"].to_numpy(), self._singles)
        rows = table.filter(pa.array(chosen))
        hashed = pc.fill_null(pc.greater_equal(rows["pdq_quality"], MIN_PDQ_QUALITY), False)
        parts = (rows["pdq"].filter(hashed), rows["sha256"].filter(pc.invert(hashed)))
        return sorted({_hex(code) for part in parts for code in part.drop_null().to_pylist()})


def group_facts(folder: RunFolder, groups: NDArray[np.int64]) -> dict[int, dict[str, Any]]:
    """Size, kept samples and captions of some groups, by number."""
    columns = ["group", "size", "kept", "captions", "caption", "caption_count"]
    table = read_columns(folder.groups, columns)
    chosen = table.filter(pc.is_in(table["group"], pa.array(np.unique(groups), table["group"].type)))
    return {row["group"]: row for row in chosen.to_pylist()}


def _hex(code: bytes | str) -> str:
    return code.hex() if isinstance(code, bytes) else code
