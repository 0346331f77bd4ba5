"""URL lists as files, read batch by batch and written again without the rows that go."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from dedupkit.errors import DedupkitError
from dedupkit.metadata.columns import Batch
from dedupkit.metadata.parquet_list import ParquetList
from dedupkit.metadata.text_list import TextList

__all__ = ["UrlList", "open_list"]

_SUFFIXES = {".parquet": "parquet", ".tsv": "tsv", ".csv": "csv", ".txt": "tsv"}


class UrlList(Protocol):
    """A file with one URL a row."""

    @property
    def path(self) -> Path:
        """The file."""

    @property
    def rows(self) -> int:
        """The number of rows, or an estimate."""

    @property
    def columns(self) -> dict[str, str]:
        """By role the name of the column that has it."""

    @property
    def names(self) -> list[str]:
        """The names of all columns."""

    def batches(self, roles: Sequence[str]) -> Iterator[Batch]:
        """The rows in order, with the columns of some roles."""

    def write(self, kept: NDArray[np.bool_], to: Path) -> None:
        """Write the rows that are kept, in their order and with all columns."""


def open_list(path: str | Path, meta: Sequence[str] = ()) -> UrlList:
    """Open a URL list by its suffix.

    Args:
        path: The file.
        meta: Columns of its own that the keep policy names, as far as it has them.

    Raises:
        DedupkitError: no such file, another suffix, a broken file, or no column of URLs; the message names the columns.
    """
    path = Path(path)
    kind = _SUFFIXES.get(path.suffix.lower())
    if not path.is_file():
        raise DedupkitError(f"no such file: {path}")
    if kind is None:
        raise DedupkitError(f"cannot tell the format of {path}; its name must end in {', '.join(_SUFFIXES)}")
    return ParquetList(path, meta) if kind == "parquet" else TextList(path, kind, meta)
