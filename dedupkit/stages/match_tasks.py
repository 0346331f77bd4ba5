"""Joins that are too large for one process, or worth sharing: many tasks, on any engine."""

from __future__ import annotations

import os
from functools import partial
from typing import Any

from dedupkit.engine import Engine, LocalProcesses, Progress, Task, ThisProcess
from dedupkit.errors import DedupkitError
from dedupkit.runfolder import RunFolder
from dedupkit.runfolder.scanned import scanned_samples
from dedupkit.signals import JoinSettings, Signal
from dedupkit.signals.columns import Scanned
from dedupkit.stages.plan import Job
from dedupkit.store import remove_tree

__all__ = ["clear_tasks", "match_as_tasks", "tasks_from"]

HERE_FROM = 20_000_000
"""Samples from which on one machine makes a join in pieces: below, one process needs at most about 3.3 GiB for it."""

SPREAD_FROM = 2_000_000
"""Samples from which on a cluster does: below, one process joins them in less than a minute."""


def match_as_tasks(job: Job, signal: Signal, settings: JoinSettings, key: str, engine: Engine) -> bool:
    """Join one signal as many tasks, and write the marker of the join; the edges are those of the join in one task.

    Args:
        job: What is computed.
        signal: The signal.
        settings: How far, and how.
        key: Key of the marker.
        engine: Where the tasks run.

    Returns:
        Whether it was: False where there are too few samples for it, or the signal is joined in one task.

    Raises:
        DedupkitError: ``DEDUPKIT_JOIN_TASKS_FROM`` is no number.
    """
    folder = job.folder
    samples = scanned_samples(folder, len(job.shards))
    if samples < tasks_from(here=isinstance(engine, LocalProcesses | ThisProcess)):
        return False
    steps = signal.steps(Scanned(folder, len(job.shards)), settings, key, samples)
    if steps is None:
        return False
    done: list[dict[str, Any]] | None = None
    while True:
        try:
            tasks = next(steps) if done is None else steps.send(done)
        except StopIteration as end:
            facts = end.value
            break
        written = {output for task in tasks for output in task.outputs}
        with Progress(f"match {signal.name}", len(tasks), path=folder.progress) as progress:
            done = engine.run(
                tasks, folder.path, on_done=lambda *_, p=progress: p.advance(), observe=progress.observe
            )  # fmt: skip
    for path in folder.edge_files(signal.name):
        if str(path) not in written:
            path.unlink()  # of a join that had more tasks
    made = [*folder.edge_files(signal.name), folder.labels(signal.name)]
    outputs = tuple(str(path) for path in made if path.exists())
    ThisProcess().run([Task("match", signal.name, partial(dict, facts), key, outputs=outputs)], folder.path)
    clear_tasks(folder, signal.name)
    return True


def clear_tasks(folder: RunFolder, signal: str) -> None:
    """Remove what the tasks of a join left for one another, once its marker is written."""
    remove_tree(folder.parts(signal))
    remove_tree(folder.done / f"match-{signal}")


def tasks_from(*, here: bool) -> int:
    """Number of samples from which on a join is many tasks.

    Args:
        here: Whether they run on this machine alone.

    Raises:
        DedupkitError: ``DEDUPKIT_JOIN_TASKS_FROM`` is no number.
    """
    stated = os.environ.get("DEDUPKIT_JOIN_TASKS_FROM")
    if stated is None:
        return HERE_FROM if here else SPREAD_FROM
    if not stated.isdecimal():
        raise DedupkitError(f"DEDUPKIT_JOIN_TASKS_FROM is a number of samples, not {stated!r}")
    return int(stated)
