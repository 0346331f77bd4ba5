"""The samples of a run, and of the runs that it updates, that are near an image, by hash and by vector."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import cached_property, partial
from os import PathLike
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from dedupkit.embedding.fitted import fitted_specs, made_by_model
from dedupkit.embedding.keys import embedder_key
from dedupkit.embedding.spec import parse_spec
from dedupkit.errors import DedupkitError, RereadError
from dedupkit.neighbors.cosine.lookup import VectorLookup
from dedupkit.neighbors.hamming.lookup import HashLookup
from dedupkit.runfolder import RunConfig, RunFolder
from dedupkit.sources.again import Moved
from dedupkit.sources.keys import text_of
from dedupkit.sources.reread import Failed, Originals
from dedupkit.sources.sample import Place
from dedupkit.stages.index import HASH_ROWS, build_index
from dedupkit.store import read_columns

__all__ = ["Neighbour", "Neighbours", "Part", "TrainingImages"]

_COLUMNS = (
    "key", "source", "caption", "verdict", "kept_sample", "kept_key", "kept_source", "group", "group_size",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A sample of a run, and how near it is to a query.

    Attributes:
        sample: Row number in its run.
        signal: What found it: ``pdq``, the name of an embedder, or ``key``.
        score: Bits that differ, or the cosine.
        key: Its key.
        source: Its shard.
        caption: Its caption.
        verdict: What the rule of the run says of it.
        kept_key: Key of the kept sample that stands for it; its own where it is kept, None where none does.
        group: Its duplicate group.
        group_size: Number of samples in the group.
        kept_source: Shard of that kept sample, or the earlier run in which it lies.
        run: The earlier run in which the sample lies; None for the run that is searched.
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
    kept_source: str | None = None
    run: str | None = None

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

    def verdict_in_words(self) -> str:
        """What the rule of its run says of it, in words."""
        group = "" if self.group_size < 2 else f", in a group of {self.group_size:,}"
        kept = ""
        if self.kept_key is not None and (self.verdict != "keep" or group):
            elsewhere = "" if self.kept_source == self.source else f" of {self.kept_source}"
            kept = f"{'' if group else ','} kept as {self.kept_key}{elsewhere}"
        return f"{self.verdict}{group}{kept}" + (f"; in the earlier run {self.run}" if self.run else "")


@dataclass(frozen=True, slots=True)
class Part:
    """One of the runs that are searched together.

    Attributes:
        name: Where the run lies; None for the one that is searched.
        folder: Its folder.
        config: What was asked of it.
        start: The number of its first sample among those of all.
        samples: Number of its samples.
        rows: (n,) int64, the sample of each hash.
        hashes: The look-up of its hashes.
        vectors: The look-up of each embedder whose vectors can be compared, by its name.
    """

    name: str | None
    folder: RunFolder
    config: RunConfig
    start: int
    samples: int
    rows: NDArray[np.int64]
    hashes: HashLookup
    vectors: dict[str, VectorLookup]


class Neighbours:
    """The look-ups of a finished run and of those that it updates; made at first use and kept in the run folders.

    The samples of all these runs are numbered one after the other, those of the run itself first, and so are their
    groups: ``sample`` and the columns count in this way, :class:`Neighbour` in its run. Safe in several threads at
    once.

    Args:
        run: The run folder.

    Raises:
        DedupkitError: There is no finished run, or its look-ups are missing and another process keeps writing into it.

    Attributes:
        folder: The run folder.
        config: What was asked of the run.
        parts: The run itself, and after it those that it updates, the oldest first; of samples that are equally near,
            those of the oldest run come first.
        samples: Number of samples of all parts.
    """

    def __init__(self, run: str | PathLike[str]) -> None:
        self._keeper = run  # a run of images in memory lies in a folder that goes away with it
        self.samples = 0
        self.parts: list[Part] = []
        self._tables: list[pa.Table] = []
        self._gone: list[str] = []
        self.folder = RunFolder(run)
        self.config = self._add(None, self.folder)
        for path in [each.path for each in self.config.references if each.role == "earlier"]:
            try:
                self._add(path, RunFolder(path))
            except (DedupkitError, OSError) as error:
                self._gone.append(f"images of {path}, which the run updates, are not seen: {error}")
        self._starts = np.array([part.start for part in self.parts])
        self._table: pa.Table = pa.concat_tables(self._tables)

    def _add(self, name: str | None, folder: RunFolder) -> RunConfig:
        config = folder.read_finished()
        build_index(folder, config)
        config = replace(config, embedders=fitted_specs(folder, config.embedders))
        home = folder.index("pdq")
        names = [each for each in config.embedders if name is None or self._compares(folder, config, each)]
        vectors = {each: VectorLookup.open(folder.index(each)) for each in names}
        if name is not None:
            vectors = {each: opened for each, opened in vectors.items() if opened.dim == self.vectors[each].dim}
        table = read_columns(folder.manifest, _COLUMNS).combine_chunks()
        group = pc.add(table["group"], pa.scalar(self.samples, table["group"].type))
        hashes, rows = HashLookup.open(home), np.load(home / HASH_ROWS)
        part = Part(name, folder, config, self.samples, table.num_rows, rows, hashes, vectors)
        self.parts.append(part)
        self._tables.append(table.set_column(table.column_names.index("group"), "group", group))
        self.samples += table.num_rows
        return config

    def _compares(self, folder: RunFolder, config: RunConfig, name: str) -> bool:
        """Whether the vectors of an earlier run can be compared with those of this one."""
        own = self.config.embedders.get(name)
        return own is not None and _same_model(own, folder, config, name)

    @property
    def vectors(self) -> dict[str, VectorLookup]:
        """The look-up of each embedder of the run itself, by its name."""
        return self.parts[0].vectors

    def notes(self, name: str | None) -> list[str]:
        """What is not seen of earlier runs, by hash and by the vectors of an embedder; None for no vectors."""
        return self._gone + [
            f"{part.name}, which the run updates, has no vectors of {name} by the same model, so crops and heavy edits "
            "of its images are not seen"
            for part in self.parts
            if name is not None and name not in part.vectors
        ]

    @property
    def nbytes(self) -> int:
        """Memory of what is held, in bytes, if every page of the mapped files is used."""
        folders = [part.folder.index(name) for part in self.parts for name in ("pdq", *part.vectors)]
        mapped = sum(file.stat().st_size for folder in folders for file in folder.iterdir())
        return mapped + int(self._table.nbytes)

    def by_hash(self, code: NDArray[np.uint8], radius: int = 31) -> list[tuple[int, int]]:
        """Samples and distances in bits within a radius of a PDQ hash, (32,) uint8, nearest first.

        Of samples with equal hashes the first is named. The answer is exact, in any of eight orientations.
        """
        found: list[tuple[int, int]] = []
        for part in (*self.parts[1:], self.parts[0]):
            rows, distances = part.hashes.within(code, radius)
            found += zip((part.rows[rows] + part.start).tolist(), distances.tolist(), strict=True)
        return sorted(found, key=lambda each: each[1])

    def by_vector(self, name: str, vector: NDArray[np.float32], count: int = 16) -> list[tuple[int, float]]:
        """Samples and cosines of the vectors that are most like a vector, (dim,) of unit length."""
        samples, scores = self.nearest(name, vector[None], count)
        found = zip(samples[0].tolist(), scores[0].tolist(), strict=True)
        return [(sample, min(score, 1.0)) for sample, score in found if sample >= 0]

    def nearest(
        self, name: str, queries: NDArray[np.float32], count: int
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """The vectors most like each query, as :meth:`VectorLookup.nearest` gives them."""
        found = []
        for part in (*self.parts[1:], self.parts[0]):
            if name in part.vectors:
                samples, scores = part.vectors[name].nearest(queries, count)
                found.append((np.where(samples >= 0, samples + part.start, -1), np.where(samples >= 0, scores, -2.0)))
        samples, scores = (np.concatenate(sides, axis=1) for sides in zip(*found, strict=True))
        order = np.argsort(-scores, axis=1, kind="stable")[:, :count]
        return np.take_along_axis(samples, order, 1), np.take_along_axis(scores, order, 1).astype(np.float32)

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

    def number(self, sample: int, run: str | None) -> int:
        """The number, among the samples of all parts, of a sample of one of them."""
        return next(part.start for part in self.parts if part.name == run) + sample

    def by_key(self, key: str) -> list[int]:
        """The samples that have a key, as the manifest or as their shard writes it; several shards may share one."""
        keys, names = self._table["key"], [text_of(key)]
        with suppress(UnicodeEncodeError):  # a word of the command line need not be Unicode
            names.append(key.encode().decode())
        found = pc.indices_nonzero(pc.is_in(keys, pa.array(names, keys.type)))
        return [int(row) for row in found.to_pylist()]

    def describe(self, sample: int, signal: str, score: float) -> Neighbour:
        """A sample with what its run says of it."""
        row = {name: self._table[name][sample].as_py() for name in _COLUMNS}
        part = self.parts[int(np.searchsorted(self._starts, sample, side="right")) - 1]
        kept = row.pop("kept_sample")
        row["group_size"] = row["group_size"] or 1
        if row["group"] is not None:
            row["group"] -= part.start
        if row["verdict"] == "keep":
            row |= {"kept_key": row["key"], "kept_source": row["source"]}
        elif row["verdict"] == "blocked":
            row |= {"kept_key": None, "kept_source": None}
        elif kept is not None and row["kept_source"] is None:
            row["kept_source"] = self._table["source"][part.start + kept].as_py()
        elif row["kept_source"] is not None:
            row["kept_source"] = _earlier(part.config).get(row["kept_source"], row["kept_source"])
        return Neighbour(sample=sample - part.start, signal=signal, score=score, run=part.name, **row)

    def stored(self, columns: Sequence[str]) -> pa.Table:
        """Further columns of the manifests, for all samples in order."""
        return pa.concat_tables([read_columns(part.folder.manifest, columns) for part in self.parts])

    @cached_property
    def removed_for_earlier(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The samples that are removed for one of an earlier run, (n,) int64, and those, (n,) int64."""
        found, kept = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
        for part in self.parts:
            table = self._table.slice(part.start, part.samples)
            for name, path in _earlier(part.config).items():
                named = pc.and_(pc.equal(table["kept_source"], name), pc.equal(table["verdict"], "remove"))
                rows = pc.indices_nonzero(named).to_numpy().astype(np.int64)
                start = next((other.start for other in self.parts if other.name == path), None)
                if start is not None:
                    found.append(rows + part.start)
                    kept.append(table["kept_sample"].take(pa.array(rows)).to_numpy() + start)
        return np.concatenate(found), np.concatenate(kept)

    def column(self, name: str) -> pa.ChunkedArray:
        """A column of all samples."""
        return self._table[name]


