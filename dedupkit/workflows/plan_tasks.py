"""What comes after the scan: tasks, bytes, time and memory of joins and decisions, one task each or many."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from math import inf

from dedupkit.clustering.rules import Rule
from dedupkit.signals import JoinSettings, known_signals
from dedupkit.signals.expected import Extent
from dedupkit.stages.match_tasks import tasks_from
from dedupkit.stages.parts import expected_parts
from dedupkit.stages.plan import loosest_unranked, ranked_conditions

__all__ = ["Later", "Places", "joins_and_decision"]

_DECIDE = 10e-6  # seconds a sample, with the tables
_WHOLE = {"join": 165, "decide": 250}  # bytes a sample in the main process, of what is one task
_PARTS = 60  # the same where the decision is made in parts
_ROW, _PAIR = 32, 12  # bytes of a sample and of a pair in the files of parts
_ROW_HELD, _PAIR_HELD = 100, 50  # bytes that a part holds for them


@dataclass(frozen=True, slots=True)
class Places:
    """Where tasks run.

    Attributes:
        here: Whether on this machine alone.
        workers: Number of processes of all machines.
        threads: Number of threads of a join that is one task.
    """

    here: bool
    workers: int
    threads: int


@dataclass(slots=True)
class Later:
    """What comes after the scan.

    Attributes:
        tasks: Number of tasks by stage.
        seconds: Time by stage.
        nbytes: Bytes of the run folder that joins and decisions read that are many tasks.
        worker: Bytes that the largest of these tasks holds.
        main: Bytes that the main process holds.
        assumes: What the figures assume.
    """

    tasks: dict[str, int] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    nbytes: int = 0
    worker: int = 0
    main: int = 0
    assumes: tuple[str, ...] = ()


def joins_and_decision(
    rule: Rule, embedders: Mapping[str, str], extent: Extent, dims: Mapping[str, int], places: Places, recall: float
) -> Later:
    """What joins and decisions take.

    Args:
        rule: The rule.
        embedders: Embedder specification by signal name.
        extent: What is known of the samples.
        dims: Length of the vectors of each embedder that was tried.
        places: Where tasks run.
        recall: Recall of clustered searches.

    Raises:
        DedupkitError: A number of samples in the environment is none.
    """
    known, later = known_signals(embedders), Later()
    joined = [known[name] for name in rule.signals if known[name].stage == "match"]
    ranked = ranked_conditions(rule, {name for name in rule.signals if known[name].ranks})
    many = extent.samples >= tasks_from(here=places.here)
    single, took = 0, 0.0
    for signal in joined:
        atom = loosest_unranked(rule, signal.name, ranked)
        floor = ranked[signal.name].bound if signal.name in ranked else None
        settings = JoinSettings(inf if atom is None else atom.bound or 0.0, target_recall=recall, floor=floor)
        own = replace(extent, dims=dims.get(signal.name, extent.dims))
        expected = signal.expected(own, settings)
        if many and expected.tasks > 1:
            later.tasks[f"match {signal.name}"] = expected.tasks
            later.seconds[f"match {signal.name}"] = expected.seconds / min(places.workers, expected.tasks)
            later.nbytes += expected.nbytes
            later.worker = max(later.worker, expected.memory)
        else:
            single, took = single + 1, took + expected.seconds / places.threads
    if single or not joined:
        later.tasks["match"], later.seconds["match"] = single, took
    pairs = extent.samples if joined else 0
    parts = expected_parts(extent.samples, pairs)
    later.tasks["decide"], later.seconds["decide"] = parts or 1, _DECIDE * extent.samples
    held = [_WHOLE["join"]] if single else []
    if parts:
        later.nbytes += _ROW * extent.samples + _PAIR * pairs
        later.worker = max(later.worker, (_ROW_HELD * extent.samples + _PAIR_HELD * pairs) // parts)
        later.assumes = (f"pairs: one a sample is assumed for {parts} parts of the decision",)
    later.main = max(*held, _PARTS if parts else _WHOLE["decide"], 0) * extent.samples
    return later
