"""What a run would take: tasks, bytes to read, time and memory, from a small sample of the data."""

from __future__ import annotations

import math
import os
import resource
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from os import PathLike
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from dedupkit.clustering.grammar import needs_floor
from dedupkit.clustering.rules import Rule
from dedupkit.embedding.spec import parse_spec
from dedupkit.engine.place import place_of
from dedupkit.runfolder import Layout
from dedupkit.signals import SIGNALS, known_signals
from dedupkit.signals.expected import Extent
from dedupkit.sources import Shard, find_shards
from dedupkit.stages.plan import ranked_conditions
from dedupkit.startup.cores import worker_count
from dedupkit.store import stamps
from dedupkit.workflows.against import References, find_references
from dedupkit.workflows.plan_tasks import Places, joins_and_decision
from dedupkit.workflows.request import DEFAULT_RECALL, Asked, choose_embedders, hashes_to_scan, with_files
from dedupkit.workflows.sampled import HEADERS, Beginning, caption_words, measure_looking, vector_length

__all__ = ["Plan", "plan_run"]

_SHARDS = 3  # that are sampled: the first, the middle and the last
_START = 0.7  # seconds until workers run and the compiled code is loaded

_OPENED = 4e-3  # seconds a shard, for the files that deciding opens (benchmarks/resume.py)
_ACROSS = 5e-6  # seconds a row for joins with references, as joins of a million small images took them
_HELD = 165  # bytes that the main process holds for a row of a reference

