"""Use the manifest while training, without rewriting anything: a predicate over samples."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dedupkit.errors import DedupkitError
from dedupkit.store import read_columns

__all__ = ["KeepFilter", "keep_filter"]

_KEYS = ("__key__", "key")
_SOURCES = ("__url__", "source", "__source__")


def keep_filter(run: str | Path) -> KeepFilter:
    """The samples that a run keeps, as a predicate.

    For WebDataset: ``wds.WebDataset(shards).select(keep_filter(run))`` (samples carry ``__key__`` and ``__url__``).
    For Hugging Face datasets: ``ds.filter(keep_filter(run))`` where examples carry ``__key__`` and ``__url__`` or
    ``key``, ``url`` or ``uid``; else, over the same Parquet files in the same order, ``ds.filter(keep_filter(run),
    with_indices=True)``.

    Args:
        run: a run folder or its manifest.

    Raises:
        DedupkitError: there is no manifest.
    """
    path = Path(run)
    path = path / "manifest.parquet" if path.is_dir() else path
    if not path.exists():
        raise DedupkitError(f"{path} does not exist; a finished run has a manifest.parquet")
    return KeepFilter(path)


class KeepFilter:
    """Says of a sample whether the manifest keeps it; small enough to be pickled to data-loader workers.

    Args:
        manifest: path of ``manifest.parquet``; it is read at the first call, in each process that calls.
    """

    def __init__(self, manifest: Path) -> None:
        self._path = manifest
        self._loaded: _Loaded | None = None

    def __call__(self, sample: Mapping[str, Any], index: int | None = None) -> bool:
        """Whether the sample is kept.

        Args:
            sample: a WebDataset sample or a data set's example.
            index: row number over the whole input, where the sample carries no key.

        Raises:
            KeyError: the sample has nothing by which the manifest knows it, or the manifest does not know it: then
                the filter stands over other data than the run.
        """
        if self._loaded is None:
            self._loaded = _Loaded(self._path)
        return self._loaded.keeps(sample, index)

    def __getstate__(self) -> dict[str, Any]:
        return {"_path": self._path, "_loaded": None}


class _Loaded:
    """The verdicts, read per source: a data-loader worker sees few of a data set's shards."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._sources: list[str] = read_columns(path, ["source"])["source"].unique().to_pylist()
        self._suffixes = _suffixes(self._sources)
        self._by_source: dict[int, dict[str, bool]] = {}
        self._by_column: dict[str, dict[str, bool]] = {}
        self._by_row: NDArray[np.bool_] | None = None

    def keeps(self, sample: Mapping[str, Any], index: int | None) -> bool:
        key = next((sample[name] for name in _KEYS if sample.get(name) is not None), None)
        source = next((sample[name] for name in _SOURCES if sample.get(name) is not None), None)
        if key is not None and (source is not None or len(self._sources) == 1):
            number = 0 if source is None else self._source(str(source))
            try:
                return self._verdicts(number)[str(key)]
            except KeyError:
                raise KeyError(f"{self._sources[number]} had no sample {key!r} when the run was made") from None
        if index is not None:
            return bool(self._rows()[index])
        for column in ("uid", "url"):
            value = sample.get(column)
            if value is not None:
                return self._column(column)[str(value)]
        raise KeyError(
            f"cannot tell which sample this is; it has {', '.join(sample)}, and the manifest needs __key__ and "
            "__url__, uid, url, or with_indices=True"
        )

    def _verdicts(self, number: int) -> dict[str, bool]:
        if number not in self._by_source:
            only = [("source", "=", self._sources[number])]
            table = read_columns(self._path, ["key", "verdict"], only)
            kept = _is_kept(table).to_pylist()
            self._by_source[number] = dict(zip(table["key"].to_pylist(), kept, strict=True))
        return self._by_source[number]

    def _rows(self) -> NDArray[np.bool_]:
        if self._by_row is None:
            self._by_row = _is_kept(read_columns(self._path, ["verdict"])).to_numpy()
        return self._by_row

    def _source(self, name: str) -> int:
        """The manifest's source that ends as this path does: the data may have moved since."""
        parts = name.removeprefix("file:").removeprefix("pipe:").strip().split("/")
        for length in range(len(parts), 0, -1):
            number = self._suffixes.get("/".join(parts[-length:]))
            if number is not None and number >= 0:
                return number
        raise KeyError(f"{name} is no source of {self._path}")

    def _column(self, column: str) -> dict[str, bool]:
        """Keep, by the value of another identifying column; a value that several samples share is kept if one is."""
        if column not in self._by_column:
            values = read_columns(self._path, [column])[column].to_pylist()
            found: dict[str, bool] = {}
            for value, kept in zip(values, self._rows().tolist(), strict=True):
                if value is not None:
                    found[value] = found.get(value, False) or kept
            self._by_column[column] = found
        return self._by_column[column]


def _suffixes(sources: list[str]) -> dict[str, int]:
    """Every way to end a source's path, to the source's number; -1 where two sources share it."""
    table: dict[str, int] = {}
    for number, source in enumerate(sources):
        parts = source.split("/")
        for length in range(1, len(parts) + 1):
            suffix = "/".join(parts[-length:])
            table[suffix] = number if table.get(suffix, number) == number else -1
    return table


def _is_kept(table: Any) -> Any:
    import pyarrow.compute as pc  # a tenth of a short run's start, and most imports of this module only pass by

    return pc.equal(table["verdict"], "keep")
