"""What becomes of URL lists: the manifest of their rows, and the summary."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from dedupkit.clustering.classes import group_sizes
from dedupkit.store import atomic_path

__all__ = ["MANIFEST_SCHEMA", "ListSummary", "Verdicts", "write_manifest"]

MANIFEST_SCHEMA = pa.schema(
    [
        ("row", pa.int64()),
        ("file", pa.string()),
        ("file_row", pa.int64()),
        ("verdict", pa.string()),
        ("reason", pa.string()),
        ("kept_row", pa.int64()),
        ("kept_file", pa.string()),
        ("kept_file_row", pa.int64()),
        ("group", pa.int64()),
        ("group_size", pa.int32()),
    ]
)
"""One row for each row of the lists, in their order; ``kept_…`` name the kept row that a removed one duplicates."""

_ROWS = 1 << 20


@dataclass(frozen=True, slots=True)
class Verdicts:
    """Verdicts of all rows.

    Attributes:
        witness: (n,) int32, the kept row that a removed one duplicates, else -1.
        kind: (n,) int8, number of the alternative of the rule that holds between the two, else -1.
        group: (n,) int32, the smallest row of the group.
        unreadable: (first row, end, reason) of stretches that could not be read.
    """

    witness: NDArray[np.int32]
    kind: NDArray[np.int8]
    group: NDArray[np.int32]
    unreadable: list[tuple[int, int, str]]

    def kept(self) -> NDArray[np.bool_]:
        """(n,) which rows are kept."""
        kept: NDArray[np.bool_] = self.witness < 0
        for begin, end, _ in self.unreadable:
            kept[begin:end] = False
        return kept


@dataclass(frozen=True, slots=True)
class ListSummary:
    """Counts of a de-duplication of URL lists.

    Attributes:
        files: number of lists.
        rows: number of rows.
        keep: rows kept.
        remove: rows removed.
        unreadable: rows that could not be read.
        odd_urls: URLs that are none by the standard, compared as they are.
        unique: Number of distinct values by identity (``url``, ``hash``, ``caption``).
        present: Number of rows with a value, by identity.
        reasons: removed rows by alternative of the rule.
        groups: number of groups of two rows or more.
        largest_group: rows of the largest.
        rule: rule in force.
        keep_policy: keep policy in force.
        steps: how URLs and captions were normalised.
        odd_hashes: By column compared by bits that differ, how many distinct values are no hashes of 64 bits.
    """

    files: int
    rows: int
    keep: int
    remove: int
    unreadable: int
    odd_urls: int
    unique: dict[str, int]
    present: dict[str, int]
    reasons: dict[str, int]
    groups: int
    largest_group: int
    rule: str
    keep_policy: str
    steps: dict[str, str] = field(default_factory=dict)
    odd_hashes: dict[str, int] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """A JSON object with these fields."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> ListSummary:
        """Read what :meth:`to_json` gives."""
        return cls(**value)

    def rows_of_table(self) -> list[tuple[str, str]]:
        """The summary as label and text."""
        names = {"url": "unique URLs", "hash": "unique published hashes", "caption": "unique captions"}
        shown = [("rows read", f"{self.rows:,} in {self.files:,} file{'s' * (self.files != 1)}")]
        shown += [
            (
                label,
                f"{self.unique[name]:,}  ({_share(self.unique[name], self.present[name])} of {self.present[name]:,})",
            )
            for name, label in names.items()
            if self.present.get(name)
        ]
        shown += [("kept", f"{self.keep:,}  ({_share(self.keep, self.rows)})")]
        shown += [("removed as duplicates", f"{self.remove:,}  ({_share(self.remove, self.rows)})")]
        shown += [(f"  because of {reason}", f"{count:,}") for reason, count in self.reasons.items()]
        shown += [("unreadable", f"{self.unreadable:,}")] if self.unreadable else []
        shown += [("not URLs by the standard", f"{self.odd_urls:,}, compared as they are")] if self.odd_urls else []
        shown += [
            (f"no 64-bit hashes in {name}", f"{count:,} distinct values, near none")
            for name, count in self.odd_hashes.items()
        ]
        shown += [("duplicate groups", f"{self.groups:,}, the largest of {self.largest_group:,}"), ("rule", self.rule)]
        return shown


def _share(part: int, whole: int) -> str:
    return f"{part / max(1, whole):.1%}"


def write_manifest(
    path: Path, names: Sequence[str], ends: Sequence[int], verdicts: Verdicts, reasons: Sequence[str]
) -> None:
    """Write the manifest, a million rows at a time.

    Args:
        path: the Parquet file.
        names: Names of the lists.
        ends: Row after the last one of each list.
        verdicts: Verdicts of all rows.
        reasons: what to call each alternative of the rule.
    """
    import pyarrow.parquet as pq

    starts = np.concatenate([[0], ends]).astype(np.int64)
    rows = int(starts[-1])
    sizes = group_sizes(verdicts.group)
    broken = np.zeros(rows, bool)
    for begin, end, _ in verdicts.unreadable:
        broken[begin:end] = True
    files, called = pa.array(list(names), pa.string()), pa.array(list(reasons), pa.string())
    with atomic_path(path) as temporary, pq.ParquetWriter(temporary, MANIFEST_SCHEMA, compression="zstd") as writer:
        for begin in range(0, rows, _ROWS):
            here = np.arange(begin, min(rows, begin + _ROWS))
            witness = verdicts.witness[here].astype(np.int64)
            none = witness < 0
            file, kept_file = (np.searchsorted(starts, row, side="right") - 1 for row in (here, np.maximum(witness, 0)))
            verdict = np.where(broken[here], "unreadable", np.where(none, "keep", "remove"))
            reason = called.take(pa.array(np.maximum(verdicts.kind[here], 0), mask=none))
            if broken[here].any():
                named = reason.to_pylist()
                for first, end, problem in verdicts.unreadable:
                    low, high = max(0, first - begin), min(len(here), end - begin)
                    if low < high:
                        named[low:high] = [problem] * (high - low)
                reason = pa.array(named, pa.string())
            writer.write_table(
                pa.table(
                    [
                        here,
                        files.take(pa.array(file)),
                        here - starts[file],
                        pa.array(verdict, pa.string()),
                        reason,
                        pa.array(witness, mask=none),
                        files.take(pa.array(kept_file, mask=none)),
                        pa.array(witness - starts[kept_file], mask=none),
                        verdicts.group[here].astype(np.int64),
                        sizes[verdicts.group[here]],
                    ],
                    schema=MANIFEST_SCHEMA,
                )
            )