_LEFT_OUT = {"ray": ("further nodes of the Ray cluster, which share scan, embedding and verification",)}


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run would take.

    Attributes:
        tasks: Number of tasks by stage; ``match NAME`` and ``decide`` where a join or the decision is many.
        samples: Number of samples, estimated.
        bytes: Bytes to read: the shards and reference images once, and once more for each embedder.
        seconds: Estimated time by stage; ``total`` for all.
        memory: Estimated bytes of memory: ``worker`` for each process that scans, ``main`` for the main process.
        sampled: Number of images that were measured for it.
        workers: Number of processes that the times are for, on all machines.
        left_out: What the figures leave out or assume.
        own_bytes: Bytes of the run folder that joins and decisions read that are many tasks.
    """

    tasks: dict[str, int]
    samples: int
    bytes: int
    seconds: dict[str, float]
    memory: dict[str, int]
    sampled: int
    workers: int
    left_out: tuple[str, ...] = ()
    own_bytes: int = 0

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
            *([("of its own", f"{self.own_bytes / 1e9:,.3f} GB")] if self.own_bytes else []),
            ("seconds", f"about {seconds}, with {self.workers} workers"),
            ("memory", f"about {memory}"),
            ("measured", f"{self.sampled:,} images"),
        ]
        return rows + [("left out", what) for what in self.left_out]


def plan_run(
    sources: str | Path | Sequence[str | Path],
    *,
    rule: str = "copies",
    embed: str | Sequence[str] = (),
    hashes: Sequence[str] = (),
    workers: int | None = None,
    device: str | None = None,
    against: Sequence[str | PathLike[str]] = (),
    target_recall: float | None = None,
    engine: str = "local",
    **verdicts: Any,
) -> Plan:
    """Estimate what :func:`dedupkit.dedup` would take; a few hundred images are scanned (and embedded) for it.

    Args:
        sources: Shards, as for :func:`dedupkit.dedup`.
        rule: The rule.
        embed: Specifications of embedders.
        hashes: Further hashes to compute.
        workers: Number of processes, as for :func:`dedupkit.dedup`.
        device: Device for torch.
        against: Reference sets, as for :func:`dedupkit.dedup`.
        target_recall: Recall of clustered searches and, with a preset, of the candidates for verification.
        engine: Where tasks run; with ``rank`` the processes of all ranks count, with ``ray`` those of one node.
        **verdicts: As for :func:`dedupkit.dedup`: ``keep``, ``captions``, ``templates`` and ``against_rule``.

    Raises:
        RuleError: A rule, the keep policy or a mode cannot be read.
        DedupkitError: No such source, reference or file of an embedder; a cap on families that needs another rule.
    """
    from dedupkit.stages.project import COPIES
    from dedupkit.stages.scan import scan_shard

    embedders, _ = choose_embedders(embed, rule, {})
    asked = Asked.parse(rule, embedders, **verdicts)
    parsed, recall = asked.rule, DEFAULT_RECALL if target_recall is None else target_recall
    with TemporaryDirectory(prefix="dedupkit-plan-") as folder:
        found = find_references((), against, Layout(folder))
    rules = [parsed, asked.compared] if against else [parsed]
    signals = [SIGNALS[name] for name in hashes_to_scan(rules, [*hashes, *found.hashes])]
    shards = find_shards(sources)
    with_files(embedders, embedders)
    sizes = [_size(shard) for shard in shards]
    chosen = sorted({0, len(shards) // 2, len(shards) - 1})[:_SHARDS]
    count = nbytes = 0
    scanning = 0.0
    embedding = dict.fromkeys(embedders, 0.0)
    words: list[int] = []
    dims: dict[str, int] = {}
    threads = max(1, worker_count(workers))
    workers = threads * (place_of(os.environ).world if engine == "rank" else 1)
    with TemporaryDirectory(prefix="dedupkit-plan-") as folder:
        samples = str(Path(folder, "samples.parquet"))
        scan_shard(Beginning(shards[0], 2), samples, signals)  # loads code, which is no part of the rate
        for number in chosen:
            beginning = Beginning(shards[number])
            began = time.perf_counter()
            scan_shard(beginning, samples, signals)
            scanning += time.perf_counter() - began
            count += beginning.count
            nbytes += sizes[number] if beginning.ended and sizes[number] else beginning.nbytes
            words += caption_words(samples)
            for name, spec in embedders.items():
                if not spec.startswith("precomputed:"):
                    model = parse_spec(spec).projected(None) if parse_spec(spec).fits else spec
                    embedding[name] += _embed(beginning, model, samples, workers, device)
                    dims[name] = vector_length(f"{samples}.npy")
    each = nbytes / max(count, 1)
    total = round(sum(sizes) / each) if each else 0
    scale = total / max(count, 1)
    references = _references(found, each)
    seconds = {"scan": _START + scanning * scale / max(1, min(workers, len(shards)))}
    if references.shards:
        busy = max(1, min(workers, references.shards))
        seconds["scan references"] = scanning * references.bytes / max(nbytes, 1) / busy
    seconds |= {f"embed {name}": took * scale * (1 + references.bytes / max(sum(sizes), 1))
                for name, took in embedding.items()}  # fmt: skip
    for name, spec in embedders.items():
        fits = parse_spec(spec).fits or (target_recall is not None and needs_floor(rule))
        if fits and parse_spec(spec).projection is None:  # each image of its sample, and copies of it
            fitted = min(parse_spec(spec).sample, total) * (1 + COPIES)
            seconds[f"project {name}"] = embedding[name] / max(count, 1) * fitted
    extent = Extent(total, sum(words) / max(len(words), 1))
    places = Places(engine == "local", workers, threads)
    later = joins_and_decision(parsed, embedders, extent, dims, places, recall)
    seconds |= later.seconds
    seconds["decide"] += _OPENED * len(shards)
    if references.rows:
        seconds["across"] = _ACROSS * (total + references.rows)
    seconds["total"] = sum(seconds.values())
    tasks = {"scan": len(shards), **{f"embed {name}": len(shards) for name in embedders}, **later.tasks}
    if against:
        known = known_signals(embedders)
        joined = sum(known[name].stage == "match" for name in asked.compared.signals)
        tasks |= {"scan references": references.shards, "across": references.sets * joined}
    peak = _peak()
    per_shard = math.ceil(total / max(len(shards), 1)) * 2000  # rows with captions, until they are written
    return Plan(
        tasks=tasks,
        samples=total,
        bytes=(sum(sizes) + references.bytes) * (1 + len(embedders)),
        seconds=seconds,
        memory={"worker": peak + max(per_shard, later.worker), "main": peak + later.main + _HELD * references.rows},
        sampled=count,
        workers=workers,
        left_out=(
            *_verification(parsed, embedders, shards[0], total, workers, recall),
            *_LEFT_OUT.get(engine, ()),
            *later.assumes,
        ),
        own_bytes=later.nbytes,
    )


class _References(NamedTuple):
    """What reference sets add: their number, shards to scan, bytes to read, and rows to compare."""

    sets: int
    shards: int
    bytes: int
    rows: int


def _references(found: References, each: float) -> _References:
    """What there is to scan and compare; ``each`` is the size of an image in bytes."""
    shards = nbytes = rows = 0
    for number, reference in enumerate(found.named):
        if reference.kind == "images":
            theirs = find_shards(reference.path)
            size = sum(map(_size, theirs))
            shards, nbytes, rows = shards + len(theirs), nbytes + size, rows + (round(size / each) if each else 0)
        else:
            rows += found.rows[number]
    return _References(len(found.named), shards, nbytes, rows)


def _verification(
    rule: Rule, embedders: Mapping[str, str], shard: Shard, total: int, workers: int, recall: float
) -> tuple[str, ...]:
    """What is to be said of verification: how long it takes at most, where nearest neighbours are looked at."""
    known = known_signals(embedders)
    if not any(known[name].stage == "verify" for name in rule.signals):
        return ()
    looking = measure_looking(shard)
    unknown = "verification, whose time depends on how many pairs there are"
    if looking is None:
        return (unknown,)
    ranked = ranked_conditions(rule, {name for name in rule.signals if known[name].ranks})
    if not ranked:
        cost = f"{1000 * looking.image:,.0f} ms an image and {1000 * looking.pair:,.0f} ms a pair"
        return (f"{unknown}: {cost}, for each of {workers} processes",)
    from dedupkit.signals.vector_join import list_length

    pairs = list_length(total, recall) * total
    most = (looking.image * total + looking.pair * pairs) / workers
    return (f"verification: {most:,.0f} s if every image had a full list of {pairs // max(total, 1)} candidates",)


def _embed(beginning: Beginning, spec: str, samples: str, threads: int, device: str | None) -> float:
    from dedupkit.embedding.load import shared_embedder
    from dedupkit.stages.embed import embed_shard

    shared_embedder(spec, device)  # loading it is no part of the rate
    began = time.perf_counter()
    embed_shard(beginning, f"{samples}.npy", spec, samples_path=samples, threads=threads, device=device)
    return time.perf_counter() - began


def _size(shard: Shard) -> int:
    folders = [Path(path) for path in shard.paths if Path(path).is_dir()]
    if folders:
        return sum(file.stat().st_size + HEADERS for folder in folders for file in folder.rglob("*") if file.is_file())
    return sum(int(state[0] or 0) for state in stamps(list(shard.paths)) if state)


def _peak() -> int:
    """Most memory that this process has held, in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
