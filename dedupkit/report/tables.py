"""The manifest and the groups as a report reads them: few columns, a row group at a time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from dedupkit.manifest.rows import taken_rows
from dedupkit.manifest.shown import clip
from dedupkit.report.facts import Sample
from dedupkit.runfolder.folder import RunFolder
from dedupkit.runfolder.scanned import scan_problem
from dedupkit.store import count_rows

__all__ = ["REMOVED_COLUMNS", "Manifest", "Removed", "Tally", "removed_of", "shard_counts"]

_SHOWN = (
    "sample", "source", "key", "caption", "width", "height", "nbytes", "format", "verdict", "reason", "score",
    "kept_sample", "kept_key", "kept_source",
)  # fmt: skip
REMOVED_COLUMNS = ("sample", "kept_sample", "kept_source", "score", "reason")
"""What is read of removed samples."""

_EXAMPLES = 5
_SHORTEST_NAME = 5  # a key shorter than this can be part of any message


@dataclass(frozen=True, slots=True)
class Removed:
    """The removed samples, by number.

    Attributes:
        sample: (n,) int64, ascending.
        witness: (n,) int64, the kept sample that each duplicates; -1 where it lies in another run.
        score: (n,) float32.
        reason: (n,) int32, index into ``reasons``.
        reasons: Names, in alphabetical order.
    """

    sample: NDArray[np.int64]
    witness: NDArray[np.int64]
    score: NDArray[np.float32]
    reason: NDArray[np.int32]
    reasons: list[str]


@dataclass(slots=True)
class Tally:
    """What one pass over the manifest counts.

    Attributes:
        verdicts: Number of samples by verdict.
        reasons: Number of samples by verdict and reason. A sample's own name in the reason is shown as ``…``.
        examples: Numbers of the first few unreadable samples, by reason.
        removed: All removed samples.
    """

    verdicts: Counter[str] = field(default_factory=Counter)
    reasons: dict[str, Counter[str]] = field(default_factory=dict)
    examples: dict[str, list[int]] = field(default_factory=dict)
    removed: Removed = field(init=False)


class Manifest:
    """A manifest that is never held in memory as a whole.

    Args:
        path: ``manifest.parquet``. Row number and ``sample`` are the same there.
    """

    def __init__(self, path: Path) -> None:
        self._file = pq.ParquetFile(path)
        groups = range(self._file.metadata.num_row_groups)
        sizes = [self._file.metadata.row_group(group).num_rows for group in groups]
        self._starts = np.cumsum([0, *sizes])

    def tally(self) -> Tally:
        """Count verdicts and reasons, and note every removed sample (24 bytes each)."""
        tally = Tally()
        parts: list[pa.Table] = []
        for group in range(len(self._starts) - 1):
            table = self._file.read_row_group(group, [*REMOVED_COLUMNS, "verdict"])
            for item in pc.value_counts(table["verdict"].combine_chunks()).to_pylist():
                tally.verdicts[item["values"]] += item["counts"]
            unreadable = table.filter(pc.equal(table["verdict"], "unreadable"))
            if unreadable.num_rows:
                self._count_unreadable(tally, group, unreadable)
            for verdict in ("remove", "blocked"):
                counted = table.filter(pc.equal(table["verdict"], verdict))
                reason = pc.fill_null(counted["reason"], "unknown").combine_chunks()
                counts = {item["values"]: item["counts"] for item in pc.value_counts(reason).to_pylist()}
                tally.reasons.setdefault(verdict, Counter()).update(counts)
                if verdict == "remove":
                    place = REMOVED_COLUMNS.index("reason")
                    columns = counted.select(list(REMOVED_COLUMNS))
                    parts.append(columns.set_column(place, "reason", reason.dictionary_encode()))
        tally.removed = removed_of(parts)
        return tally

    def rows(self, samples: Iterable[int]) -> dict[int, Sample]:
        """Some samples as they are shown, by number; the relation to the witness is still unknown."""
        found: dict[int, Sample] = {}
        for table in self._taken(np.unique(np.fromiter(samples, np.int64)), list(_SHOWN)):
            for row in table.to_pylist():
                row["caption"] = clip(row["caption"])
                row["score"] = None if row["score"] is None else round(row["score"], 4)
                found[row["sample"]] = Sample(**row)
        return found

    def _taken(self, samples: NDArray[np.int64], columns: list[str]) -> Iterator[pa.Table]:
        return taken_rows(self._file, samples, columns)

    def _count_unreadable(self, tally: Tally, group: int, table: pa.Table) -> None:
        numbers = table["sample"].to_numpy()
        keys = self._file.read_row_group(group, ["key"])["key"].take(pa.array(numbers - self._starts[group]))
        counter = tally.reasons.setdefault("unreadable", Counter())
        for sample, key, reason in zip(numbers.tolist(), keys.to_pylist(), table["reason"].to_pylist(), strict=True):
            name = _without_name(reason or "unknown", key or "")
            counter[name] += 1
            examples = tally.examples.setdefault(name, [])
            if len(examples) < _EXAMPLES:
                examples.append(sample)


def _without_name(reason: str, key: str) -> str:
    """Reasons that differ only in the sample's name are one reason."""
    bare = key.partition("#")[0]
    if len(bare) >= _SHORTEST_NAME:
        reason = reason.replace(bare, "…")
    return clip(reason) or "unknown"


def removed_of(parts: list[pa.Table]) -> Removed:
    """Removed samples as arrays.

    Args:
        parts: The columns :data:`REMOVED_COLUMNS` of removed samples, in order; ``reason`` is dictionary-encoded.
    """
    if not any(part.num_rows for part in parts):
        none = np.zeros(0, np.int64)
        return Removed(none, none, np.zeros(0, np.float32), np.zeros(0, np.int32), [])
    table = pa.concat_tables(parts).unify_dictionaries().combine_chunks()
    encoded = table["reason"].chunk(0)
    names = encoded.dictionary.to_pylist()
    reasons = sorted(names)
    place = np.array([reasons.index(name) for name in names], np.int32)
    return Removed(
        table["sample"].to_numpy(),
        pc.if_else(pc.is_valid(table["kept_source"]), -1, pc.fill_null(table["kept_sample"], -1)).to_numpy(),
        pc.fill_null(table["score"], float("nan")).to_numpy(),
        place[encoded.indices.to_numpy()],
        reasons,
    )


def shard_counts(folder: RunFolder, sources: Sequence[str], verdicts: pa.ChunkedArray) -> pa.Table:
    """What became of each shard's samples.

    Args:
        folder: Folder of the run.
        sources: Name of each shard.
        verdicts: Verdict of every sample.

    Returns:
        One row a shard: ``source``, ``samples``, ``keep``, ``remove``, ``unreadable``, ``blocked``, ``problem``.
    """
    sizes = [count_rows(folder.samples(number)) for number in range(len(sources))]
    shard = np.repeat(np.arange(len(sources)), sizes)
    columns: dict[str, Any] = {"source": pa.array(sources, pa.string()), "samples": pa.array(sizes, pa.int64())}
    for verdict in ("keep", "remove", "unreadable", "blocked"):
        mine = shard[pc.equal(verdicts, verdict).to_numpy()]
        columns[verdict] = pa.array(np.bincount(mine, minlength=len(sources)))
    # Shards of one folder share its name; a problem names the shard by its number.
    problems = [scan_problem(folder, number) for number in range(len(sources))]
    return pa.table({**columns, "problem": pa.array(problems, pa.string())})
