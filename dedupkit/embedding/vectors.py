"""Files of vectors that exist: the known layouts, and how one part is read.

A part is a block of vectors and the identifiers of its rows: the same file, or two files of one name. Layouts, as their
tools write them:

* clip-retrieval: ``img_emb/img_emb_{i}.npy`` and ``metadata/metadata_{i}.parquet``; ``i`` is zero-padded and has gaps.
* DataComp: ``*.npz`` with ``l14_img``, ``b32_img``, … and a Parquet file of the same name with ``uid``.
* plain: ``*.npy`` or ``*.npz`` with a Parquet file of the same name; ``*.npz`` that holds the identifiers too;
  ``*.parquet`` with a column ``embedding`` (NeMo Curator's among them).
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from dedupkit.embedding.spec import Spec
from dedupkit.errors import DedupkitError

__all__ = ["IDENTIFIERS", "ArrayPart", "Part", "find_parts", "vector_files"]

IDENTIFIERS: dict[str, tuple[str, ...]] = {
    "uid": ("uid", "UID"),
    "key": ("key", "image_path", "image_id", "keys", "id"),
    "url": ("url", "URL", "urls", "image_url"),
}
"""Identifiers of a row, the surest first, and the names that tools give them."""

_ARRAYS = ("l14_img", "b32_img", "embedding", "embeddings", "image_embedding", "vectors", "arr_0")
_NUMBER = re.compile(r"(\d+)$")


@dataclass(frozen=True, slots=True)
class Part:
    """A block of vectors and its identifiers.

    Attributes:
        vectors: File of the vectors: ``.npy``, ``.npz`` or ``.parquet``.
        ids: File of the identifiers: ``.parquet`` or ``.npz``; may be the same file.
        array: Name of the array or column of vectors; None in ``.npy``.
    """

    vectors: Path
    ids: Path
    array: str | None = None

    @property
    def files(self) -> tuple[Path, ...]:
        """The one or two files."""
        return (self.vectors,) if self.vectors == self.ids else (self.vectors, self.ids)

    def identifiers(self) -> dict[str, pa.Array]:
        """The identifiers that the file has: columns of strings under the names of :data:`IDENTIFIERS`.

        Raises:
            DedupkitError: There is none, or the file is broken.
        """
        try:
            if self.ids.suffix == ".npz":
                with np.load(self.ids) as arrays:
                    present = {name: pa.array(arrays[name].astype(str)) for name in arrays.files if _names_ids(name)}
            else:
                with pq.ParquetFile(self.ids) as file:
                    wanted = [name for name in file.schema_arrow.names if _names_ids(name)]
                    table = file.read(columns=wanted)
                present = {name: table[name].cast(pa.large_string()).combine_chunks() for name in wanted}
        except (OSError, ValueError, zipfile.BadZipFile, pa.ArrowException) as error:
            raise DedupkitError(f"{self.ids} cannot be read: {error}") from error
        found = {
            kind: next(present[name] for name in names if name in present)
            for kind, names in IDENTIFIERS.items()
            if any(name in present for name in names)
        }
        if not found:
            raise DedupkitError(
                f"{self.ids} has no column of identifiers (key, uid or url): vectors are never joined by position alone"
            )
        return found

    def shape(self) -> tuple[int, int]:
        """Rows and dimension, without reading the vectors where the format allows it.

        The dimension is 0 where no row has a vector that could tell it.

        Raises:
            DedupkitError: No matrix, or the file is broken or cut short.
        """
        try:
            if self.vectors.suffix == ".npz":
                shape = self._npz_shape()
            elif self.vectors.suffix == ".npy":
                shape = np.load(self.vectors, mmap_mode="r").shape
            else:
                shape = self.read().shape
        except (OSError, ValueError, KeyError, zipfile.BadZipFile, pa.ArrowException) as error:
            raise DedupkitError(f"{self.vectors} cannot be read: {error}") from error
        if shape == (0,):
            return 0, 0
        if len(shape) != 2:
            raise DedupkitError(f"{self.vectors} holds an array of shape {shape}, expected (rows, dimension)")
        return int(shape[0]), int(shape[1])

    def read(self) -> NDArray[Any]:
        """The vectors, (rows, dimension); a ``.npy`` is mapped, not read. A missing vector is NaN."""
        if self.vectors.suffix == ".npy":
            mapped: NDArray[Any] = np.load(self.vectors, mmap_mode="r")
            return mapped
        if self.vectors.suffix == ".npz":
            with np.load(self.vectors) as arrays:
                matrix: NDArray[Any] = arrays[self.array]
                return matrix
        with pq.ParquetFile(self.vectors) as file:
            return self._matrix(file.read(columns=[self.array])[self.array])

    def _matrix(self, column: Any) -> NDArray[Any]:
        lengths = pc.fill_null(pc.list_value_length(column), -1).to_numpy()
        widths = np.unique(lengths[lengths >= 0])
        if len(widths) > 1:
            raise DedupkitError(f"{self.vectors}: the vectors in column {self.array} have lengths {widths.tolist()}")
        matrix = np.full((len(column), int(widths.sum())), np.nan, np.float32)
        start = 0
        for chunk in column.chunks:  # in one piece their values may be too many for Arrow
            present = start + np.flatnonzero(lengths[start : start + len(chunk)] >= 0)
            values = chunk.drop_null().flatten().to_numpy(zero_copy_only=False)
            matrix[present] = values.reshape(len(present), matrix.shape[1])
            start += len(chunk)
        return matrix

    def _npz_shape(self) -> tuple[int, ...]:
        with zipfile.ZipFile(self.vectors) as archive, archive.open(f"{self.array}.npy") as stream:
            version = np.lib.format.read_magic(stream)
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape: tuple[int, ...] = read(stream)[0]
            return shape


@dataclass(frozen=True, slots=True, eq=False)
class ArrayPart:
    """Vectors and identifiers in memory, with the interface of :class:`Part`.

    Attributes:
        array: (n, d) vectors.
        names: Identifiers by kind, see :data:`IDENTIFIERS`.
        vectors: Name of the vectors, for messages.
        ids: Name of the identifiers, for messages.
    """

    array: NDArray[Any]
    names: Mapping[str, Sequence[str | None]]
    vectors: str = "the array"
    ids: str = "the list of identifiers"

    def identifiers(self) -> dict[str, pa.Array]:
        """Columns of strings under the names of :data:`IDENTIFIERS`."""
        return {kind: pa.array(list(values), pa.large_string()) for kind, values in self.names.items()}

    def shape(self) -> tuple[int, int]:
        """Rows and dimension."""
        return int(self.array.shape[0]), int(self.array.shape[1])

    def read(self) -> NDArray[Any]:
        """The vectors, (n, d)."""
        return self.array


def find_parts(spec: Spec) -> tuple[list[Part], list[Path]]:
    """The parts that ``precomputed:PATH`` names, in name order, and the files that have no counterpart.

    Raises:
        DedupkitError: No such path, or none of the known layouts.
    """
    path = spec.path
    if not path.exists():
        raise DedupkitError(f"no such file or folder: {spec.target} (named by {spec.text!r})")
    if path.is_dir() and (path / "img_emb").is_dir():
        return _clip_retrieval(path)
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    parts = [part for file in files if file.suffix != ".parquet" for part in _plain(file, spec)]
    beside = {part.ids for part in parts}  # they may have lists of other numbers, such as boxes
    parts += [part for file in files if file.suffix == ".parquet" and file not in beside for part in _plain(file, spec)]
    parts.sort(key=lambda part: part.vectors)
    used = {file for part in parts for file in part.files}
    if not parts:
        raise DedupkitError(
            f"no vectors with identifiers in {spec.target}; known are folders of clip-retrieval (img_emb, metadata) "
            "and DataComp (.npz, .parquet), and .npy, .npz or .parquet files; a .npy takes its identifiers (key, uid "
            "or url) from the Parquet file of the same name, for vectors are never joined by position alone"
        )
    return parts, [file for file in files if file.suffix in (".npy", ".npz", ".parquet") and file not in used]


def vector_files(spec: Spec) -> list[Path]:
    """Every file that a specification names, for its key."""
    return [file for part in find_parts(spec)[0] for file in part.files]


def _clip_retrieval(folder: Path) -> tuple[list[Part], list[Path]]:
    vectors = dict(_numbered(folder / "img_emb", ".npy"))
    metadata = dict(_numbered(folder / "metadata", ".parquet"))
    parts = [Part(vectors[number], metadata[number]) for number in sorted(vectors) if number in metadata]
    unpaired = [vectors[number] for number in vectors.keys() - metadata.keys()]
    unpaired += [metadata[number] for number in metadata.keys() - vectors.keys()]
    if not parts:
        raise DedupkitError(f"{folder}: no img_emb/img_emb_*.npy has its metadata/metadata_*.parquet")
    return parts, sorted(unpaired)


def _numbered(folder: Path, suffix: str) -> Iterator[tuple[int, Path]]:
    for path in sorted(folder.glob(f"*{suffix}")):
        match = _NUMBER.search(path.stem)
        if match:
            yield int(match[1]), path


def _plain(file: Path, spec: Spec) -> Iterator[Part]:
    beside = file.with_suffix(".parquet")
    if file.suffix == ".npy" and beside.is_file():
        yield Part(file, beside)
    elif file.suffix == ".npz":
        names = _npz_names(file)
        array = _choose(names, spec, file)
        yield Part(file, file if any(_names_ids(name) for name in names) or not beside.is_file() else beside, array)
    elif file.suffix == ".parquet":
        try:
            schema = pq.read_schema(file)
        except (OSError, pa.ArrowException) as error:
            raise DedupkitError(f"{file} cannot be read: {error}") from error
        lists = [name for name in schema.names if _holds_vectors(schema.field(name).type)]
        if lists:
            yield Part(file, file, _choose(lists, spec, file))


def _npz_names(file: Path) -> list[str]:
    try:
        with zipfile.ZipFile(file) as archive:
            return [name.removesuffix(".npy") for name in archive.namelist()]
    except (OSError, zipfile.BadZipFile) as error:
        raise DedupkitError(f"{file} cannot be read: {error}") from error


def _choose(names: list[str], spec: Spec, file: Path) -> str:
    wanted = spec.options.get("array")
    candidates = [name for name in names if not _names_ids(name)]
    if wanted is not None and wanted not in candidates:
        raise DedupkitError(f"{file} has no array {wanted!r}; it has: {', '.join(candidates) or 'none'}")
    chosen = wanted or next((name for name in _ARRAYS if name in candidates), None)
    chosen = chosen or (candidates[0] if len(candidates) == 1 else None)
    if chosen is None:
        have = ", ".join(candidates) or "none"
        raise DedupkitError(f"{file}: which array holds the vectors? name it with ?array=NAME; it has: {have}")
    return chosen


def _holds_vectors(type_: Any) -> bool:
    lists: bool = pa.types.is_list(type_) or pa.types.is_large_list(type_) or pa.types.is_fixed_size_list(type_)
    return lists and bool(pa.types.is_floating(type_.value_type))


def _names_ids(name: str) -> bool:
    return any(name in names for names in IDENTIFIERS.values())
