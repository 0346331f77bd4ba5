"""Copies planted on purpose: a sample of the run's own images, every edit of each, and what the signals say of them.

The copies go through the scan and the embedders of an ordinary run. What the signals say of each original and its copy
is then computed for these pairs alone, however far apart they are: a join would stop at a bound, and compare each
copy with those of all other images for nothing.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from dedupkit.calibration.curves import holds
from dedupkit.clustering.rules import Rule, parse_rule
from dedupkit.embedding.pixels import decode_rgb
from dedupkit.engine import Progress, Task, cache_key, local_engine, run_tasks
from dedupkit.errors import DamagedError, DedupkitError, require
from dedupkit.images import ImageError
from dedupkit.images.transformations import EDITS
from dedupkit.runfolder.folder import RunFolder
from dedupkit.signals import SIGNALS, find_signal, known_signals
from dedupkit.signals.columns import Scanned
from dedupkit.signals.edges import pair_scores
from dedupkit.sources import Shard, find_shards
from dedupkit.sources.columns import IMAGE_EXTENSIONS
from dedupkit.sources.reread import Originals, read_images
from dedupkit.sources.sample import Place
from dedupkit.stages.plan import Computing, Job
from dedupkit.stages.run import run_stages
from dedupkit.stages.verify import verify_pairs
from dedupkit.store import atomic_path, read_columns, write_table

__all__ = ["Copies", "measure_copies", "plant_chunk", "read_copies", "write_copies"]

_IMAGES_PER_TASK = 16
_MOST_SIDE, _LEAST_SIDE = 1024, 512
"""Copies are made of at most so many pixels on the longer side: the web's sizes, and a bound on the work."""


@dataclass(frozen=True, slots=True)
class Copies:
    """Planted copies and what was measured of each against its original.

    Attributes:
        original: (m,) int64, the run's sample.
        edit: (m,) int64, place in ``EDITS``.
        scores: by signal (m,) float32, as ``pair_scores`` has them; ``verified`` where the rule depends on it.
    """

    original: NDArray[np.int64]
    edit: NDArray[np.int64]
    scores: Mapping[str, NDArray[np.float32]]


def measure_copies(
    originals: Originals,
    samples: Sequence[int],
    rule: Rule,
    embedders: Mapping[str, str],
    work: Path,
    *,
    key: str,
    workers: int,
    device: str | None,
) -> Copies:
    """Plant copies and score each against its original.

    Args:
        originals: of the run.
        samples: the images to copy.
        rule: its signals are measured; those of embedders that are not given stay unmeasured.
        embedders: specifications by name, models only.
        work: a folder for the copies and their run; an interrupted call goes on there.
        key: fingerprint of what the copies depend on.
        workers: processes.
        device: for torch.

    Raises:
        DedupkitError: the source is gone or has changed, or no image can be copied.
    """
    folder = work / "planted"
    _plant(originals, samples, work, folder, key, workers)
    hashes = [name for name in rule.signals if name in SIGNALS and SIGNALS[name].scan_columns]
    shards = find_shards(folder)
    run = RunFolder(work / "run")
    # The rule "exact" joins nothing: these stages are for the fingerprints.
    rule_of_run = parse_rule("exact", known_signals(embedders))
    with local_engine(workers) as engine:
        run_stages(
            Job(
                run,
                shards,
                rule_of_run,
                hashes,
                embedders,
                Computing(max(1, workers), device=device, target_recall=1.0),
            ),
            engine,
        )
    a, b, original, edit = _pairs(run, len(shards))
    names = [name for name in rule.signals if name in embedders or name in SIGNALS]
    measured = [find_signal(name) for name in names if find_signal(name).finds_pairs]
    scores = {signal.name: pair_scores(signal, Scanned(run, len(shards)), a, b) for signal in measured}
    for name in names:
        if name not in scores:
            scores[name] = _verified(rule, scores, run, shards, (a, b), work, workers)
    return Copies(original, edit, scores)


