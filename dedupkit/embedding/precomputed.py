"""Vectors that somebody has computed: joined to samples by uid, key or url, never by position alone."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from dedupkit.embedding.embedder import unit_rows
from dedupkit.embedding.keys import embedder_key, projection_file
from dedupkit.embedding.projected import check_model
from dedupkit.embedding.projection import Projection, load_projection
from dedupkit.embedding.spec import parse_spec
from dedupkit.embedding.vectors import IDENTIFIERS, ArrayPart, Part, find_parts
from dedupkit.errors import DedupkitError

__all__ = ["EXAMPLES", "Precomputed", "load_precomputed", "shared_precomputed"]

EXAMPLES = 5
"""Samples without a vector that are named."""
_AMBIGUOUS = -2
_HELD = 4  # parts whose vectors stay in memory


class Precomputed:
    """Vectors by identifier.

    A part without vectors counts as one without its counterpart. The identifiers are held in memory (about 150 bytes a
    row and kind), the vectors are read when they are asked for.

    Args:
        parts: blocks of vectors.
        unpaired: files that have no counterpart, for the report.
        name: Name of the signal.
        key: fingerprint.
        projection: what the vectors are projected by.

    Raises:
        DedupkitError: no part with vectors, parts of different dimension, a part whose vectors and identifiers differ
            in number, a part without identifiers, a file that cannot be read.
    """

    def __init__(
        self,
        parts: Sequence[Part | ArrayPart],
        unpaired: Sequence[Path],
        name: str,
        key: str,
        projection: Projection | None = None,
    ) -> None:
        self.name, self.key = name, key
        self._projection = projection
        shapes = {part: part.shape() for part in parts}
        self._parts = [part for part in parts if shapes[part][1]]
        self._unpaired = [*unpaired, *(Path(part.vectors) for part in parts if not shapes[part][1])]
        if not self._parts:
            raise DedupkitError(f"{parts[0].vectors} holds no vector")
        self._held: dict[int, NDArray[Any]] = {}
        self._starts = np.zeros(len(self._parts) + 1, np.int64)
        self._width = shapes[self._parts[0]][1]
        self.dim = self._width if projection is None else projection.dim
        columns: dict[str, list[pa.Array]] = {kind: [] for kind in IDENTIFIERS}
        for number, part in enumerate(self._parts):
            rows, identifiers = self._checked(part, *shapes[part])
            self._starts[number + 1] = self._starts[number] + rows
            for kind, chunks in columns.items():
                chunks.append(identifiers.get(kind, pa.nulls(rows, pa.large_string())).cast(pa.large_string()))
        self._columns = {
            kind: pa.chunked_array(chunks)
            for kind, chunks in columns.items()
            if any(chunk.null_count < len(chunk) for chunk in chunks)
        }
        self._index = {kind: _index(column) for kind, column in self._columns.items()}
        self._used = np.zeros(len(self), bool)
        self._missing: list[str] = []
        self._counts = dict.fromkeys(("joined", "missing", "contradicted", "ambiguous", "zero", "not_finite"), 0)

    def __len__(self) -> int:
        return int(self._starts[-1])

    def lookup(
        self,
        keys: Sequence[str | None],
        uids: Sequence[str | None],
        urls: Sequence[str | None],
        *,
        by: Sequence[str] = ("uid", "key", "url"),
    ) -> tuple[NDArray[np.float16], NDArray[np.bool_]]:
        """The vectors of samples.

        An identifier that occurs twice in the set names no row. A row that is found by key and whose uid or url is
        another than the sample's, or by url and whose uid is another, is not the sample's.

        Args:
            keys: Keys of n samples.
            uids: UIDs of the same samples.
            urls: URLs of the same samples.
            by: which identifiers to join by, in this order; leave ``key`` out where keys repeat among the samples.

        Returns:
            Vectors, (n, dim) float16 of unit length, zero where there is none; and found, (n,) bool.
        """
        asked = {"uid": uids, "key": keys, "url": urls}
        count = len(keys)
        rows = np.full(count, -1, np.int64)
        for kind in by:
            index = self._index.get(kind)
            if index is not None:
                open_ = np.flatnonzero(rows < 0)
                found = np.array([index.get(asked[kind][i] or "", -1) for i in open_.tolist()], np.int64)
                found = self._without_contradictions(kind, open_, found, asked)
                rows[open_] = np.where(found == -1, rows[open_], found)  # ambiguous stays so unless another kind tells
        self._counts["ambiguous"] += int((rows == _AMBIGUOUS).sum())
        matched = np.flatnonzero(rows >= 0)
        vectors = np.zeros((count, self.dim), np.float16)
        vectors[matched] = self._read(rows[matched])
        found_ = np.zeros(count, bool)
        found_[matched] = vectors[matched].any(axis=1)
        self._used[rows[matched]] = True
        self._counts["joined"] += int(found_.sum())
        without = np.flatnonzero(rows < 0)
        self._counts["missing"] += len(without)
        room = max(0, EXAMPLES - len(self._missing))
        self._missing += [str(keys[i] or uids[i] or urls[i]) for i in without[:room].tolist()]
        return vectors, found_

    def report(self) -> dict[str, Any]:
        """What the look-ups of this process came to.

        Returns:
            ``vectors`` in the set, samples ``joined`` and ``missing`` (with ``missing_examples``; among them
            ``ambiguous`` and ``contradicted`` ones), ``zero`` and ``not_finite`` vectors met, ``surplus`` vectors that
            no sample asked for (with ``surplus_examples``), ``unpaired_files``.
        """
        surplus = np.flatnonzero(~self._used)
        return {
            "vectors": len(self),
            **self._counts,
            "missing_examples": list(self._missing),
            "surplus": len(surplus),
            "surplus_examples": [self._named(row) for row in surplus[:EXAMPLES].tolist()],
            "unpaired_files": [str(path) for path in self._unpaired],
        }

    def _checked(self, part: Part | ArrayPart, rows: int, dim: int) -> tuple[int, dict[str, pa.Array]]:
        if dim != self._width:
            raise DedupkitError(
                f"{part.vectors} holds vectors of dimension {dim}, {self._parts[0].vectors} of {self._width}; "
                "one set takes one model"
            )
        identifiers = part.identifiers()
        for column in identifiers.values():
            if len(column) != rows:
                raise DedupkitError(
                    f"{part.vectors} holds {rows} vectors and {part.ids} {len(column)} rows, so nobody can tell which "
                    "belongs to which; write the part again, or take both files away and its samples count as missing"
                )
        return rows, identifiers

    def _without_contradictions(
        self, kind: str, samples: NDArray[np.int64], found: NDArray[np.int64], asked: dict[str, Sequence[str | None]]
    ) -> NDArray[np.int64]:
        surer = {"key": ("uid", "url"), "url": ("uid",)}.get(kind, ())
        at = np.flatnonzero(found >= 0)
        for other in (other for other in surer if other in self._columns):
            theirs = self._columns[other].take(pa.array(found[at])).to_pylist()
            ours = [asked[other][i] for i in samples[at].tolist()]
            pairs = zip(ours, theirs, strict=True)
            differ = np.array([all(pair) and pair[0] != pair[1] for pair in pairs], bool)
            self._counts["contradicted"] += int(differ.sum())
            found[at[differ]] = -1
            at = at[~differ]
        return found

    def _read(self, rows: NDArray[np.int64]) -> NDArray[np.float16]:
        values = np.zeros((len(rows), self._width), np.float32)
        owner = np.searchsorted(self._starts, rows, side="right") - 1
        for number in np.unique(owner).tolist():
            mine = owner == number
            values[mine] = self._vectors_of(number)[rows[mine] - self._starts[number]]
        finite = np.isfinite(values).all(axis=1)
        self._counts["not_finite"] += int((~finite).sum())
        self._counts["zero"] += int((finite & ~values.any(axis=1)).sum())
        values[~finite] = 0
        done = unit_rows(values) if self._projection is None else self._projection(values)
        return done.astype(np.float16)

    def _vectors_of(self, number: int) -> NDArray[Any]:
        """The vectors of a part; those of the last few are held."""
        vectors = self._held.pop(number) if number in self._held else self._parts[number].read()
        self._held[number] = vectors
        if len(self._held) > _HELD:
            del self._held[next(iter(self._held))]
        return vectors

    def _named(self, row: int) -> str:
        names = (self._columns[kind][row].as_py() for kind in ("key", "uid", "url") if kind in self._columns)
        return next((str(name) for name in names if name is not None), f"row {row}")


def load_precomputed(spec: str) -> Precomputed:
    """Open ``precomputed:PATH``; see :mod:`dedupkit.embedding.vectors` for the layouts.

    ``?array=b32_img`` chooses among several arrays, ``?name=`` names the signal (``clip`` for folders by default, the
    file's name else), ``?project=FILE.npz`` projects the vectors.

    Raises:
        DedupkitError: no such path, no known layout, or a set that is inconsistent.
    """
    parsed = parse_spec(spec if spec.startswith("precomputed:") else f"precomputed:{spec}")
    if parsed.fits:
        raise DedupkitError(
            f"{spec!r}: there is no model here that could embed transformed copies; name a projection that was fitted "
            "with the model of these vectors: ?project=FILE.npz (docs/embedding.md says how one is made)"
        )
    parts, unpaired = find_parts(parsed)
    projection = None
    if parsed.projection is not None:
        path = projection_file(parsed)
        projection = load_projection(path)
        width = next((width for part in parts if (width := part.shape()[1])), None)
        if width is not None:
            check_model(projection, "", width, parsed.name, path)
    return Precomputed(parts, unpaired, parsed.name, embedder_key(parsed.text), projection)


def shared_precomputed(spec: str, *, key: str | None = None) -> Precomputed:
    """:func:`load_precomputed`, once for a process; files that were replaced are read anew.

    Args:
        spec: As for :func:`load_precomputed`.
        key: What :func:`~dedupkit.embedding.keys.embedder_key` says of it; by default it is asked.
    """
    return _loaded(spec, key or embedder_key(spec))


@lru_cache(maxsize=2)
def _loaded(spec: str, _key: str) -> Precomputed:
    return load_precomputed(spec)


def _index(column: pa.ChunkedArray) -> dict[str, int]:
    """Row by identifier; an identifier that occurs again names none, and an empty one is none."""
    index: dict[str, int] = {}
    for row, value in enumerate(column.to_pylist()):
        if value:
            index[value] = row if value not in index else _AMBIGUOUS
    return index
