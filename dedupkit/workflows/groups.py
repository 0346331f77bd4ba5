"""The duplicate groups of a run, read as they are asked for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, overload

import pyarrow as pa

from dedupkit.manifest.rows import Rows
from dedupkit.manifest.shown import clip

__all__ = ["Group", "Groups"]

_SAMPLES_AT_ONCE = 10_000  # rows held while groups are walked through


@dataclass(frozen=True, slots=True, repr=False)
class Group:
    """A duplicate group.

    Attributes:
        group: Its id, the smallest sample in it.
        rows: Rows of the manifest of its samples, kept ones first.
        folder: Folder of the run.
        keeper: What keeps a temporary run folder alive.
    """

    group: int
    rows: list[dict[str, Any]]
    folder: Path
    keeper: object = field(default=None, compare=False)

    def __len__(self) -> int:
        return len(self.rows)

    def show(self, most: int = 12) -> Any:
        """Thumbnails with verdicts, as an object that a notebook displays.

        Args:
            most: Number of samples to show at most, kept ones first.
        """
        from dedupkit.report.notebook import GroupView

        return GroupView(self.folder, self.rows[:most], len(self.rows), self.keeper)

    def __repr__(self) -> str:
        kept = sum(row["verdict"] == "keep" for row in self.rows)
        caption = clip(self.rows[0]["caption"]) if self.rows else None
        return f"<group {self.group}: {len(self):,} samples, {kept:,} kept" + (f"; {caption!r}>" if caption else ">")

    def _repr_html_(self) -> str:
        return str(self.show()._repr_html_())


class Groups(Sequence[Group]):
    """The groups of a run, the largest first; rows are read when a group is asked for.

    A slice, or a loop over all groups, reads the rows of many groups at once.

    Args:
        folder: Folder of the run.
        table: The groups, as in ``groups.parquet``.
        rows: The manifest.
        keeper: What keeps a temporary run folder alive.

    Attributes:
        table: The groups as a table, the largest first.
    """

    def __init__(self, folder: Path, table: pa.Table, rows: Rows, keeper: object = None) -> None:
        self._folder, self._rows, self._keeper = folder, rows, keeper
        self.table = table.sort_by([("size", "descending"), ("group", "ascending")])

    def __len__(self) -> int:
        return int(self.table.num_rows)

    def __repr__(self) -> str:
        largest = f", the largest of {self.table['size'][0].as_py():,} samples" if len(self) else ""
        return f"<{len(self):,} groups{largest}>"

    @overload
    def __getitem__(self, index: int) -> Group: ...
    @overload
    def __getitem__(self, index: slice) -> list[Group]: ...
    def __getitem__(self, index: int | slice) -> Group | list[Group]:
        if isinstance(index, slice):
            return list(self._read(range(*index.indices(len(self)))))
        if not -len(self) <= index < len(self):
            raise IndexError(f"group {index} of {len(self)}")
        return next(self._read([index % len(self)]))

    def __iter__(self) -> Iterator[Group]:
        return self._read(range(len(self)))

    def _read(self, numbers: Sequence[int]) -> Iterator[Group]:
        batch: list[int] = []
        held = 0
        for number in numbers:
            batch.append(number)
            held += self.table["size"][number].as_py()
            if held >= _SAMPLES_AT_ONCE:
                yield from self._batch(batch)
                batch, held = [], 0
        yield from self._batch(batch)

    def _batch(self, numbers: Sequence[int]) -> Iterator[Group]:
        if not numbers:
            return
        members = {number: self.table["samples"][number].as_py() for number in numbers}
        found = self._rows.rows(sample for samples in members.values() for sample in samples)
        for number, samples in members.items():
            rows = sorted((found[sample] for sample in samples), key=lambda row: row["verdict"] != "keep")
            yield Group(self.table["group"][number].as_py(), rows, self._folder, self._keeper)