class TrainingImages:
    """The images of a run and of those that it updates, numbered as :class:`Neighbours` numbers them.

    Args:
        near: The runs.
        moved: Where the data lies now, if it moved since the runs.

    Raises:
        DedupkitError: ``moved`` does not exist.
    """

    def __init__(self, near: Neighbours, moved: Moved | None = None) -> None:
        self._parts = [(part.start, part.samples, Originals(part.folder, moved)) for part in near.parts]

    def read(self, samples: Iterable[int], failed: Failed | None = None) -> Iterator[tuple[Place, bytes]]:
        """Read the images of some samples; see :func:`dedupkit.sources.reread.read_images`."""
        wanted = np.unique(np.fromiter(samples, np.int64))
        for start, count, originals in self._parts:
            here = wanted[(wanted >= start) & (wanted < start + count)] - start
            told = None if failed is None else partial(_told, failed, start)
            for place, data in originals.read(here.tolist(), told):
                yield replace(place, sample=place.sample + start), data


def _told(failed: Failed, start: int, place: Place, error: RereadError) -> None:
    failed(replace(place, sample=place.sample + start), error)


def _earlier(config: RunConfig) -> dict[str, str]:
    """The paths of the runs that a run updates, by how its manifest names them."""
    return {each.name: each.path for each in config.references if each.role == "earlier"}


def _same_model(spec: str, earlier: RunFolder, config: RunConfig, name: str) -> bool:
    """Whether vectors of an earlier run are by the model of a specification; assumed of vectors made elsewhere."""
    other = config.embedders[name]
    if any(parse_spec(each).made_elsewhere for each in (spec, other)):
        return True
    try:
        return (spec == other or embedder_key(spec) == embedder_key(other)) and made_by_model(earlier, config, name)
    except (DedupkitError, OSError):  # a file of the model is gone
        return False