def plant_chunk(path: str, places: Sequence[Place], shards: dict[int, Shard]) -> dict[str, Any]:
    """Write originals and their copies into a tar; a task of the engine.

    Args:
        path: of the tar.
        places: of the originals.
        shards: by number, where they are.

    Returns:
        ``copies`` written.
    """
    with atomic_path(Path(path)) as temporary, tarfile.open(temporary, "w") as tar:
        for place, data in read_images(shards, places):
            try:
                image = decode_rgb(data, _LEAST_SIDE)
            except ImageError:  # grey was all that the scan needed
                continue
            image.thumbnail((_MOST_SIDE, _MOST_SIDE))
            name = f"{place.sample:012d}"
            extension = place.format if place.format in IMAGE_EXTENSIONS else "jpg"
            _add(tar, f"{name}-original.{extension}", data)
            for number, edit in enumerate(EDITS):
                _add(tar, f"{name}-{number}.jpg", edit.file(image))
    return {"copies": len(places) * len(EDITS)}


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    tar.addfile(info, io.BytesIO(data))


def _plant(originals: Originals, samples: Sequence[int], work: Path, folder: Path, key: str, workers: int) -> None:
    places = originals.places(samples)
    tasks = []
    for number, first in enumerate(range(0, len(places), _IMAGES_PER_TASK)):
        chunk = places[first : first + _IMAGES_PER_TASK]
        path = str(folder / f"{number:05d}.tar")
        call = partial(plant_chunk, path, chunk, originals.needed(chunk))
        asked = cache_key([key, [place.sample for place in chunk]])
        tasks.append(Task("plant", f"{number:05d}", call, asked, f"copies of {len(chunk)} images", (path,)))
    planned = {Path(path) for task in tasks for path in task.outputs}
    for stale in set(folder.glob("*.tar")) - planned:  # of an interrupted call that asked for more
        stale.unlink()
    with Progress("plant", len(tasks), "copies") as progress:
        run_tasks(tasks, work, workers=workers, on_done=lambda _, result: progress.advance(result["copies"]))


def _pairs(
    run: RunFolder, shards: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Original and copy as samples of the planted run, and which sample of the run and which edit they are."""
    keys: list[str] = []
    for shard in range(shards):
        keys += read_columns(run.samples(shard), ["key"])["key"].to_pylist()
    row = {key: number for number, key in enumerate(keys)}
    copies = [key for key in keys if not key.endswith("-original")]
    if not copies:
        raise DedupkitError("there is no image to plant copies of: the run keeps none that can be read")
    names, edits = zip(*(key.split("-") for key in copies), strict=True)
    a = np.array([row[f"{name}-original"] for name in names], np.int64)
    b = np.array([row[key] for key in copies], np.int64)
    return a, b, np.array(names).astype(np.int64), np.array(edits).astype(np.int64)


def _verified(
    rule: Rule,
    scores: Mapping[str, NDArray[np.float32]],
    run: RunFolder,
    shards: Sequence[Shard],
    pairs: tuple[NDArray[np.int64], NDArray[np.int64]],
    work: Path,
    workers: int,
) -> NDArray[np.float32]:
    """Look again at the pairs whose verdict depends on it: 1 verified, 0 not, NaN not looked at."""
    require("cv2", "verify")
    count = len(pairs[0])
    settled = holds(rule, scores)
    unknown = [name for name in rule.signals if not find_signal(name).finds_pairs]
    possible = holds(rule, {**scores, **dict.fromkeys(unknown, np.ones(count, np.float32))})
    asked = np.flatnonzero(possible & ~settled)
    a, b = pairs[0][asked], pairs[1][asked]
    parts = work / "verified"
    table, _ = verify_pairs(a, b, run, shards, parts=parts, out=work, key="planted", workers=workers)
    result = np.full(count, np.nan, np.float32)
    result[asked] = np.isin(b, table["b"].to_numpy())  # a copy is in one pair
    return result


def write_copies(path: Path, copies: Copies, key: str) -> None:
    """Keep what was measured: one row per copy, one column per signal."""
    columns: dict[str, Any] = {
        "original": copies.original,
        "edit": [EDITS[number].name for number in copies.edit.tolist()],
        **copies.scores,
    }
    table = pa.table(columns).replace_schema_metadata({"key": key})
    write_table(path, table)


def read_copies(path: Path, key: str) -> Copies | None:
    """What an earlier call measured; None where it is not there or was of something else."""
    try:
        table = read_columns(path)
    except (OSError, DamagedError):
        return None
    if (table.schema.metadata or {}).get(b"key") != key.encode():
        return None
    places = {edit.name: number for number, edit in enumerate(EDITS)}
    edit = np.array([places[name] for name in table["edit"].to_pylist()], np.int64)
    names = [name for name in table.schema.names if name not in ("original", "edit")]
    return Copies(table["original"].to_numpy(), edit, {name: table[name].to_numpy() for name in names})
