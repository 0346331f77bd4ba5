"""The samples of a run that are near an image, by hash and by vector."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from dedupkit.embedding.fitted import fitted_specs
from dedupkit.errors import DedupkitError
from dedupkit.neighbors.cosine.lookup import VectorLookup
from dedupkit.neighbors.hamming.lookup import HashLookup
from dedupkit.runfolder import RunFolder
from dedupkit.sources.keys import text_of
from dedupkit.stages.index import HASH_ROWS, build_index
from dedupkit.store import read_columns

__all__ = ["Neighbour", "Neighbours"]

_COLUMNS = ("key", "source", "caption", "verdict", "kept_sample", "kept_key", "group", "group_size")


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A sample of a run, and how near it is to a query.

    Attributes:
        sample: Row number in the run.
        signal: What found it: ``pdq``, the name of an embedder, or ``key``.
        score: Bits that differ, or the cosine.
        key: Its key.
        source: Its shard.
        caption: Its caption.
        verdict: What the rule of the run says of it.
        kept_key: Key of the kept sample that stands for it; its own where it is kept.
        group: Its duplicate group.
        group_size: Number of samples in the group.
    """

    sample: int
    signal: str
    score: float
    key: str
    source: str
    caption: str | None
    verdict: str
    kept_key: str | None
    group: int | None
    group_size: int

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready object."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Neighbour:
        """Read what :meth:`to_json` gives."""
        return cls(**value)

    def in_words(self) -> str:
        """The score in words."""
        if self.signal == "key":
            return "named by its key"
        if self.signal == "pdq":
            return "same PDQ hash" if self.score == 0 else f"PDQ distance {self.score:.0f} of 256 bits"
        return f"{self.signal} cosine {self.score:.3f}"


class Neighbours:
    """The look-ups of a finished run; made at first use and kept in the run folder. Safe in several threads at once.

    Args:
        run: The run folder.

    Raises:
        DedupkitError: There is no finished run, or its look-ups are missing and another process keeps writing into it.

    Attributes:
        folder: The run folder.
        config: What was asked of the run.
        vectors: The look-up of each embedder, by its name.
        samples: Number of samples.
    """

    def __init__(self, run: str | Path) -> None:
        self.folder = RunFolder(run)
        config = self.folder.read_finished()
        build_index(self.folder, config)
        self.config = replace(config, embedders=fitted_specs(self.folder, config.embedders))
        home = self.folder.index("pdq")
        self._hashes = HashLookup.open(home)
        self._rows: NDArray[np.int64] = np.load(home / HASH_ROWS)
        self.vectors = {name: VectorLookup.open(self.folder.index(name)) for name in self.config.embedders}
        table = read_columns(self.folder.manifest, _COLUMNS)
        self._table: pa.Table = table.combine_chunks()
        self.samples: int = table.num_rows

    @property
    def nbytes(self) -> int:
        """Memory of what is held, in bytes, if every page of the mapped files is used."""
        folders = [self.folder.index(name) for name in ("pdq", *self.vectors)]
        mapped = sum(file.stat().st_size for folder in folders for file in folder.iterdir())
        return mapped + int(self._table.nbytes)

    def by_hash(self, code: NDArray[np.uint8], radius: int = 31) -> list[tuple[int, int]]:
        """Samples and distances in bits within a radius of a PDQ hash, (32,) uint8, nearest first.

        Of samples with equal hashes the first is named. The answer is exact, in any of eight orientations.
        """
        rows, distances = self._hashes.within(code, radius)
        return list(zip(self._rows[rows].tolist(), distances.tolist(), strict=True))

    def by_vector(self, name: str, vector: NDArray[np.float32], count: int = 16) -> list[tuple[int, float]]:
        """Samples and cosines of the vectors that are most like a vector, (dim,) of unit length."""
        samples, scores = self.vectors[name].nearest(vector[None], count)
        found = zip(samples[0].tolist(), scores[0].tolist(), strict=True)
        return [(sample, min(score, 1.0)) for sample, score in found if sample >= 0]

    def refuse_other_length(self, name: str, dim: int) -> None:
        """Refuse a model that gives vectors of another length than those of an embedder of the run.

        Raises:
            DedupkitError: It does.
        """
        if dim != self.vectors[name].dim:
            raise DedupkitError(
                f"the model gives vectors of {dim} values, those of {name} in {self.folder.shown} have "
                f"{self.vectors[name].dim}; give the model that the run was made with"
            )

    def by_key(self, key: str) -> list[int]:
        """The samples that have a key, as the manifest or as their shard writes it; several shards may share one."""
        keys, names = self._table["key"], [text_of(key)]
        with suppress(UnicodeEncodeError):  # a word of the command line need not be Unicode
            names.append(key.encode().decode())
        found = pc.indices_nonzero(pc.is_in(keys, pa.array(names, keys.type)))
        return [int(row) for row in found.to_pylist()]

    def describe(self, sample: int, signal: str, score: float) -> Neighbour:
        """A sample with what the run says of it."""
        row = {name: self._table[name][sample].as_py() for name in _COLUMNS}
        del row["kept_sample"]
        row["group_size"] = row["group_size"] or 1
        if row["verdict"] == "keep":
            row["kept_key"] = row["key"]
        return Neighbour(sample=sample, signal=signal, score=score, **row)

    def column(self, name: str) -> pa.ChunkedArray:
        """A column of all samples."""
        return self._table[name]

    def members(self, groups: Iterable[int]) -> NDArray[np.int64]:
        """The samples of some groups, ascending."""
        wanted = pa.array(sorted(set(groups)), self._table["group"].type)
        found: NDArray[np.int64] = (
            pc.indices_nonzero(pc.is_in(self._table["group"], wanted)).to_numpy().astype(np.int64)
        )
        return found
