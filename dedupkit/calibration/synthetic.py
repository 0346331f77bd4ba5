"""Synthetic duplicates: transformed copies of some of the run's own images, each scored against its original.

They go through the scan and the embedders of an ordinary run. The scores of each original and its duplicate are then
computed for these pairs alone, however far apart they are: a join would stop at a bound, and would compare each
duplicate with those of all other images. A duplicate has the caption of its original.
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
from dedupkit.clustering.grammar import parse_rule
from dedupkit.clustering.rules import Rule
from dedupkit.embedding.pixels import decode_rgb
from dedupkit.engine import Progress, Task, cache_key, local_engine, run_tasks
from dedupkit.errors import DamagedError, DedupkitError, require
from dedupkit.images import ImageError
from dedupkit.images.transformations import TRANSFORMATIONS
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
from dedupkit.stages.verify_pairs import verify_pairs
from dedupkit.store import atomic_path, read_columns, write_table

__all__ = ["Synthetic", "measure_synthetic", "read_synthetic", "write_chunk", "write_synthetic"]

_IMAGES_PER_TASK = 16
_MOST_SIDE, _LEAST_SIDE = 1024, 512
"""Duplicates have at most so many pixels on the longer side: the web's sizes, and a bound on the work."""


@dataclass(frozen=True, slots=True)
class Synthetic:
    """Synthetic duplicates and what was measured of each against its original.

    Attributes:
        original: (m,) int64, the run's sample.
        transformation: (m,) int64, place in ``TRANSFORMATIONS``.
        scores: (m,) float32 by signal, as ``pair_scores`` has them; ``verified`` where the rule depends on it.
    """

    original: NDArray[np.int64]
    transformation: NDArray[np.int64]
    scores: Mapping[str, NDArray[np.float32]]


def measure_synthetic(
    originals: Originals,
    captions: Mapping[int, str | None],
    rule: Rule,
    embedders: Mapping[str, str],
    work: Path,
    *,
    key: str,
    workers: int,
    device: str | None,
) -> Synthetic:
    """Make synthetic duplicates and score each against its original.

    Args:
        originals: Images of the run.
        captions: Images to transform, by sample, and their captions.
        rule: Rule whose signals are measured; those of embedders that are not given stay unmeasured.
        embedders: Specifications by name, models only.
        work: Folder for the duplicates and what is computed of them; an interrupted call goes on there.
        key: Cache key of what the duplicates depend on.
        workers: Number of processes.
        device: Device for torch.

    Raises:
        DedupkitError: The source is gone or has changed, or no image can be transformed.
    """
    folder = work / "images"
    _make(originals, captions, work, folder, key, workers)
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
    a, b, original, transformation = _pairs(run, len(shards))
    names = [name for name in rule.signals if name in embedders or name in SIGNALS]
    measured = [find_signal(name) for name in names if find_signal(name).finds_pairs]
    scores = {signal.name: pair_scores(signal, Scanned(run, len(shards)), a, b) for signal in measured}
    for name in names:
        if name not in scores:
            scores[name] = _verified(rule, scores, run, shards, (a, b), work, key, workers)
    return Synthetic(original, transformation, scores)


