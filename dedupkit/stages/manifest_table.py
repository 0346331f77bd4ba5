"""manifest.parquet: one row per input sample."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from dedupkit.clustering import Decision
from dedupkit.signals.equal import bytes_of
from dedupkit.store import give_back_pages, in_blocks, read_columns, rows_by_file, write_tables

__all__ = [
    "DIGEST",
    "MANIFEST_SCHEMA",
    "Counts",
    "OutsideWitnesses",
    "iter_manifest",
    "keys_of",
    "write_manifest",
]

MANIFEST_SCHEMA = pa.schema(
    [
        ("sample", pa.int64()),
        ("source", pa.string()),
        ("key", pa.string()),
        ("uid", pa.string()),
        ("url", pa.string()),
        ("caption", pa.string()),
        ("sha256", pa.string()),
        ("pdq", pa.binary(32)),
        ("pdq_quality", pa.int16()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("nbytes", pa.int64()),
        ("format", pa.string()),
        ("verdict", pa.string()),
        ("reason", pa.string()),
        ("score", pa.float32()),
        ("kept_sample", pa.int64()),
        ("kept_key", pa.string()),
        ("group", pa.int64()),
        ("group_size", pa.int32()),
        ("captions", pa.list_(pa.struct([("caption", pa.string()), ("count", pa.int32())]))),
        ("kept_source", pa.string()),
    ]
)

_COPIED = ("key", "uid", "url", "caption", "pdq", "pdq_quality", "width", "height", "nbytes", "format")


_DIGITS = np.frombuffer(bytes(range(256)).hex().encode(), np.uint16)  # two digits by value of a byte
_TOGETHER = 1000  # rows of small shards whose verdicts are put together at once


@dataclass(frozen=True, slots=True)
class Counts:
    """How many samples got which verdict, and for what reason."""

    verdicts: dict[str, int]
    reasons: dict[str, int]


@dataclass(frozen=True, slots=True)
class OutsideWitnesses:
    """Witnesses that lie in an earlier run or a reference set.

    Attributes:
        samples: (k,) int64 ascending, the samples that they stand for.
        references: (k,) int64, the number of the run or reference.
        sources: (k,) strings, its name.
        numbers: (k,) int64, the witness's sample number there; in a list its line.
        keys: (k,) strings, its key there; in a list the entry.
        scores: (k,) float32, the score between the two.
    """

    samples: NDArray[np.int64]
    references: NDArray[np.int64]
    sources: pa.Array
    numbers: NDArray[np.int64]
    keys: pa.Array
    scores: NDArray[np.float32]

    @classmethod
    def gather(cls, parts: Iterable[OutsideWitnesses]) -> OutsideWitnesses:
        """All of some as one, in the order of the samples; each sample occurs once."""
        none, nothing = np.zeros(0, np.int64), pa.array([], pa.string())
        parts = [cls(none, none, nothing, none, nothing, np.zeros(0, np.float32)), *parts]
        samples = np.concatenate([part.samples for part in parts])
        order = np.argsort(samples, kind="stable")
        taken = pa.array(order)
        return cls(
            samples[order],
            np.concatenate([part.references for part in parts])[order],
            pa.concat_arrays([part.sources for part in parts]).take(taken),
            np.concatenate([part.numbers for part in parts])[order],
            pa.concat_arrays([part.keys for part in parts]).take(taken),
            np.concatenate([part.scores for part in parts])[order],
        )

    def of(self, rows: slice) -> tuple[pa.Array, pa.Array, pa.Array, pa.Array]:
        """Columns over the samples of a range, null where there is none: source, number, key, score."""
        low, high = np.searchsorted(self.samples, [rows.start, rows.stop])
        place = np.zeros(rows.stop - rows.start, np.int64)
        missing = np.ones(len(place), bool)
        mine = self.samples[low:high] - rows.start
        place[mine], missing[mine] = np.arange(low, high), False
        taken = pa.array(place, mask=missing)
        columns = (self.sources, pa.array(self.numbers), self.keys, pa.array(self.scores))
        source, number, key, score = (column.take(taken) for column in columns)
        return source, number, key, score


DIGEST = "dedupkit.decision"
"""Key in the Parquet metadata of the manifest and the groups: the digest of the decision that they hold."""


def write_manifest(path: Path, tables: Iterable[pa.Table], digest: str = "") -> Counts:
    """Write the verdict of every sample, a row group per shard, with two shards in memory at a time.

    Args:
        path: The manifest.
        tables: The manifest, as :func:`iter_manifest` gives it.
        digest: Digest of rule, policy and input, kept in the file's metadata.
    """
    verdicts: dict[str, int] = {}
    reason_counts: dict[str, int] = {}
    for table in write_tables(path, MANIFEST_SCHEMA.with_metadata({DIGEST: digest}), tables):
        _count(table["verdict"], verdicts)
        _count(table["reason"].filter(pc.equal(table["verdict"], "remove")), reason_counts)
    return Counts(verdicts, reason_counts)


def iter_manifest(
    samples: Sequence[Path],
    sources: Sequence[str],
    decision: Decision,
    reasons: Sequence[str],
    *,
    blocked: Mapping[int, str] | None = None,
    captions: Mapping[int, list[dict[str, Any]]] | None = None,
    outside: OutsideWitnesses | None = None,
) -> Iterator[pa.Table]:
    """The manifest, one table a shard, with one shard in memory at a time, or some small ones.

    Args:
        samples: Samples file of each shard, in order.
        sources: Path or URL of each shard.
        decision: Decision about all samples in that order; a witness beyond them lies in ``outside``.
        reasons: Name of each clause of the rule.
        blocked: Reason why a sample is blocked, by sample.
        captions: Captions that a kept sample carries instead of its own, by sample.
        outside: Witnesses in earlier runs and reference sets.
    """
    blocked, captions = blocked or {}, captions or {}
    outside = OutsideWitnesses.gather([]) if outside is None else outside
    sizes = decision.sizes()
    count = len(decision.witness)
    stands = np.zeros(count, bool)
    for _, some in in_blocks(decision.witness):
        stands[some[(some >= 0) & (some < count)]] = True
    witnesses = np.flatnonzero(stands).astype(np.int32)
    del stands
    witness_keys = keys_of(witnesses, samples)
    names = pa.array(list(reasons), pa.string())
    start = 0
    named = iter(sources)
    for tables in _together(samples):
        table = pa.concat_tables(tables)
        rows = slice(start, start + table.num_rows)
        start += table.num_rows
        witness = decision.witness[rows].copy()
        removed = witness >= 0
        witness[witness >= count] = -1
        kept_source, number, key, score = outside.of(rows)
        unreadable = table["error"].is_valid().combine_chunks()
        clause = names.take(pa.array(decision.clause[rows], mask=~removed))
        where = np.searchsorted(witnesses, witness)
        columns = {name: table[name] for name in _COPIED} | {
            "sample": pa.array(np.arange(rows.start, rows.stop)),
            "source": pa.concat_arrays([pa.repeat(next(named), each.num_rows) for each in tables]),
            "sha256": _hex(table["sha256"]),
            "verdict": pc.if_else(unreadable, "unreadable", pc.if_else(pa.array(removed), "remove", "keep")),
            "reason": pc.if_else(unreadable, table["error"].combine_chunks(), clause),
            "captions": _by_row(captions, rows, MANIFEST_SCHEMA.field("captions").type),
            "score": pc.coalesce(score, pa.array(decision.score[rows], mask=~removed)),
            "kept_sample": pc.coalesce(number, pa.array(witness.astype(np.int64), mask=witness < 0)),
            "kept_key": pc.coalesce(key, witness_keys.take(pa.array(where, mask=witness < 0)).cast(pa.string())),
            "kept_source": kept_source,
            "group": pa.array(decision.group[rows].astype(np.int64)),
            "group_size": pa.array(sizes[decision.group[rows]]),
        }
        why = _by_row(blocked, rows, pa.string())
        if why.null_count < len(why):
            columns["reason"] = pc.coalesce(why, columns["reason"])
            columns["verdict"] = pc.if_else(why.is_valid(), "blocked", columns["verdict"])
        made = pa.table([columns[name] for name in MANIFEST_SCHEMA.names], schema=MANIFEST_SCHEMA)
        ends = np.cumsum([each.num_rows for each in tables]).tolist()
        yield from (made.slice(end - each.num_rows, each.num_rows) for each, end in zip(tables, ends, strict=True))
        give_back_pages(decision.witness, decision.clause, decision.score, decision.group)


def _together(samples: Iterable[Path]) -> Iterator[list[pa.Table]]:
    """The samples of one large shard after the other, or of some small ones."""
    tables: list[pa.Table] = []
    rows = 0
    for file in samples:
        tables.append(read_columns(file))
        rows += tables[-1].num_rows
        if rows >= _TOGETHER:
            yield tables
            tables, rows = [], 0
    if tables:
        yield tables


def _by_row(values: Mapping[int, Any], rows: slice, kind: pa.DataType) -> pa.Array:
    """A column of what some samples have, null for the others."""
    if not values:
        return pa.nulls(rows.stop - rows.start, kind)
    return pa.array([values.get(sample) for sample in range(rows.start, rows.stop)], kind)


def keys_of(wanted: NDArray[np.integer], samples: Sequence[Path]) -> pa.Array:
    """The keys of some samples, ascending, without holding all keys at once; large strings, for they may be many."""
    return pa.concat_arrays([pa.array([], pa.large_string()), *_key_parts(wanted, samples)])


def _key_parts(wanted: NDArray[np.integer], samples: Sequence[Path]) -> Iterator[pa.Array]:
    for file, _, _, mine in rows_by_file(samples, wanted):
        yield read_columns(file, ["key"])["key"].combine_chunks().take(pa.array(mine)).cast(pa.large_string())


def _hex(column: pa.ChunkedArray) -> pa.Array:
    """A column of bytes of a fixed width as hexadecimal text."""
    values = column.combine_chunks()
    width = 2 * values.type.byte_width
    text = _DIGITS[bytes_of(pc.fill_null(values, bytes(values.type.byte_width)))]
    ends = pa.array(np.arange(len(values) + 1, dtype=np.int32) * np.int32(width))
    whole = pa.StringArray.from_buffers(len(values), ends.buffers()[1], pa.py_buffer(text.tobytes()))
    return pc.if_else(values.is_valid(), whole, None)


def _count(values: pa.ChunkedArray, into: dict[str, int]) -> None:
    for item in pc.value_counts(values).to_pylist():
        into[item["values"]] = into.get(item["values"], 0) + item["counts"]
