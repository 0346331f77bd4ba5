"""manifest.parquet and groups.parquet: one row per input sample, one row per duplicate group."""

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
from dedupkit.signals.columns import bytes_of
from dedupkit.store import parquet_writer, read_columns, rows_by_file

__all__ = [
    "DIGEST",
    "GROUPS_SCHEMA",
    "MANIFEST_SCHEMA",
    "Counts",
    "OutsideWitnesses",
    "iter_groups",
    "iter_manifest",
    "keys_of",
    "write_groups",
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

GROUPS_SCHEMA = pa.schema(
    [
        ("group", pa.int64()),
        ("size", pa.int32()),
        ("kept", pa.int32()),
        ("removed", pa.int32()),
        ("samples", pa.list_(pa.int64())),
        ("kept_samples", pa.list_(pa.int64())),
        ("captions", pa.int32()),
        ("caption", pa.string()),
        ("caption_count", pa.int32()),
    ]
)

_COPIED = ("key", "uid", "url", "caption", "pdq", "pdq_quality", "width", "height", "nbytes", "format")


_DIGITS = np.frombuffer(bytes(range(256)).hex().encode(), np.uint16)  # two digits by value of a byte
_ROW_GROUP = 1 << 20  # rows of a row group of groups.parquet
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
        sources: (k,) strings, the run or reference.
        numbers: (k,) int64, the witness's sample number there; in a list its line.
        keys: (k,) strings, its key there; in a list the entry.
        scores: (k,) float32, the score between the two.
    """

    samples: NDArray[np.int64]
    sources: pa.Array
    numbers: NDArray[np.int64]
    keys: pa.Array
    scores: NDArray[np.float32]

    @classmethod
    def gather(cls, parts: Iterable[OutsideWitnesses]) -> OutsideWitnesses:
        """All of some as one, in the order of the samples; each sample occurs once."""
        parts = [cls(*(np.zeros(0, np.int64), pa.array([], pa.string())) * 2, np.zeros(0, np.float32)), *parts]
        samples = np.concatenate([part.samples for part in parts])
        order = np.argsort(samples, kind="stable")
        taken = pa.array(order)
        return cls(
            samples[order],
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
    """Write the verdict of every sample, a row group per shard, with one shard in memory at a time.

    Args:
        path: The manifest.
        tables: The manifest, as :func:`iter_manifest` gives it.
        digest: Digest of rule, policy and input, kept in the file's metadata.
    """
    verdicts: dict[str, int] = {}
    reason_counts: dict[str, int] = {}
    schema = MANIFEST_SCHEMA.with_metadata({DIGEST: digest})
    with parquet_writer(path, schema) as writer:
        for table in tables:
            writer.write_table(table.replace_schema_metadata(schema.metadata))
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
    stands[decision.witness[(decision.witness >= 0) & (decision.witness < count)]] = True
    witnesses = np.flatnonzero(stands)
    del stands
    witness_keys = keys_of(witnesses, samples)
    names = pa.array(list(reasons), pa.string())
    start = 0
    named = iter(sources)
    for tables in _together(samples):
        table = pa.concat_tables(tables)
        rows = slice(start, start + table.num_rows)
        start += table.num_rows
        witness = decision.witness[rows].astype(np.int64)
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
            "kept_sample": pc.coalesce(number, pa.array(witness, mask=witness < 0)),
            "kept_key": pc.coalesce(key, witness_keys.take(pa.array(where, mask=witness < 0))),
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


def write_groups(path: Path, tables: Iterable[pa.Table], digest: str = "") -> tuple[int, int]:
    """Write the groups of two samples or more, in the order of their smallest sample.

    Args:
        path: The file.
        tables: The groups, as :func:`iter_groups` gives them.
        digest: Digest of rule, policy and input, kept in the file's metadata.

    Returns:
        The number of groups and the size of the largest (1 where there is none).
    """
    count, largest = 0, 1
    with parquet_writer(path, GROUPS_SCHEMA.with_metadata({DIGEST: digest})) as writer:
        for table in tables:
            writer.write_table(table.replace_schema_metadata({DIGEST: digest}))
            count, largest = count + table.num_rows, max(largest, pc.max(table["size"]).as_py() or 1)
    return count, largest


def iter_groups(
    decision: Decision, readable: NDArray[np.bool_], captions: pa.Table | None = None
) -> Iterator[pa.Table]:
    """The groups of two samples or more in the order of their smallest sample, a million in each table.

    Args:
        decision: Decision about all samples.
        readable: (n,) bool, whether a sample took part.
        captions: Columns ``group`` (ascending), ``captions`` (distinct ones), ``caption`` (the most frequent) and
            ``caption_count``, for the groups that have any.
    """
    sizes = decision.sizes()
    groups = np.flatnonzero(sizes > 1)
    for low in range(0, max(len(groups), 1), _ROW_GROUP):
        ids = groups[low : low + _ROW_GROUP]
        first, last = (int(ids[0]), int(ids[-1])) if len(ids) else (0, -1)
        members = np.flatnonzero((decision.group >= first) & (decision.group <= last))
        members = members[sizes[decision.group[members]] > 1]
        by_group = members[np.argsort(decision.group[members], kind="stable")]
        yield _groups_of(ids, sizes[ids], by_group, (decision.witness[by_group] < 0) & readable[by_group], captions)


def _groups_of(
    ids: NDArray[np.int64],
    counts: NDArray[np.int32],
    by_group: NDArray[np.int64],
    is_kept: NDArray[np.bool_],
    captions: pa.Table | None,
) -> pa.Table:
    """Some groups as a table, from their members in order and which of these are kept."""
    starts = np.concatenate([[0], np.cumsum(counts)])
    kept = np.add.reduceat(is_kept, starts[:-1], dtype=np.int32) if len(ids) else np.zeros(0, np.int32)
    kept_starts = np.concatenate([[0], np.cumsum(kept)])
    number, caption, often = _caption_columns(ids, captions)
    return pa.table(
        [
            pa.array(ids),
            pa.array(counts),
            pa.array(kept),
            pa.array(counts - kept),
            pa.ListArray.from_arrays(pa.array(starts.astype(np.int32)), pa.array(by_group)),
            pa.ListArray.from_arrays(pa.array(kept_starts.astype(np.int32)), pa.array(by_group[is_kept])),
            number,
            caption,
            often,
        ],
        schema=GROUPS_SCHEMA,
    )


def _caption_columns(groups: NDArray[np.int64], known: pa.Table | None) -> list[pa.Array]:
    """What is known of the captions of some groups, in their order."""
    kinds = [GROUPS_SCHEMA.field(name).type for name in ("captions", "caption", "caption_count")]
    if known is None or not known.num_rows:
        none = np.zeros(len(groups), np.int32)
        return [pa.array(none), pa.nulls(len(groups), kinds[1]), pa.array(none)]
    place = np.minimum(np.searchsorted(known["group"].to_numpy(), groups), known.num_rows - 1)
    where = pa.array(place, mask=known["group"].to_numpy()[place] != groups)
    number, caption, often = (
        known[name].combine_chunks().cast(kind).take(where)
        for name, kind in zip(("captions", "caption", "caption_count"), kinds, strict=True)
    )
    return [pc.fill_null(number, 0), caption, pc.fill_null(often, 0)]


def keys_of(wanted: NDArray[np.int64], samples: Sequence[Path]) -> pa.Array:
    """The keys of some samples, ascending, without holding all keys at once."""
    parts = list(_key_parts(wanted, samples))
    return pa.concat_arrays(parts) if parts else pa.array([], pa.string())


def _key_parts(wanted: NDArray[np.int64], samples: Sequence[Path]) -> Iterator[pa.Array]:
    for file, _, _, mine in rows_by_file(samples, wanted):
        yield read_columns(file, ["key"])["key"].combine_chunks().take(pa.array(mine))


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
