"""The stages of a run as lists of tasks: scan, embed, match, verify.

Arrays are for the tasks; this file loads none, so that a scan begins before its own process has loaded them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from importlib import import_module
from math import inf
from typing import Any

from dedupkit.engine import Engine, Progress, Task, ThisProcess, cache_key
from dedupkit.engine.marker import read_marker
from dedupkit.errors import DedupkitError
from dedupkit.runfolder import RunConfig
from dedupkit.runfolder.scanned import scan_digest, scan_key, scanned_samples
from dedupkit.signals import SIGNALS, JoinSettings, Signal, known_signals
from dedupkit.sources.limits import MAX_IMAGE_BYTES, USUAL_IMAGE_BYTES
from dedupkit.sources.sample import paths_to_ask
from dedupkit.stages.meta import refuse_empty
from dedupkit.stages.plan import Job, loosest_unranked
from dedupkit.stages.scan_task import scan_task, scan_without_killers
from dedupkit.store import remove_tree, stamps

__all__ = ["match_samples", "run_stages", "scan_and_embed", "scan_samples", "verify_samples"]

_LATER = ("dedupkit.stages.match", "dedupkit.stages.decide", "dedupkit.stages.references", "dedupkit.stages.across")
"""Modules of later stages, those for references last."""

_SAMPLES_FORMAT = 5  # raise it when the columns of samples/, what is read of a source, or the meaning of a hash change


def run_stages(job: Job, engine: Engine) -> dict[str, str]:
    """Bring samples, embeddings and edges up to what the rule needs; what is there already stays.

    Args:
        job: What is to be computed.
        engine: Where tasks run; a join that is one task is made in this process.

    Returns:
        As :func:`scan_and_embed`.
    """
    done = match_samples(job, engine)
    verify_samples(job, done, engine)
    return done


def match_samples(job: Job, engine: Engine) -> dict[str, str]:
    """All stages but verification; arguments and result as those of :func:`run_stages`."""
    done = scan_and_embed(job, engine)
    _remove_stale(job, done)
    _match(job, _joined(job), done, engine)
    return done


def verify_samples(job: Job, done: Mapping[str, str], engine: Engine, config: RunConfig | None = None) -> None:
    """Verify the pairs on which the rule's verdict depends.

    Args:
        job: What is to be computed.
        done: What :func:`match_samples` returned.
        engine: Where pairs are verified.
        config: What was asked of a run whose samples were joined with references: what duplicates one of these is
            settled.
    """
    if any(known_signals(job.embedders)[name].stage == "verify" for name in job.rule.signals):
        from dedupkit.stages.verify import verify_candidates

        verify_candidates(job, cache_key(_keys(job, done)), engine, config)


def _remove_stale(job: Job, done: Mapping[str, str]) -> None:
    """Remove what vouches for pairs of other samples or vectors than those that are there now.

    The rule in force may not name their signal; a later one that does would take them for pairs of these samples.
    """
    known = known_signals(job.embedders)
    markers = {path.stem: path for path in job.folder.marker("match", "any").parent.glob("*.json")}
    stale = set()
    for name, path in markers.items():
        if name in known and known[name].stage == "match":
            key, marker = _key(job, known[name], done), read_marker(path)
            if marker is None or marker.key != key:
                stale.add(name)
    if stale:  # pairs are verified that joins found
        stale |= {name for name in markers if name not in known or known[name].stage == "verify"}
    for name in sorted(stale):
        remove_tree(markers[name])


def _joined(job: Job) -> list[Signal]:
    """The signals of the rule that have a join."""
    known = known_signals(job.embedders)
    return [known[name] for name in job.rule.signals if known[name].stage == "match"]


def _keys(job: Job, done: Mapping[str, str]) -> dict[str, str]:
    """By joined signal the digest of what its pairs depend on, but for how far they go."""
    return {signal.name: _key(job, signal, done) for signal in _joined(job)}


def _key(job: Job, signal: Signal, done: Mapping[str, str]) -> str:
    return cache_key([done.get(signal.name, done["scan"]), signal.join_key(_settings(job, signal.name))])


def _settings(job: Job, name: str) -> JoinSettings:
    """How far a signal is joined, and how."""
    how, ranked, atom = job.computing, job.ranked, loosest_unranked(job.rule, name, job.ranked)
    bound = inf if atom is None else atom.bound or 0.0
    floor = ranked[name].bound if name in ranked else None
    return JoinSettings(bound, how.threads, how.target_recall, how.seed, how.device, floor)


def scan_samples(job: Job, engine: Engine) -> list[str]:
    """Scan every shard that is not scanned yet; returns a digest of what was read of each."""
    known = known_signals(job.embedders)
    return _scan(job, [known[name] for name in job.rule.signals if name in known], engine)


def scan_and_embed(job: Job, engine: Engine) -> dict[str, str]:
    """Bring samples and embeddings up to what the job names; what is there already stays.

    Args:
        job: What is to be computed.
        engine: Where tasks run.

    Returns:
        Digests of what was read (``scan``) and of the vectors of each embedder.
    """
    scanned = scan_samples(job, engine)
    embedded = {name: _embed(job, name, spec, scanned, engine) for name, spec in job.embedders.items()}
    return {"scan": cache_key(scanned), **embedded}


def _scan(job: Job, signals: Sequence[Signal], engine: Engine) -> list[str]:
    """Read every shard; returns a digest of what was read of each."""
    tasks = []
    requested = [SIGNALS[name] for name in job.hashes]
    asked = [signal.scan_key for signal in requested]
    limit = [] if MAX_IMAGE_BYTES == USUAL_IMAGE_BYTES else [MAX_IMAGE_BYTES]
    asked_for = [paths_to_ask(shard) for shard in job.shards]
    known = iter(stamps([path for paths in asked_for for path in paths]))
    for number, shard in enumerate(job.shards):
        states = [next(known) for _ in asked_for[number]]
        read = cache_key([_SAMPLES_FORMAT, shard.source, shard.paths, states, shard.settings, asked, *limit])
        key = scan_key(read, job.meta)
        path = str(job.folder.samples(number))
        call = partial(scan_task, shard, path, requested, job.meta)
        rescue = partial(scan_without_killers, shard, path, requested, job.meta)
        tasks.append(Task("scan", f"{number:05d}", call, key, shard.source, (path,), isolated=True, rescue=rescue))
    ahead = _LoadAhead(signals, job.beside)
    with Progress("scan", len(tasks), "img", path=job.folder.progress) as progress:

        def on_done(_: Task, result: dict[str, Any]) -> None:
            progress.advance(result["samples"])
            ahead.add(result["samples"])

        results = engine.run(tasks, job.folder.path, on_done=on_done, meanwhile=ahead.begin, observe=progress.observe)
    if results and all(result.get("holds_none") for result in results):
        raise DedupkitError(f"{job.shards[0].source} holds no images: {results[0]['problem']}")
    if job.meta:  # not of a reference set
        refuse_empty(job.policy.meta, results, job.shards)
    return [scan_digest(task.key, result) for task, result in zip(tasks, results, strict=True)]


class _LoadAhead:
    """Loads what the later stages need while the workers scan: a second of work that nobody waits for.

    Args:
        signals: Signals of the rule.
        beside: How many rows beside the samples will be joined with them.
    """

    def __init__(self, signals: Sequence[Signal], beside: int = 0) -> None:
        self._signals = signals
        self._samples = self._beside = beside
        self._begun = False

    def begin(self) -> None:
        """Load now: this process has nothing else to do."""
        self._begun = True
        for module in _LATER if self._beside else _LATER[:2]:
            import_module(module)
        self._warm_up()

    def add(self, samples: int) -> None:
        """More samples are scanned, so a join may need more than before."""
        self._samples += samples
        if self._begun:
            self._warm_up()

    def _warm_up(self) -> None:
        for signal in self._signals:
            signal.warm_up(self._samples)


def _embed(job: Job, name: str, spec: str, scanned: list[str], engine: Engine) -> str:
    """Give every sample its vector, with one model in each process that embeds; returns a digest of the vectors."""
    from dedupkit.embedding.keys import embedder_key
    from dedupkit.embedding.precomputed import Precomputed, load_precomputed
    from dedupkit.embedding.spec import parse_spec
    from dedupkit.stages.embed import embed_shard, join_shard

    how, model, parsed = job.computing, embedder_key(spec), parse_spec(spec)
    source: Any = load_precomputed(spec) if parsed.scheme == "precomputed" else job.given.get(name, spec)
    vectors = source if isinstance(source, Precomputed) else None
    by = _identifiers(job) if vectors is not None or _were_joined(job, name, source, [model, scanned[0]]) else []
    projection: str | None = None
    if isinstance(source, str) and parsed.projection is not None:  # a path of its own, which can travel
        source, projection = parsed.projected(None), str(parsed.projection)
    tasks = []
    for number, shard in enumerate(job.shards):
        path, samples = str(job.folder.embeddings(name, number)), str(job.folder.samples(number))
        inputs = (samples,) if projection is None else (samples, projection)
        if vectors is not None:
            call = partial(join_shard, path, vectors, samples, by=by)
        else:
            call = partial(
                embed_shard, shard, path, source, samples_path=samples, threads=how.threads, device=how.device,
                key=model, projection=projection,
            )  # fmt: skip
        key = cache_key([model, scanned[number], *by])
        tasks.append(Task(f"embed-{name}", f"{number:05d}", call, key, shard.source, (path,), inputs, alone=True))
    where = engine if isinstance(source, str) else ThisProcess()  # what was given as an object stays in this process
    with Progress(f"embed {name}", len(tasks), "img", path=job.folder.progress) as progress:
        results = where.run(
            tasks,
            job.folder.path,
            on_done=lambda _, result: progress.advance(result["samples"]),
            observe=progress.observe,
        )
    failures = [result["failure"] for result in results if result["failed"]]
    if failures and not any(result["embedded"] for result in results):
        raise DedupkitError(f"{name} gave no image a vector; the first failure: {failures[0]}")
    return cache_key([[task.key, result] for task, result in zip(tasks, results, strict=True)])


def _were_joined(job: Job, name: str, source: Any, asked: list[str]) -> bool:
    """Whether an earlier call joined vectors by identifiers that were an object of Python, and are not given again."""
    if not isinstance(source, str) or not source.startswith("python:"):
        return False
    marker = read_marker(job.folder.embed_marker(name, 0))
    return marker is not None and marker.key != cache_key(asked)


def _identifiers(job: Job) -> list[str]:
    """What vectors can be joined by: keys name a sample only where no two shards share them."""
    import pyarrow.compute as pc

    from dedupkit.signals.columns import read_column

    keys = read_column(job.folder, len(job.shards), "key")["key"]
    keys = keys.filter(pc.not_equal(keys, ""))  # stands for the rest of a shard that broke off, and names nothing
    return ["uid", "key", "url"] if len(keys.unique()) == len(keys) else ["uid", "url"]


def _match(job: Job, signals: Sequence[Signal], done: Mapping[str, str], engine: Engine) -> None:
    """Join each signal, out to the loosest bound that the rule states or that was joined before.

    Of an alternative ``(embedder>=floor and verified)`` only the nearest neighbours above the floor are joined.
    """
    from dedupkit.stages.match import match_signal
    from dedupkit.stages.match_tasks import clear_tasks, match_as_tasks

    keys = _keys(job, done)
    with Progress("match", len(signals), path=job.folder.progress) as progress:
        for signal in signals:
            name, key, settings = signal.name, keys[signal.name], _settings(job, signal.name)
            atom, floor = loosest_unranked(job.rule, name, job.ranked), settings.floor
            before = job.folder.joined(name, key)
            enough = before is not None and (atom is None or replace(atom, bound=float(before["bound"])).covers(atom))
            if before is None or not enough or (floor is not None and before.get("ranks", {}).get("floor") != floor):
                remove_tree(job.folder.marker("match", name))  # its key does not say how far the pairs go
                if floor is not None:
                    from dedupkit.stages.known_copies import known_copies

                    samples = scanned_samples(job.folder, len(job.shards))
                    settings = replace(settings, known=known_copies(job, name, done[name], samples * samples / 2))
                if not match_as_tasks(job, signal, settings, key, engine):
                    call = partial(match_signal, str(job.folder.path), len(job.shards), signal, settings)
                    outputs = (str(job.folder.edges(name).parent),)
                    task = Task("match", name, call, key, label=name, outputs=outputs)
                    for path in [job.folder.parts(name), *job.folder.edge_files(name)]:
                        remove_tree(path)  # of a join that was many tasks
                    ThisProcess().run([task], job.folder.path, observe=progress.observe)
            else:
                clear_tasks(job.folder, name)
            progress.advance()
