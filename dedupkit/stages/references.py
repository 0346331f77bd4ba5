"""References made ready: what of an earlier run or a reference set takes part, and where its fingerprints lie."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from dedupkit.embedding.fitted import fitted_specs, made_by_model
from dedupkit.embedding.keys import embedder_key
from dedupkit.embedding.precomputed import Precomputed
from dedupkit.embedding.spec import parse_spec
from dedupkit.engine import Engine, Task, ThisProcess, cache_key
from dedupkit.engine.marker import read_marker
from dedupkit.errors import DedupkitError
from dedupkit.runfolder import Reference, RunConfig, RunFolder
from dedupkit.runfolder.scanned import shard_problems, without_vector
from dedupkit.signals import SIGNALS, Signal, known_signals
from dedupkit.signals.column import compared_columns
from dedupkit.signals.columns import Scanned
from dedupkit.sources import Shard, find_shards
from dedupkit.sources.again import find_again
from dedupkit.sources.blocklist import Blocklist
from dedupkit.stages.addresses import ascii_domain
from dedupkit.stages.covered import refuse_changed
from dedupkit.stages.plan import Job
from dedupkit.stages.run import scan_and_embed
from dedupkit.stages.scan import sample_schema
from dedupkit.store import digest_of, read_columns, write_table

__all__ = ["Opened", "gone_shards", "open_reference", "write_list"]

_LIST_FORMAT = 1  # raise it when lines of a list are read another way, or what is written of them changes


@dataclass(frozen=True, slots=True)
class Opened:
    """A reference whose fingerprints can be read.

    Attributes:
        reference: What it is.
        rows: Its rows.
        active: (m,) bool, which of them take part: the kept samples of a run, the readable images of a folder, all
            lines of a list.
        keys: By signal a digest of its fingerprints.
        find_shards: Finds its shards, to read images again; None for one that is gone.
    """

    reference: Reference
    rows: Scanned
    active: NDArray[np.bool_]
    keys: Mapping[str, str]
    find_shards: Callable[[], Sequence[Shard | None]] = tuple


def gone_shards(shards: Sequence[Shard | None]) -> list[int]:
    """Numbers of those of a reference's shards that are gone."""
    return [number for number, shard in enumerate(shards) if shard is None]


def open_reference(
    job: Job, number: int, reference: Reference, signals: Sequence[str], engine: Engine, compute_missing: bool
) -> Opened:
    """Make a reference of images or another run ready for some signals.

    Args:
        job: What is to be computed for the run itself.
        number: Number of the reference.
        reference: A run or images.
        signals: Names of the signals that are compared.
        engine: Where images are scanned.
        compute_missing: Whether to compute what an earlier run lacks, from its images.

    Raises:
        DedupkitError: An earlier run lacks a signal or has another model's vectors, was decided again meanwhile, its
            images changed, or images of a reference cannot be read.
    """
    known = known_signals(job.embedders)
    hashes = [name for name in signals if known[name].scan_columns]
    embedders = {name: job.embedders[name] for name in signals if name in job.embedders}
    own = RunFolder(job.folder.reference(number).path)
    inner = replace(job, folder=own, hashes=hashes, embedders=embedders, meta=())  # nothing of them is kept
    if reference.kind == "images":
        shards = find_shards(reference.path)
        keys = scan_and_embed(replace(inner, shards=shards), engine)
        rows = Scanned(own, len(shards))
        active = rows.readable()
        call = partial(_left_out, own, [shard.source for shard in shards], list(embedders), int((~active).sum()))
        task = Task("reference", f"{number:03d}", call, cache_key(keys), reference.name)
        ThisProcess().run([task], job.folder.path)
        return Opened(reference, rows, active, _by_signal(signals, keys), lambda: shards)
    folder = RunFolder(reference.path)
    config = folder.read_config()
    find = partial(find_again, config.sources, config.shards, directory=config.directory)
    active = _kept(folder)
    refuse_changed([reference])  # nothing held it while the samples were read
    config = replace(config, embedders=fitted_specs(folder, config.embedders))
    lacks = _lacking(job, folder, config, known, signals)
    if lacks is None:
        keys = {"scan": reference.digest} | {name: _vectors_key(folder, config, name) for name in embedders}
        rows = Scanned(folder, len(config.shards)).holding(compared_columns(known[name] for name in signals))
        return Opened(reference, rows, active, _by_signal(signals, keys), find)
    if not compute_missing:
        raise DedupkitError(f"{reference.name} {lacks}; --compute-missing computes that from its images")
    again = find()
    shards = [shard for shard in again if shard is not None]
    if len(shards) < len(again):
        gone = next(name for name, shard in zip(config.shards, again, strict=True) if shard is None)
        raise DedupkitError(f"{reference.name} {lacks}, and {gone}, which it read, is gone")
    keys = scan_and_embed(replace(inner, shards=shards), engine)
    rows = Scanned(own, len(shards))
    _check_same(reference, Scanned(folder, len(shards)), rows, active)
    keys = {**keys, "scan": reference.digest + keys["scan"]}
    return Opened(reference, rows, active, _by_signal(signals, keys), lambda: again)


