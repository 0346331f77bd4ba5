"""The join of a hash as many tasks, which leave files for one another below ``edges/NAME/parts``.

First the distinct fingerprints, each task those of one range of their bytes; then one file of all of them; then the
pairs, each task those of one chunk and one range of its keys (:mod:`dedupkit.neighbors.hamming.ranges`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dedupkit.engine import Task, cache_key
from dedupkit.errors import DedupkitError
from dedupkit.neighbors.hamming.crops import nearest_views
from dedupkit.neighbors.hamming.dihedral import transpose
from dedupkit.neighbors.hamming.join import MOST_ROWS
from dedupkit.neighbors.hamming.ranges import (
    HashFiles,
    KeyRange,
    Search,
    cut,
    join_range,
    memory_of,
    readings,
    seconds_of,
)
from dedupkit.runfolder.folder import RunFolder
from dedupkit.signals.columns import Scanned, Written, usable_values, write_edges
from dedupkit.signals.equal import as_values, bytes_of, first_equal, part_of
from dedupkit.signals.expected import Expected
from dedupkit.signals.matches import leading
from dedupkit.store import atomic_path, read_columns

if TYPE_CHECKING:
    from dedupkit.signals.columns import Edges
    from dedupkit.signals.hamming import HashSignal
    from dedupkit.signals.signal import JoinSettings, Steps

__all__ = ["expected_steps", "hash_steps", "join_piece", "write_distinct", "write_whole"]

PART_BYTES = 128_000_000
"""Bytes of fingerprints that a task collects, where none are equal."""

_HELD = 5  # times as many bytes it holds, about

_FORMAT = 1  # raise it when what these tasks write changes
_COPIED = 1 << 18  # rows at a time


def hash_steps(signal: HashSignal, scanned: Scanned, settings: JoinSettings, key: str, samples: int) -> Steps:
    """The tasks of a join; see :meth:`dedupkit.signals.Signal.steps`.

    Raises:
        DedupkitError: There are more distinct hashes than a join can number.
    """
    folder, name, stage = scanned.folder, signal.name, f"match-{signal.name}"
    home, key = folder.parts(name), cache_key([_FORMAT, key])
    parts = _parts(signal, samples)
    read = tuple(str(folder.samples(shard)) for shard in range(scanned.shards))
    distinct = []
    for part in range(parts):
        made = (str(home / f"codes-{part:05d}.npy"), str(home / f"samples-{part:05d}.npy"))
        call = partial(write_distinct, made, signal, str(folder.path), scanned.shards, (part, parts))
        about = f"{name}: distinct hashes, part {part + 1} of {parts}"
        distinct.append(Task(stage, f"distinct-{part:05d}", call, cache_key([key, part, parts]), about, made, read))
    rows = signal.hashes * sum(made["distinct"] for made in (yield distinct))
    if rows > MOST_ROWS:
        raise DedupkitError(
            f"{name} has {rows:,} distinct hashes here, and one run joins at most {MOST_ROWS:,}: run a part of the "
            "shards, and add the others with dedupkit update, one part after the other"
        )

    pieces = [task.outputs for task in distinct]
    whole = [str(home / "codes.npy"), str(home / "samples.npy"), *([str(home / "turned.npy")] if signal.turned else [])]
    call = partial(write_whole, whole, pieces)
    task_key, needed = cache_key([key, parts]), tuple(path for piece in pieces for path in piece)
    (facts,) = yield [Task(stage, "whole", call, task_key, f"{name}: all distinct hashes", tuple(whole), needed)]

    search = _search(signal, facts["rows"], settings)
    joins = []
    for number, piece in enumerate(cut(search)):
        to = str(folder.edges(name, number))
        call = partial(join_piece, to, whole, signal.hashes, search, piece)
        about = f"{name}: chunk {piece.chunk} of half {piece.half}, range {piece.top} of {1 << piece.bits}"
        task_key = cache_key([key, parts, search, list(piece)])
        joins.append(Task(stage, f"{number:05d}", call, task_key, about, (to,), tuple(whole)))
    done = yield joins
    return {"distinct": facts["distinct"], **Written.together(done)._asdict(), "bound": settings.bound}


def expected_steps(signal: HashSignal, samples: int, settings: JoinSettings) -> Expected:
    """What these tasks take where no two hashes are equal; see :meth:`dedupkit.signals.Signal.expected`."""
    parts, search = _parts(signal, samples), _search(signal, samples * signal.hashes, settings)
    pieces, size = cut(search), search.rows * signal.bits // 8
    copies = 2 if search.turned else 1
    nbytes = size * (parts + copies + sum(readings(search, piece) for piece in pieces))
    memory = max(_HELD * min(size, PART_BYTES), *(memory_of(search, piece) for piece in pieces))
    return Expected(sum(seconds_of(search, piece) for piece in pieces), parts + 1 + len(pieces), nbytes, memory)


def _parts(signal: HashSignal, samples: int) -> int:
    """Number of tasks that collect distinct hashes."""
    return max(1, -(-samples * signal.hashes * signal.bits // 8 // PART_BYTES))


def _search(signal: HashSignal, rows: int, settings: JoinSettings) -> Search:
    return Search(rows, signal.bits // 64, int(settings.bound), signal.turned, blank=signal.hashes > 1)


def write_distinct(
    to: tuple[str, str], signal: HashSignal, out: str, shards: int, part: tuple[int, int]
) -> dict[str, Any]:
    """Collect the distinct fingerprints of one range of bytes; a task of the engine.

    Args:
        to: Where the hashes go, (k * hashes, words) uint64, and the first samples that have them, (k,) int64.
        signal: The signal.
        out: The run folder.
        shards: Number of its shards.
        part: Number of the range, and of all.

    Returns:
        ``distinct`` fingerprints.
    """
    folder, columns = RunFolder(Path(out)), tuple(dict.fromkeys((signal.column, *signal.also)))
    found = [np.zeros((0, signal.hashes * signal.bits // 8), np.uint8)]
    samples = [np.zeros(0, np.int64)]
    start = 0
    for shard in range(shards):
        table = read_columns(folder.samples(shard), columns)
        rows, column = usable_values(table, signal.column, signal.usable)
        values = bytes_of(column)
        mine = part_of(values, part[1]) == part[0]
        first, values = _collapsed(values[mine])
        found.append(values)
        samples.append(start + rows[mine][first].astype(np.int64))
        start += table.num_rows
    first, values = _collapsed(np.concatenate(found))
    for path, array in zip(to, (signal.codes(values), np.concatenate(samples)[first]), strict=True):
        with atomic_path(Path(path)) as temporary, temporary.open("wb") as stream:
            np.save(stream, array)
    return {"distinct": len(first)}


def _collapsed(values: NDArray[np.uint8]) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
    """The distinct rows in the order in which they first occur, after their places."""
    first = leading(first_equal(as_values(values)))
    return first, values[first]


def write_whole(to: Sequence[str], pieces: Sequence[Sequence[str]]) -> dict[str, Any]:
    """Join the files of all ranges into one; a task of the engine.

    Args:
        to: Where the hashes go, the samples, and, if any orientation counts, the transposed hashes.
        pieces: Hashes and samples of each range.

    Returns:
        ``rows``, the number of hashes, and ``distinct`` fingerprints.
    """
    codes, samples = ([piece[kind] for piece in pieces] for kind in (0, 1))
    rows, distinct = _append(to[0], codes), _append(to[1], samples)
    if len(to) > 2:
        _append(to[2], codes, transpose)
    return {"rows": rows, "distinct": distinct}


def _append(to: str, paths: Sequence[str], made: Callable[[Any], Any] = np.ascontiguousarray) -> int:
    parts = [np.load(path, mmap_mode="r") for path in paths]
    rows = sum(map(len, parts))
    header = {
        "descr": np.lib.format.dtype_to_descr(parts[0].dtype),
        "fortran_order": False,
        "shape": (rows, *parts[0].shape[1:]),
    }
    with atomic_path(Path(to)) as temporary, temporary.open("wb") as stream:
        np.lib.format.write_array_header_1_0(stream, header)
        for part in parts:
            for first in range(0, len(part), _COPIED):
                stream.write(np.ascontiguousarray(made(part[first : first + _COPIED])).data)
    return rows


def join_piece(to: str, whole: Sequence[str], hashes: int, search: Search, piece: KeyRange) -> dict[str, Any]:
    """Write the pairs of one chunk and one range of its keys; a task of the engine.

    Args:
        to: The file of edges.
        whole: What :func:`write_whole` wrote.
        hashes: Number of hashes in a fingerprint.
        search: What is sought.
        piece: Which part of it.

    Returns:
        ``edges`` written and their ``content``.
    """
    samples = np.load(whole[1], mmap_mode="r")
    codes = np.load(whole[0], mmap_mode="r")
    files = HashFiles(Path(whole[0]), Path(whole[2]) if search.turned else None)

    def blocks() -> Any:
        for hits in join_range(files, search, piece):
            pairs = hits if hashes == 1 else nearest_views(codes, hits, hashes)
            block: Edges = (samples[pairs.a], samples[pairs.b], pairs.distance.astype(np.float32))
            yield block

    return write_edges(Path(to), blocks())._asdict()
