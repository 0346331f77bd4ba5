"""What the run folder says about each signal: columns of all samples, and edges."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from dedupkit.clustering import Signal
from dedupkit.runfolder.folder import RunFolder
from dedupkit.signals.table import MIN_PDQ_QUALITY, SIGNALS
from dedupkit.store import atomic_path, read_columns

__all__ = ["hash_column", "load_signal", "read_column", "write_edges"]


def read_column(folder: RunFolder, shards: int, *names: str) -> pa.Table:
    """Some columns of all samples, in the order of the manifest."""
    return pa.concat_tables(read_columns(folder.samples(shard), names) for shard in range(shards))


def hash_column(folder: RunFolder, shards: int, signal: str) -> tuple[NDArray[np.int32], NDArray[np.uint8]]:
    """One signal's fingerprints, equal ones collapsed.

    Returns:
        For each sample the smallest sample with the same fingerprint, (n,) int32, -1 where it has none; and the
        distinct fingerprints, (k, bytes) uint8, in the order in which they first occur.
    """
    import pyarrow.compute as pc

    names = ("pdq", "pdq_quality") if signal == "pdq" else ("sha256" if signal == "exact" else signal, "error")
    table = read_column(folder, shards, *names)
    # A row with an error takes no part, even where its bytes could be hashed.
    usable = pc.greater_equal(table["pdq_quality"], MIN_PDQ_QUALITY) if signal == "pdq" else table["error"].is_null()
    column = table[names[0]].combine_chunks()
    usable = pc.and_(pc.fill_null(usable, False), column.is_valid())  # flat images have no crops
    rows = np.flatnonzero(usable.to_numpy()).astype(np.int32)
    encoded = column.take(pa.array(rows)).dictionary_encode()
    indices = encoded.indices.to_numpy()
    first = np.empty(len(encoded.dictionary), np.int32)
    first[indices[::-1]] = rows[::-1]  # the last write is the smallest sample
    label = np.full(table.num_rows, -1, np.int32)
    label[rows] = first[indices]
    width = column.type.byte_width
    distinct = encoded.dictionary
    flat = np.frombuffer(distinct.buffers()[1], np.uint8)[distinct.offset * width :][: len(distinct) * width]
    return label, flat.reshape(-1, width)


def load_signal(folder: RunFolder, shards: int, signal: str) -> Signal:
    """A signal as ``decide`` takes it."""
    if SIGNALS.get(signal) is None:  # an embedder
        first = np.load(folder.labels(signal))
    else:
        first, _ = hash_column(folder, shards, "exact" if signal == "verified" else signal)
    if signal in ("exact", "pixels"):
        return Signal.identity(first)
    table = read_columns(folder.edges(signal))
    a, b, score = (table[name].to_numpy() for name in ("a", "b", "score"))
    return Signal(first, a.astype(np.int32), b.astype(np.int32), score.astype(np.float32))


def write_edges(path: Path, blocks: Iterable[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]]) -> int:
    """Write scored pairs of samples (a < b), block by block; returns their number."""
    schema = pa.schema([("a", pa.int64()), ("b", pa.int64()), ("score", pa.float32())])
    count = 0
    with atomic_path(path) as temporary, pq.ParquetWriter(temporary, schema, compression="zstd") as writer:
        for a, b, score in blocks:
            writer.write_table(pa.table([np.minimum(a, b), np.maximum(a, b), score], schema=schema))
            count += len(a)
    return count