def _left_out(folder: RunFolder, shards: Sequence[str], embedders: Sequence[str], unreadable: int) -> dict[str, Any]:
    """What of the images of a reference is compared with no sample, for the summary; a task of the engine."""
    return {
        "shard_problems": shard_problems(folder, shards),
        "unreadable": unreadable,
        "without_vector": without_vector(folder, shards, embedders),
    }


def _lacking(
    job: Job, folder: RunFolder, config: RunConfig, known: Mapping[str, Signal], signals: Sequence[str]
) -> str | None:
    """What a finished run has not computed of some signals, as the end of a sentence; None where nothing is missing."""
    for name in signals:
        if name in job.embedders:
            theirs = config.embedders.get(name)
            if theirs is None:
                return f"has no vectors of {name}"
            if not _same_model(job, folder, config, name):
                return f"has vectors of {name} by another model ({theirs} when it was made, here {job.embedders[name]})"
        elif known[name].scan_columns and name not in config.hashes:
            return f"has not computed {name}"
    return None


def write_list(job: Job, number: int, reference: Reference, found: Blocklist) -> Opened:
    """Put the entries of a list into the layout of a run: a row for each, with the fingerprints that it states."""
    folder = RunFolder(job.folder.reference(number).path)
    call = partial(_write_entries, folder.samples(0), found)
    key = cache_key([_LIST_FORMAT, reference.digest, reference.reads])
    task = Task("reference", f"{number:03d}", call, key, reference.name, (str(folder.samples(0)),))
    ThisProcess().run([task], job.folder.path)
    rows = Scanned(folder, 1)
    names = ("exact", "pdq", "phash", "url", "domain")
    return Opened(reference, rows, np.ones(len(found.entries), bool), dict.fromkeys(names, key))


def _write_entries(path: Path, found: Blocklist) -> dict[str, Any]:
    schema = sample_schema([SIGNALS["phash"]]).append(pa.field("domain", pa.string()))
    columns: dict[str, list[Any]] = {name: [None] * len(found.entries) for name in schema.names}
    for row, entry in enumerate(found.entries):
        columns["key"][row], columns["offset"][row] = entry.text, entry.line
        for kind in entry.kinds:
            if kind == "urls":
                columns["url"][row] = entry.text
            elif kind == "domains":
                columns["domain"][row] = _domain(entry.text)
            else:
                columns[kind][row] = bytes.fromhex(entry.text)
                columns["pdq_quality"][row] = 100 if kind == "pdq" else columns["pdq_quality"][row]
    write_table(path, pa.table([pa.array(columns[name], schema.field(name).type) for name in schema.names], schema))
    return {
        "rows": len(found.entries), "malformed": found.malformed, "examples": found.examples, "flat": found.flat,
        "kinds": list(found.kinds),
    }  # fmt: skip


def _domain(text: str) -> str:
    """A domain in the form in which URLs have it."""
    return ascii_domain(text.lstrip("*").strip("."))


def _by_signal(signals: Sequence[str], keys: Mapping[str, str]) -> dict[str, str]:
    return {name: keys.get(name, "") + keys["scan"] for name in signals}


def _kept(folder: RunFolder) -> NDArray[np.bool_]:
    """(m,) bool, which samples a finished run keeps."""
    verdicts = read_columns(folder.manifest, ["verdict"])["verdict"]
    return np.asarray(pc.equal(verdicts, "keep").to_numpy())


def _vectors_key(folder: RunFolder, config: RunConfig, name: str) -> str:
    """Digest of the vectors of a run, as the markers of its tasks state them.

    Raises:
        DedupkitError: Some are missing.
    """
    stated = []
    for shard in range(len(config.shards)):
        marker = read_marker(folder.embed_marker(name, shard))
        if marker is None:
            raise DedupkitError(
                f"{folder.path} has not all vectors of {name}; give the command that made it again with --embed "
                f"{config.embedders[name]}"
            )
        stated.append([marker.key, sorted(map(list, marker.files.values()))])
    return digest_of(stated)


def _same_model(job: Job, folder: RunFolder, config: RunConfig, name: str) -> bool:
    """Whether the vectors of a run can be compared with the job's; of vectors made elsewhere that cannot be known."""
    spec, other = job.embedders[name], config.embedders[name]
    if isinstance(job.given.get(name), Precomputed) or any(parse_spec(each).made_elsewhere for each in (spec, other)):
        return True
    try:
        return (spec == other or embedder_key(spec) == embedder_key(other)) and made_by_model(folder, config, name)
    except (DedupkitError, OSError):
        return False


def _check_same(reference: Reference, before: Scanned, now: Scanned, active: NDArray[np.bool_]) -> None:
    """Raise DedupkitError where the images of an earlier run are no longer those that it read."""
    old, new = (rows.read("sha256")["sha256"] for rows in (before, now))
    mask = pa.array(active)
    if len(old) != len(new) or not pc.fill_null(pc.equal(old.filter(mask), new.filter(mask)), False).to_numpy().all():
        raise DedupkitError(
            f"the images of {reference.name} changed since it was made, so nothing can be computed for it; make that "
            "run anew"
        )
