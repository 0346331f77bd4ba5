"""What a run would take: tasks, bytes to read, time and memory, from a small sample of the data."""

from __future__ import annotations

import math
import os
import resource
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from dedupkit.clustering.rules import parse_rule
from dedupkit.signals import SIGNALS, known_signals
from dedupkit.sources import Sample, Shard, find_shards
from dedupkit.sources.sample import PassedOver, Place
from dedupkit.store import stamps
from dedupkit.workflows.dedup import choose_embedders, hashes_to_scan

__all__ = ["Plan", "plan_run"]

_SHARDS = 3  # that are sampled: the first, the middle and the last
_IMAGES = 300  # of each
_HEADERS = 1024  # bytes of a tar around a member: its header, and padding
_START = 0.7  # seconds until workers run and the compiled code is loaded
_JOIN = 13e-6  # seconds a sample for joins and decisions, as a million small images took them on two cores
_HELD = 250  # bytes a sample in the main process, as a million small images took them


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run would take.

    Attributes:
        tasks: Number of tasks by stage.
        samples: Number of samples, estimated.
        bytes: Bytes to read: the shards once, and once more for each embedder.
        seconds: Estimated time by stage; ``total`` for all.
        memory: Estimated bytes of memory: ``worker`` for each process that scans, ``main`` for the main process.
        sampled: Number of images that were measured for it.
        workers: Number of processes that the times are for.
        left_out: What the figures leave out.
    """

    tasks: dict[str, int]
    samples: int
    bytes: int
    seconds: dict[str, float]
    memory: dict[str, int]
    sampled: int
    workers: int
    left_out: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The plan as a JSON object."""
        return asdict(self)

    def rows(self) -> list[tuple[str, object]]:
        """Lines for people: what, and how much."""
        seconds = "  ".join(f"{stage} {round(took, 1):,}" for stage, took in self.seconds.items())
        memory = "  ".join(f"{who} {size / 2**20:,.0f} MiB" for who, size in self.memory.items())
        rows: list[tuple[str, object]] = [
            ("tasks", "  ".join(f"{stage} {count:,}" for stage, count in self.tasks.items())),
            ("samples", f"about {self.samples:,}"),
            ("to read", f"{self.bytes / 1e9:,.3f} GB"),
            ("seconds", f"about {seconds}, with {self.workers} workers"),
            ("memory", f"about {memory}"),
            ("measured", f"{self.sampled:,} images"),
        ]
        return rows + [("left out", what) for what in self.left_out]


@dataclass(slots=True)
class _Beginning:
    """The first samples of a shard, which reads as a shard."""

    shard: Shard
    most: int = _IMAGES
    count: int = 0
    nbytes: int = 0
    ended: bool = field(default=True)

    @property
    def source(self) -> str:
        return self.shard.source

    @property
    def paths(self) -> tuple[str, ...]:
        return self.shard.paths

    @property
    def settings(self) -> str:
        return self.shard.settings

    def read(self, *, extra: bool = False, passed_over: PassedOver | None = None) -> Iterator[Sample]:
        self.count = self.nbytes = 0
        self.ended = True
        for sample in self.shard.read(extra=extra, passed_over=passed_over):
            if self.count == self.most:
                self.ended = False
                return
            self.count += 1
            self.nbytes += sum(len(member) + _HEADERS for member in sample.members.values())
            yield sample

    def fetch_many(self, places: Sequence[Place]) -> Iterator[tuple[Place, bytes | OSError]]:
        return self.shard.fetch_many(places)


def plan_run(
    sources: str | Path | Sequence[str | Path],
    *,
    rule: str = "copies",
    embed: str | Sequence[str] = (),
    hashes: Sequence[str] = (),
    workers: int | None = None,
    device: str | None = None,
) -> Plan:
    """Estimate what :func:`dedupkit.dedup` would take; a few hundred images are scanned (and embedded) for it.

    Args:
        sources: Shards, as for :func:`dedupkit.dedup`.
        rule: The rule.
        embed: Specifications of embedders.
        hashes: Further hashes to compute.
        workers: Number of processes; all cores by default.
        device: Device for torch.

    Raises:
        RuleError: The rule cannot be read.
        DedupkitError: No such source.
    """
    from dedupkit.stages.scan import scan_shard

    embedders, _ = choose_embedders(embed, rule, {})
    parsed = parse_rule(rule, known_signals(embedders), embedder=next(iter(embedders), None))
    signals = [SIGNALS[name] for name in hashes_to_scan(parsed, hashes)]
    shards = find_shards(sources)
    sizes = [_size(shard) for shard in shards]
    chosen = sorted({0, len(shards) // 2, len(shards) - 1})[:_SHARDS]
    count = nbytes = 0
    scanning = 0.0
    embedding = dict.fromkeys(embedders, 0.0)
    workers = workers or os.cpu_count() or 1
    with TemporaryDirectory(prefix="dedupkit-plan-") as folder:
        samples = str(Path(folder, "samples.parquet"))
        scan_shard(_Beginning(shards[0], 2), samples, signals)  # loads code, which is no part of the rate
        for number in chosen:
            beginning = _Beginning(shards[number])
            began = time.perf_counter()
            scan_shard(beginning, samples, signals)
            scanning += time.perf_counter() - began
            count += beginning.count
            nbytes += sizes[number] if beginning.ended and sizes[number] else beginning.nbytes
            for name, spec in embedders.items():
                if not spec.startswith("precomputed:"):
                    embedding[name] += _embed(beginning, spec, samples, workers, device)
    each = nbytes / max(count, 1)
    total = round(sum(sizes) / each) if each else 0
    scale = total / max(count, 1)
    seconds = {"scan": _START + scanning * scale / max(1, min(workers, len(shards)))}
    seconds |= {f"embed {name}": took * scale for name, took in embedding.items()}
    seconds["match and decide"] = _JOIN * total
    seconds["total"] = sum(seconds.values())
    tasks = {"scan": len(shards), **{f"embed {name}": len(shards) for name in embedders}}
    joined = [name for name in parsed.signals if known_signals(embedders)[name].stage == "match"]
    verified = len(joined) < len(parsed.signals) and any(
        known_signals(embedders)[name].stage == "verify" for name in parsed.signals
    )
    peak = _peak()
    per_shard = math.ceil(total / max(len(shards), 1)) * 2000  # rows with captions, until they are written
    return Plan(
        tasks=tasks | {"match": len(joined), "decide": 1},
        samples=total,
        bytes=sum(sizes) * (1 + len(embedders)),
        seconds=seconds,
        memory={"worker": peak + per_shard, "main": peak + _HELD * total},
        sampled=count,
        workers=workers,
        left_out=("verification, whose time depends on how many pairs there are",) if verified else (),
    )


def _embed(beginning: _Beginning, spec: str, samples: str, threads: int, device: str | None) -> float:
    from dedupkit.embedding.load import shared_embedder
    from dedupkit.stages.embed import embed_shard

    shared_embedder(spec, device)  # loading it is no part of the rate
    began = time.perf_counter()
    embed_shard(beginning, f"{samples}.npy", spec, samples_path=samples, threads=threads, device=device)
    return time.perf_counter() - began


def _size(shard: Shard) -> int:
    folders = [Path(path) for path in shard.paths if Path(path).is_dir()]
    if folders:
        return sum(file.stat().st_size + _HEADERS for folder in folders for file in folder.rglob("*") if file.is_file())
    return sum(int(state[0] or 0) for state in stamps(list(shard.paths)) if state)


def _peak() -> int:
    """Most memory that this process has held, in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