def write_chunk(
    path: str, places: Sequence[Place], shards: dict[int, Shard], captions: Mapping[int, str | None]
) -> dict[str, Any]:
    """Write originals and their synthetic duplicates into a tar; a task of the engine.

    Args:
        path: Path of the tar.
        places: Where the originals lie.
        shards: Their shards by number.
        captions: Their captions, by sample.

    Returns:
        ``duplicates`` written.
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
            caption = (captions[place.sample] or "").encode("utf-8", "surrogatepass")
            _add(tar, f"{name}-original.{extension}", data)
            _add(tar, f"{name}-original.txt", caption)
            for number, transformation in enumerate(TRANSFORMATIONS):
                _add(tar, f"{name}-{number}.jpg", transformation.file(image))
                _add(tar, f"{name}-{number}.txt", caption)
    return {"duplicates": len(places) * len(TRANSFORMATIONS)}


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    tar.addfile(info, io.BytesIO(data))


def _make(
    originals: Originals, captions: Mapping[int, str | None], work: Path, folder: Path, key: str, workers: int
) -> None:
    places = originals.places(captions)
    tasks = []
    for number, first in enumerate(range(0, len(places), _IMAGES_PER_TASK)):
        chunk = places[first : first + _IMAGES_PER_TASK]
        path = str(folder / f"{number:05d}.tar")
        texts = {place.sample: captions[place.sample] for place in chunk}
        call = partial(write_chunk, path, chunk, originals.needed(chunk), texts)
        asked = cache_key([key, [place.sample for place in chunk]])
        tasks.append(
            Task("synthesise", f"{number:05d}", call, asked, f"synthetic duplicates of {len(chunk)} images", (path,))
        )
    planned = {Path(path) for task in tasks for path in task.outputs}
    for stale in set(folder.glob("*.tar")) - planned:  # of an interrupted call that asked for more
        stale.unlink()
    with Progress("synthesise", len(tasks), "images") as progress:
        run_tasks(tasks, work, workers=workers, on_done=lambda _, result: progress.advance(result["duplicates"]))


def _pairs(
    run: RunFolder, shards: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Original and duplicate as rows of what was scanned, the original as a sample of the run, the transformation."""
    keys: list[str] = []
    for shard in range(shards):
        keys += read_columns(run.samples(shard), ["key"])["key"].to_pylist()
    row = {key: number for number, key in enumerate(keys)}
    duplicates = [key for key in keys if not key.endswith("-original")]
    if not duplicates:
        raise DedupkitError("there is no image to transform: the run keeps none that can be read")
    names, transformations = zip(*(key.split("-") for key in duplicates), strict=True)
    a = np.array([row[f"{name}-original"] for name in names], np.int64)
    b = np.array([row[key] for key in duplicates], np.int64)
    return a, b, np.array(names).astype(np.int64), np.array(transformations).astype(np.int64)


def _verified(
    rule: Rule,
    scores: Mapping[str, NDArray[np.float32]],
    run: RunFolder,
    shards: Sequence[Shard],
    pairs: tuple[NDArray[np.int64], NDArray[np.int64]],
    work: Path,
    key: str,
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
    parts, key = work / "verified", cache_key([key, "verified"])  # the pairs of another sample have the same numbers
    table, _ = verify_pairs(a, b, run, shards, parts=parts, out=work, key=key, workers=workers)
    result = np.full(count, np.nan, np.float32)
    result[asked] = np.isin(b, table["b"].to_numpy())  # a duplicate is in one pair
    return result


def write_synthetic(path: Path, synthetic: Synthetic, key: str) -> None:
    """Keep what was measured: one row per duplicate, one column per signal."""
    columns: dict[str, Any] = {
        "original": synthetic.original,
        "transformation": [TRANSFORMATIONS[number].name for number in synthetic.transformation.tolist()],
        **synthetic.scores,
    }
    table = pa.table(columns).replace_schema_metadata({"key": key})
    write_table(path, table)


def read_synthetic(path: Path, key: str) -> Synthetic | None:
    """What an earlier call measured; None where it is not there or was of something else."""
    try:
        table = read_columns(path)
    except (OSError, DamagedError):
        return None
    if (table.schema.metadata or {}).get(b"key") != key.encode():
        return None
    places = {transformation.name: number for number, transformation in enumerate(TRANSFORMATIONS)}
    transformation = np.array([places[name] for name in table["transformation"].to_pylist()], np.int64)
    names = [name for name in table.schema.names if name not in ("original", "transformation")]
    return Synthetic(table["original"].to_numpy(), transformation, {name: table[name].to_numpy() for name in names})
