"""Write what a manifest keeps: cleaned shards, or lists of what to keep.

Shards are written in parallel, on any engine. The source is read again, and what is copied is compared with the SHA-256
that the scan noted, so that data which changed after the run is refused instead of mislabelled. The run is held so that
nobody decides again in the middle, and the target so that two calls do not meet there.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import groupby
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from dedupkit.engine import Engine, Progress, Task, Where, cache_key, make_engine, only_helps
from dedupkit.engine.helper import Helper
from dedupkit.engine.marker import read_marker
from dedupkit.errors import DedupkitError
from dedupkit.manifest.captions import CarriedCaptions, carried_captions
from dedupkit.manifest.cut import Piece, ShardSizes, cut
from dedupkit.manifest.extra import extra_schema, with_captions_column
from dedupkit.manifest.lists import LISTS, write_urls
from dedupkit.manifest.names import archive_name, short_key
from dedupkit.manifest.part import Input, Output, load_writers, write_parts
from dedupkit.manifest.shards import SHARD_WRITERS
from dedupkit.manifest.target import Target
from dedupkit.runfolder import DecisionRecord, RunFolder
from dedupkit.sources.again import Moved, moved_to
from dedupkit.sources.reread import Originals
from dedupkit.startup.cores import worker_count
from dedupkit.store import is_remote, read_columns, refuse_inside, stamp

__all__ = ["FORMATS", "ShardSizes", "apply"]

FORMATS = (*SHARD_WRITERS, *LISTS)

_LAYOUT = 6  # raise it when a writer gives other bytes for the same samples


def apply(
    run: str | PathLike[str],
    to: str | Path,
    *,
    format: str = "webdataset",
    workers: int | None = None,
    shard_size: int | None = None,
    shards: int | None = None,
    source: Moved | None = None,
    caption_seed: int | None = None,
    engine: str = "local",
    address: str | None = None,
) -> dict[str, Any]:
    """Write the kept samples of a run.

    Args:
        run: A finished run folder.
        to: A new or empty folder, or its URL in an object store, or one that this run was applied to before (then the
            call goes on, or replaces what it wrote). Files that dedupkit did not write there are neither replaced nor
            removed.
        format: ``webdataset`` (tars, ``sizes.json``, ``_stats.json``), ``parquet`` (with the images), ``urls``,
            ``datacomp`` or ``keys``.
        workers: Number of processes; by default one for each core that this process may use, with 0 this process alone.
            The files do not depend on it.
        shard_size: Samples in each shard; about the source's size by default.
        shards: Number of shards of equal size, instead of ``shard_size``. There can be more: a shard ends early where
            the next one of the source repeats a key.
        caption_seed: Seed for drawing one of the captions that a kept sample carries (``--captions merge``); by default
            it keeps its own, and all of them stand in its JSON as ``captions``. For formats that hold captions.
        source: Where the data lies now, if it moved since the run; or a mapping from old to new starts of paths.
        engine: Where shards are written, :data:`dedupkit.engine.ENGINES`: ``local``; ``ray``; or ``rank`` for one of
            several processes that call this with the same arguments. See docs/running-at-scale.md.
        address: Address of the Ray cluster, with ``engine="ray"``; ``RAY_ADDRESS`` or this machine by default.

    Returns:
        ``samples`` and ``files`` written, ``format`` and ``to``; of a rank other than 0, which only helps, ``tasks``:
        how many it did.

    Raises:
        DedupkitError: An unknown format, a folder that holds something else or is in use, a run in use, a source that
            moved or changed.
        MissingExtraError: Ray is not installed.
        OSError: The folder cannot be written.

    ::

        dk.Run("runs/laion").apply("clean", shards=256)
    """
    if format not in FORMATS:
        raise DedupkitError(f"unknown format {format!r}; known: {', '.join(FORMATS)}")
    sizes = ShardSizes(shard_size, shards)
    if format in LISTS and sizes != ShardSizes():
        raise DedupkitError(f"{format} is one file; a shard size or number is for {' and '.join(SHARD_WRITERS)}")
    if format in LISTS and format != "urls" and caption_seed is not None:
        raise DedupkitError(f"{format} holds no captions; a caption seed is for {', '.join(SHARD_WRITERS)} and urls")
    if format in LISTS and engine != "local":
        raise DedupkitError(f"{format} is one file, which one process writes; leave out engine {engine!r}")
    folder, target = RunFolder(run, whole=not only_helps(engine)), Target(to)
    config = folder.read_config()
    refuse_inside(target.shown, [*config.sources, *config.shards], directory=config.directory)
    refuse_inside(target.shown, moved_to(source))
    place = make_engine(Where(engine, worker_count(workers), address), target.state)
    if isinstance(place, Helper):
        return {"tasks": place.help()}
    decision = folder.verdicts()
    claim = folder.applied(cache_key(target.shown if is_remote(target.shown) else str(target.path.resolve())))
    with folder.shared(), target.claimed(claim, format), place:
        folder.push([claim])
        _check_same(folder, decision)
        if format in LISTS:
            samples, files = _write_list(folder, target, format, caption_seed), 1
        else:
            place.start(len(config.shards), load_writers)
            samples, files = _write_shards(
                _Plan(folder, Originals(folder, source), format, sizes, caption_seed), target, place
            )
        _check_same(folder, decision)
    return {"samples": samples, "files": files, "format": format, "to": str(to)}


def _check_same(folder: RunFolder, decision: DecisionRecord) -> None:
    if DecisionRecord.read(folder.decision) != decision:
        raise DedupkitError(f"{folder.shown} was decided again meanwhile; give the same command again")


def _write_list(folder: RunFolder, target: Target, format: str, caption_seed: int | None) -> int:
    write, name = LISTS[format]
    write = partial(write_urls, caption_seed=caption_seed) if write is write_urls else write
    target.begin(format, [name])
    target.forget(name)
    samples = write(folder.manifest, target.path)
    target.record(name, "", [name])
    return samples


def _write_shards(plan: _Plan, target: Target, engine: Engine) -> tuple[int, int]:
    """Write the shards of a plan and what stands beside them; returns the numbers of samples and of shards."""
    writer = SHARD_WRITERS[plan.format]
    outputs = plan.outputs()
    sizes = {output.name: output.samples for output in outputs}
    beside = [name for output in outputs for name in writer.beside(output.name, output.samples)]
    index = writer.index(sizes)
    target.begin(plan.format, [*sizes, *beside, *index])
    tasks = [plan.task(target, part, outputs) for part in plan.tasks()]
    with target.work_folder() as markers, Progress("apply", len(tasks), "samples") as progress:

        def on_done(_: Task, result: dict[str, Any]) -> None:
            target.check()
            progress.advance(result["samples"])

        engine.run(tasks, markers, on_done=on_done, observe=progress.observe)
    target.write_beside(index)
    return sum(sizes.values()), len(outputs)


class _Plan:
    """What is written where; made once, from one reading of the verdicts."""

    def __init__(
        self, folder: RunFolder, originals: Originals, format: str, sizes: ShardSizes, caption_seed: int | None
    ) -> None:
        self.format = format
        self._captions = carried_captions(folder.manifest, caption_seed)
        self._carriers = np.array(sorted(self._captions), np.int64)
        self._folder, self._originals = folder, originals
        self._states: dict[int, list[Any]] = {}
        self._kept = np.split(_kept(folder), originals.starts[1:-1])
        counts = [int(kept.sum()) for kept in self._kept]
        rows = [len(kept) for kept in self._kept if len(kept)]
        limits = sizes.limits(sum(counts), sum(rows) // max(1, len(rows)))
        self.parts = cut(counts, limits, self._names)
        read = [originals.shard(shard) for shard, count in enumerate(counts) if count]
        self._extra = extra_schema(read if format == "parquet" else [])
        if any(carried.texts for carried in self._captions.values()):
            self._extra = with_captions_column(self._extra)

    def outputs(self) -> list[Output]:
        """The cleaned shards, in order."""
        suffix, width = SHARD_WRITERS[self.format].suffix, max(5, len(str(len(self.parts) - 1)))
        return [
            Output(f"{number:0{width}d}{suffix}", sum(piece.last - piece.first for piece in part), self._key(part))
            for number, part in enumerate(self.parts)
        ]

    def tasks(self) -> list[list[int]]:
        """Numbers of the cleaned shards that one task writes: those that begin in the same input shard.

        So no input shard is read more than twice, however small the cleaned shards are.
        """
        numbers = range(len(self.parts))
        return [list(group) for _, group in groupby(numbers, key=lambda number: self.parts[number][0].shard)]

    def task(self, target: Target, numbers: Sequence[int], outputs: Sequence[Output]) -> Task:
        """A task that writes some of the cleaned shards."""
        pieces = [piece for number in numbers for piece in self.parts[number]]
        inputs = [self._read(shard, list(here)) for shard, here in groupby(pieces, key=lambda piece: piece.shard)]
        mine = [outputs[number] for number in numbers]
        call = partial(write_parts, str(target.path), self.format, inputs, mine, self._extra)
        key = cache_key([output.key for output in mine])
        reads = (*(each.samples for each in inputs), *target.receipts(output.name for output in mine))
        return Task("apply", mine[0].name, call, key, inputs[0].source, inputs=reads)

    def _read(self, shard: int, pieces: Sequence[Piece]) -> Input:
        wanted = self._wanted(shard, pieces[0].first, pieces[-1].last)
        name = self._originals.names[shard]
        source = self._originals.shard(shard)
        return Input(source, name, str(self._folder.samples(shard)), wanted, self._carried(shard))

    def _carried(self, shard: int) -> dict[int, CarriedCaptions]:
        """The captions that samples of a shard carry, by their number in it."""
        begin, end = self._originals.starts[shard : shard + 2]
        low, high = np.searchsorted(self._carriers, [begin, end])
        return {int(sample - begin): self._captions[int(sample)] for sample in self._carriers[low:high]}

    def _wanted(self, shard: int, first: int, last: int) -> bytes:
        kept = self._kept[shard]
        wanted = np.zeros(len(kept), np.bool_)
        wanted[np.flatnonzero(kept)[first:last]] = True
        return np.packbits(wanted).tobytes()

    def _key(self, part: Sequence[Piece]) -> str:
        """A digest of everything that a cleaned shard is made from."""
        made_from: list[Any] = [_LAYOUT, self.format, str(self._extra)]
        for piece in part:
            shard = self._originals.shard(piece.shard)
            read = self._made_from(piece.shard)
            captions = [[row, one.texts, one.text] for row, one in self._carried(piece.shard).items()]
            wanted = self._wanted(piece.shard, piece.first, piece.last).hex()
            made_from.append([shard.source, read, wanted, captions] if captions else [shard.source, read, wanted])
        return cache_key(made_from)

    def _made_from(self, shard: int) -> list[Any]:
        """What tells a shard, and the scan's rows of it, from others; asked once, however many cleaned shards it fills.

        It is the same on every machine, where a marker says it; its key says which captions beside a shard were read.
        """
        if shard not in self._states:
            marker = read_marker(self._folder.scan_marker(shard))
            scanned: Any
            if marker is None:
                scanned = stamp(str(self._folder.samples(shard)))
            else:
                scanned = [marker.key, sorted(marker.files.items())]
            self._states[shard] = [*map(stamp, self._originals.shard(shard).paths), scanned]
        return self._states[shard]

    def _names(self, shard: int) -> list[str]:
        """Names in an archive of a shard's kept samples, as they are without regard to one another."""
        keys = read_columns(self._folder.samples(shard), ["key"])["key"].to_pylist()
        kept = [keys[number] for number in np.flatnonzero(self._kept[shard]).tolist()]
        return [archive_name(short_key(key, key.rpartition(".")[2].lower())) for key in kept]


def _kept(folder: RunFolder) -> NDArray[np.bool_]:
    """For each sample of the run whether it is kept."""
    with pq.ParquetFile(folder.manifest) as file:
        batches = file.iter_batches(columns=["verdict"])
        parts = [pc.equal(batch["verdict"], "keep").to_numpy(zero_copy_only=False) for batch in batches]
    return np.concatenate([np.zeros(0, np.bool_), *parts])
