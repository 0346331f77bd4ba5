"""Write what a manifest keeps: cleaned shards, or lists of what to keep.

Shards are written in parallel and resumed like every stage; the source is read again, and what is copied is held
against the SHA-256 in the manifest, so that data which changed after the run is refused instead of mislabelled.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pyarrow.parquet as pq

from dedupkit.engine import Progress, Task, fingerprint, run_tasks
from dedupkit.errors import DedupkitError
from dedupkit.manifest.lists import LISTS
from dedupkit.manifest.names import archive_name, short_key
from dedupkit.manifest.shards import SHARD_WRITERS
from dedupkit.runfolder.folder import RunFolder
from dedupkit.sources import Sample, Shard
from dedupkit.sources.again import Moved, moved_to
from dedupkit.sources.reread import Originals, Scanned, read_samples
from dedupkit.store import atomic_path, read_columns, read_json, refuse_inside, stamp, sweep, write_json

__all__ = ["FORMATS", "apply", "write_part"]

FORMATS = (*SHARD_WRITERS, *LISTS)

# One output shard: pieces (input shard, first, last) that count the kept samples of that input shard.
_Part = list[tuple[int, int, int]]


def apply(
    run: str | Path,
    to: str | Path,
    *,
    format: str = "webdataset",
    workers: int | None = None,
    source: Moved | None = None,
) -> dict[str, Any]:
    """Write the kept samples of a run.

    Args:
        run: a finished run folder.
        to: a new or empty folder, or one that this run was applied to before (then it goes on, or replaces it).
        format: ``webdataset`` (tars of about the source's size, ``sizes.json``, ``_stats.json``), ``parquet`` (with
            the images), ``urls``, ``datacomp`` or ``keys``.
        workers: processes; all cores by default.
        source: Where the data lies now, if it moved since the run; or a mapping from old to new starts of paths.

    Returns:
        ``samples`` and ``files`` written, ``format`` and ``to``.

    Raises:
        DedupkitError: an unknown format, a folder that holds something else, a source that moved or changed.
        OSError: the folder cannot be written.
    """
    if format not in FORMATS:
        raise DedupkitError(f"unknown format {format!r}; known: {', '.join(FORMATS)}")
    run, to = Path(run), Path(to)
    config = read_json(run / "run.json") or {}
    manifest = run / "manifest.parquet"
    if not manifest.exists():
        raise DedupkitError(f"{run} holds no finished run (no manifest.parquet)")
    refuse_inside(to, [*config["sources"], *config["shards"], *moved_to(source)])
    state = run / ".done" / f"apply-{fingerprint(str(to.absolute()))}"
    _claim(to, state / "plan.json", format)
    if format in LISTS:
        name = {"urls": "urls.parquet", "datacomp": "subset.npy", "keys": "keys.tsv"}[format]
        _replace_plan(to, state / "plan.json", format, [name])
        return {"samples": LISTS[format](manifest, to), "files": 1, "format": format, "to": str(to)}
    originals = Originals(RunFolder(run), source)
    parts = _plan(run, manifest, len(originals.shards))
    suffix = SHARD_WRITERS[format].suffix
    names = [f"{number:05d}{suffix}" for number in range(len(parts))]
    beside = [f"{number:05d}_stats.json" for number in range(len(parts))] + ["sizes.json"]
    _replace_plan(to, state / "plan.json", format, names + (beside if format == "webdataset" else []))
    tasks = [
        Task(
            state.name,
            f"{number:05d}",
            "dedupkit.manifest.export:write_part",
            {
                "run": str(run),
                "pieces": [(originals.shard(shard), shard, first, last) for shard, first, last in part],
                "path": str(to / names[number]),
                "format": format,
                "what": names[number],
            },
            fingerprint([stamp(str(manifest)), format, part]),
        )
        for number, part in enumerate(parts)
    ]
    for task, name in zip(tasks, names, strict=True):
        if not (to / name).exists():
            task.marker(run).unlink(missing_ok=True)
    with Progress("apply", len(tasks), "samples") as progress:
        results = run_tasks(
            tasks,
            run,
            workers=workers or os.cpu_count() or 1,
            on_done=lambda _, result: progress.advance(result["samples"]),
        )
    counts = [result["samples"] for result in results]
    if format == "webdataset":
        write_json(to / "sizes.json", dict(zip(names, counts, strict=True)))
    return {"samples": sum(counts), "files": len(names), "format": format, "to": str(to)}


def write_part(
    run: str,
    pieces: Sequence[tuple[Shard, int, int, int]],
    path: str,
    format: str,
    what: str,
) -> dict[str, Any]:
    """Write one output shard; a task of the engine."""
    del what
    writer = SHARD_WRITERS[format]
    count = 0
    with atomic_path(Path(path)) as temporary, writer(temporary) as output:
        for shard, number, first, last in pieces:
            for sample, row in _kept(Path(run), shard, number, first, last):
                output.add(sample, row)
                count += 1
    writer.finish(Path(path), count)
    return {"samples": count}


def _kept(run: Path, shard: Shard, number: int, first: int, last: int) -> Iterator[tuple[Sample, dict[str, Any]]]:
    """Kept samples number ``first`` to ``last`` of one shard, each with its row in the manifest."""
    start, stop = _row_ranges(run, number + 1)[number]
    columns = ["key", "source", "verdict", "sha256", "caption", "url", "uid", "width", "height"]
    only = [("sample", ">=", start), ("sample", "<", stop)]
    rows = read_columns(run / "manifest.parquet", columns, only).to_pylist()
    wanted: list[Scanned | None] = [None] * len(rows)
    kept = [number for number, row in enumerate(rows) if row["verdict"] == "keep"]
    for number in kept[first:last]:
        wanted[number] = Scanned(rows[number]["key"], bytes.fromhex(rows[number]["sha256"]))
    for number, sample in read_samples(shard, wanted):
        yield sample, rows[number]


def _row_ranges(run: Path, shards: int) -> list[tuple[int, int]]:
    """For each input shard the rows of the manifest that are its samples."""
    ranges, start = [], 0
    for number in range(shards):
        rows = pq.read_metadata(run / "samples" / f"{number:05d}.parquet").num_rows
        ranges.append((start, start + rows))
        start += rows
    return ranges


def _plan(run: Path, manifest: Path, shards: int) -> list[_Part]:
    """Cut the kept samples, in order, into output shards of about the size of the input's.

    A new shard begins early where the next input shard has a key that the current one already holds: keys stay as
    they are, and a tar must not hold one twice.
    """
    table = read_columns(manifest, ["verdict"])
    ranges = _row_ranges(run, shards)
    kept_per_shard = [
        pc.sum(pc.equal(table["verdict"].slice(start, stop - start), "keep")).as_py() or 0 for start, stop in ranges
    ]
    total = sum(kept_per_shard)
    source_size = max(1, sum(stop - start for start, stop in ranges) // max(1, sum(b > a for a, b in ranges)))
    count = max(1, round(total / source_size))
    size = max(1, -(-total // count))
    parts: list[_Part] = []
    part: _Part = []
    filled = 0
    held: set[str] = set()
    for shard, available in enumerate(kept_per_shard):
        done = 0
        while done < available:
            take = min(size - filled, available - done)
            if part or take < available:  # more than one input shard can meet in this output shard
                keys = _kept_keys(manifest, ranges[shard])[done : done + take]
                if part and not held.isdisjoint(keys):
                    parts, part, filled, held = [*parts, part], [], 0, set()
                    continue
                held.update(keys)
            elif filled + take < size:
                held.update(_kept_keys(manifest, ranges[shard]))
            part.append((shard, done, done + take))
            done, filled = done + take, filled + take
            if filled == size:
                parts, part, filled, held = [*parts, part], [], 0, set()
    return [*parts, part] if part else parts


def _kept_keys(manifest: Path, rows: tuple[int, int]) -> list[str]:
    """Keys of the kept samples among some rows, as they are written."""
    only = [("sample", ">=", rows[0]), ("sample", "<", rows[1]), ("verdict", "=", "keep")]
    table = read_columns(manifest, ["key"], only)
    return [archive_name(short_key(key, key.rpartition(".")[2].lower())) for key in table["key"].to_pylist()]


def _claim(to: Path, plan: Path, format: str) -> None:
    if to.exists() and not to.is_dir():
        raise DedupkitError(f"{to} is a file; --to takes a folder")
    if to.exists() and any(to.iterdir()) and not plan.exists():
        raise DedupkitError(f"{to} is not empty and was not written from this run; choose another --to")
    earlier = (read_json(plan) or {}).get("format", format)
    if to.exists() and any(to.iterdir()) and earlier != format:
        raise DedupkitError(f"{to} holds this run as {earlier}; choose another --to for {format}")
    to.mkdir(parents=True, exist_ok=True)


def _replace_plan(to: Path, plan: Path, format: str, names: list[str]) -> None:
    """Remember what is written, and remove what an earlier call wrote and this one does not."""
    for stale in set((read_json(plan) or {}).get("files", [])) - set(names):
        (to / stale).unlink(missing_ok=True)
    sweep(to)
    write_json(plan, {"format": format, "files": names})
