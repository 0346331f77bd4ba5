"""URL lists as text: TSV and CSV."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from dedupkit.errors import DedupkitError
from dedupkit.metadata import pages
from dedupkit.metadata.columns import ROLES, ROWS, Batch, find_roles
from dedupkit.store import atomic_path

__all__ = ["TextList"]

_LINE_BYTES = 60  # of a line of text that is short


class TextList:
    """Rows as lines of a TSV, or records of a CSV; what is kept is written byte for byte.

    A first line that names a column of URLs is a header; without one, the column whose first value is a URL has them,
    and the other one of two has the captions.
    """

    def __init__(self, path: Path, kind: str, meta: Sequence[str] = ()) -> None:
        self.path, self._kind = path, kind
        first = next(self._records(), (b"", []))[1]
        known = {name for names in ROLES.values() for name in names}
        self._header = any(field in known for field in first) and not any(_is_url(field) for field in first)
        self.names = first if self._header else self._guessed(first)
        self.columns = find_roles(self.names, path, meta=meta)
        self._places = {role: self.names.index(name) for role, name in self.columns.items()}
        self.rows = path.stat().st_size // _LINE_BYTES + 1

    def batches(self, roles: Sequence[str]) -> Iterator[Batch]:
        """See :meth:`dedupkit.metadata.lists.UrlList.batches`."""
        places = {role: self._places[role] for role in roles if role in self._places}
        records = self._records()
        if self._header:
            next(records)
        while block := list(islice(records, ROWS)):
            columns = {
                role: pa.array([_field(fields, place) for _, fields in block], pa.large_string())
                for role, place in places.items()
            }
            yield Batch(len(block), columns)

    def write(self, kept: NDArray[np.bool_], to: Path) -> None:
        """See :meth:`dedupkit.metadata.lists.UrlList.write`."""
        records = self._records()
        with atomic_path(to) as temporary, temporary.open("wb") as out:
            if self._header:
                out.write(next(records)[0])
            for (line, _), stays in zip(records, kept.tolist(), strict=True):
                if stays:
                    out.write(line)

    def _records(self) -> Iterator[tuple[bytes, list[str]]]:
        """Each record as it stands in the file, and its fields."""
        with self.path.open("rb") as stream:
            if self._kind == "tsv":
                for number, line in enumerate(self._lines(stream)):
                    yield line, _text(line.rstrip(b"\r\n"), number).split("\t")
                return
            consumed: list[bytes] = []

            def lines() -> Iterator[str]:
                for number, line in enumerate(self._lines(stream)):
                    consumed.append(line)
                    yield _text(line, number)

            # one number for the whole process, in which other lists are read meanwhile: it is raised and stays
            csv.field_size_limit(max(pages.MAX_PAGE_BYTES, csv.field_size_limit()))
            try:
                for fields in csv.reader(lines()):
                    yield b"".join(consumed), fields
                    consumed.clear()
            except csv.Error as error:
                raise DedupkitError(f"{self.path} cannot be read as CSV: {error}") from error

    def _lines(self, stream: BinaryIO) -> Iterator[bytes]:
        number = 0
        while line := stream.readline(pages.MAX_PAGE_BYTES + 1):
            number += 1
            if len(line) > pages.MAX_PAGE_BYTES:
                raise DedupkitError(
                    f"{self.path}, line {number:,} has more than {pages.MAX_PAGE_BYTES:,} bytes "
                    "(DEDUPKIT_MAX_PAGE_BYTES); leave it out"
                )
            yield line

    def _guessed(self, first: list[str]) -> list[str]:
        place = next((place for place, field in enumerate(first) if _is_url(field)), None)
        names = [f"column {number + 1}" for number in range(len(first))]
        if place is not None:
            names[place] = "url"
            if len(names) == 2:
                names[1 - place] = "caption"
        return names


def _text(line: bytes, number: int) -> str:
    """A line as text; the first one may begin with a byte-order mark, as Excel writes it."""
    return line.decode("utf-8" if number else "utf-8-sig", "replace")


def _field(fields: list[str], place: int) -> str | None:
    return fields[place] if place < len(fields) else None


def _is_url(text: str) -> bool:
    return text.startswith(("http://", "https://"))
