"""The whole job: scan every shard, match the hashes that the rule names, decide."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from dedupkit import __version__
from dedupkit.clustering.policy import DEFAULT_POLICY, Policy, parse_policy
from dedupkit.clustering.rules import Rule, parse_rule
from dedupkit.engine import Progress, Task, fingerprint, run_tasks
from dedupkit.errors import DedupkitError
from dedupkit.io import stamp, write_json
from dedupkit.pipeline.folder import RunFolder
from dedupkit.pipeline.run import Run
from dedupkit.pipeline.signals import SIGNALS, is_joined
from dedupkit.sources import Shard, find_shards

__all__ = ["dedup"]

_ALWAYS_HASHED = ("exact", "pdq")
_SAMPLES_FORMAT = 1  # raise it when the columns of samples/ or the meaning of a hash change


def dedup(
    sources: str | Path | Sequence[str | Path],
    out: str | Path,
    *,
    rule: str = "copies",
    keep: str = DEFAULT_POLICY,
    hashes: Sequence[str] = (),
    workers: int | None = None,
    seed: int = 0,
) -> Run:
    """Find duplicates in image-caption shards and decide which samples to keep.

    Args:
        sources: tars, Parquet files, folders, brace patterns or globs, local or remote; see
            :func:`dedupkit.sources.find_shards`.
        out: the run folder. A run that was interrupted goes on where it was; the same call with another rule or
            policy decides again and computes only what is missing.
        rule: a preset (``copies``, ``exact``) or a rule such as ``"exact or pdq<=20"``.
        keep: the keep policy, e.g. ``"-pixels, -clip_score, nbytes, sample"``.
        hashes: further hashes to compute now, so that a later rule can name them: ``pixels``, ``phash``, ``dhash``,
            ``ahash``, ``whash`` (imagehash's definition) and the same with ``_imagededup``.
        workers: processes; the number of cores by default. The result does not depend on it.
        seed: recorded in the run; nothing in this job is random yet.

    Returns:
        The finished run.

    Raises:
        RuleError: the rule or the policy cannot be read.
        DedupkitError: no such source, a folder that holds something else, a folder in use, a worker that died.
        OSError: the run folder cannot be written. What was done is kept.
    """
    parsed, policy = parse_rule(rule, SIGNALS), parse_policy(keep)
    requested = _hashes_to_scan(parsed, hashes)
    shards = find_shards(sources)
    workers = workers or os.cpu_count() or 1
    listed = [sources] if isinstance(sources, str | Path) else list(sources)
    folder = RunFolder(out)
    _refuse_inside_source(folder, shards)
    config = _config([str(source) for source in listed], shards, parsed, policy, requested, seed)
    with folder.locked():
        folder.claim(config)
        scanned = _scan(folder, shards, requested, workers)
        _match(folder, parsed, len(shards), scanned, workers)
        _decide(folder, [shard.source for shard in shards], parsed, policy)
    return Run(folder.path)


def _hashes_to_scan(rule: Rule, extra: Sequence[str]) -> list[str]:
    unknown = [name for name in extra if name not in SIGNALS]
    if unknown:
        raise DedupkitError(f"unknown hash {unknown[0]!r}; known: {', '.join(SIGNALS)}")
    return [name for name in SIGNALS if name in (*rule.signals, *extra) and name not in _ALWAYS_HASHED]


def _refuse_inside_source(folder: RunFolder, shards: Sequence[Shard]) -> None:
    """Nothing is ever written into the source, so a run cannot live in the folder that it reads."""
    out = folder.path.absolute()
    for shard in shards:
        root = Path(shard.source).absolute()
        if root.is_dir() and (out == root or root in out.parents):
            raise DedupkitError(f"--out {folder.path} lies inside the source {shard.source}; choose a folder outside")


def _config(
    sources: list[str], shards: Sequence[Shard], rule: Rule, policy: Policy, hashes: list[str], seed: int
) -> dict[str, Any]:
    return {
        "dedupkit": __version__,
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in ("numpy", "pillow", "simplejpeg", "pyarrow", "numba")},
        "sources": sources,
        "shards": [shard.source for shard in shards],
        "rule": rule.text,
        "rule_expanded": str(rule),
        "keep": str(policy),
        "hashes": hashes,
        "seed": seed,
    }


def _version(distribution: str) -> str:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return "unknown"


def _scan(folder: RunFolder, shards: Sequence[Shard], hashes: list[str], workers: int) -> str:
    """Read every shard; returns a fingerprint of all that was read."""
    tasks = []
    for number, shard in enumerate(shards):
        asked = [_SAMPLES_FORMAT, shard.source, shard.paths, [stamp(path) for path in shard.paths], hashes]
        path = str(folder.samples(number))
        arguments = {"shard": shard, "path": path, "hashes": hashes, "what": shard.source}
        name = f"{number:05d}"
        tasks.append(Task("scan", name, "dedupkit.pipeline.scan:scan_shard", arguments, fingerprint(asked)))
    with Progress("scan", len(tasks), "img") as progress:
        results = run_tasks(
            tasks, folder.path, workers=workers, on_done=lambda _, result: progress.advance(result["samples"])
        )
    return fingerprint([[task.key, result] for task, result in zip(tasks, results, strict=True)])


def _match(folder: RunFolder, rule: Rule, shards: int, scanned: str, workers: int) -> None:
    """Join each hash that the rule names, out to the loosest bound that it states or that was joined before."""
    names = [name for name in rule.signals if is_joined(name)]
    with Progress("match", len(names)) as progress:
        for name in names:
            radius = int(rule.loosest(name).bound or 0)
            before = folder.joined_radius(name, scanned)
            if before is None or before < radius:
                arguments = {
                    "out": str(folder.path),
                    "shards": shards,
                    "signal": name,
                    "radius": radius,
                    "workers": workers,
                    "what": name,
                }
                task = Task("match", name, "dedupkit.pipeline.match:match_hashes", arguments, scanned)
                task.marker(folder.path).unlink(missing_ok=True)
                run_tasks([task], folder.path, workers=1)
            progress.advance()


def _decide(folder: RunFolder, sources: list[str], rule: Rule, policy: Policy) -> None:
    from dedupkit.pipeline.decide import decide_and_write

    write_json(folder.path / ".done" / "decide.json", decide_and_write(folder, sources, rule, policy))
