"""Runs tasks on a Ray cluster whose nodes share the file system of the run folder, or the object store that it lies in.

Ray carries pickled tasks there and small summaries back; images, fingerprints and vectors go through files alone. A
task may run twice, so that nothing is lost or doubled by a retry.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from dedupkit import __version__
from dedupkit.engine._ray_worker import AloneWorker, Request, Shown, execute_here
from dedupkit.engine.engine import Cost, Observe, OnDone, Summary, run_waiting
from dedupkit.engine.process import WorkerDied
from dedupkit.engine.task import Task
from dedupkit.engine.travel import bring_results, pack
from dedupkit.errors import DedupkitError, import_optional

__all__ = ["RayCluster"]

_LOSSES = 20  # of one task; a cluster that loses nodes this often is no place to go on
_AGAIN = "what was done is kept, give the same command again"


class RayCluster:
    """Runs tasks as Ray core tasks, and tasks that run ``alone`` in actors: one for each GPU or each few cores.

    Args:
        address: The cluster's address, e.g. ``auto`` or ``ray://head:10001``; None for that in ``RAY_ADDRESS``, and
            without one for a Ray of its own on this machine.
        workers: Number of cores of an actor without a GPU; of a Ray on this machine also the number of its cores.

    Raises:
        MissingExtraError: Ray is not installed.
    """

    def __init__(self, address: str | None, workers: int) -> None:
        self._address, self._workers = address, workers
        self._ray: Any = import_optional("ray", "ray")
        self._ours = False

    def start(self, count: int, load: Callable[[], object]) -> None:
        """Do nothing; see :meth:`Engine.start`."""

    def run(
        self,
        tasks: Sequence[Task],
        out: Path,
        *,
        on_done: OnDone | None = None,
        meanwhile: Callable[[], None] | None = None,
        observe: Observe | None = None,
    ) -> list[Summary]:
        """Execute the tasks that are not done yet; see :meth:`Engine.run`."""

        def run(jobs: list[tuple[int, Task]]) -> Iterator[tuple[int, Summary]]:
            if not jobs:
                return
            actors = self._actors(len(jobs)) if all(task.alone for _, task in jobs) else []
            yield from _Stage(self._ray, out, observe, actors).run(jobs, meanwhile)
            bring_results((task for _, task in jobs), out)

        return run_waiting(tasks, out, on_done, run)

    def lasting(self) -> AbstractContextManager[None]:
        """Ray keeps its processes as it sees fit; see :meth:`Engine.lasting`."""
        return nullcontext()

    def __enter__(self) -> Self:
        if self._ray.is_initialized():  # a program that has connected already goes on with its own connection
            return self
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is sent anywhere
        address = self._address or os.environ.get("RAY_ADDRESS")
        own: dict[str, Any] = {} if address else {"num_cpus": self._workers, "include_dashboard": False}
        try:
            self._ray.init(address=address, logging_level="ERROR", log_to_driver=False, **own)
        except (ConnectionError, RuntimeError, ValueError) as error:
            first = str(error).strip().partition("\n")[0]
            raise DedupkitError(
                f"no Ray cluster at {address or 'this machine'}: {first}; start one with: ray start --head"
            ) from None
        self._ours = True
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._ours:
            self._ray.shutdown()
            self._ours = False

    def _actors(self, count: int) -> list[Any]:
        """Options of the actors that ``count`` tasks can use."""
        have = self._ray.cluster_resources()
        if have.get("GPU", 0) >= 1:
            return [{"num_gpus": 1, "num_cpus": 0}] * min(count, int(have["GPU"]))
        nodes = [int(node["Resources"].get("CPU", 0)) for node in self._ray.nodes() if node["Alive"]]
        cores = max(1, min(self._workers, max(nodes, default=1)))
        return [{"num_cpus": cores}] * max(1, min(count, sum(node // cores for node in nodes)))


@dataclass(frozen=True, slots=True)
class _Running:
    """A task that Ray has."""

    index: int
    task: Task
    began: float
    losses: int
    deaths: int  # losses in which its process alone ended
    actor: tuple[Any, dict[str, Any]] | None


class _Stage:
    """The tasks of one stage.

    Args:
        ray: The module.
        out: The folder that holds the markers.
        observe: See :meth:`Engine.run`.
        actors: Options of the actors that execute them; none where they are Ray tasks.
    """

    def __init__(self, ray: Any, out: Path, observe: Observe | None, actors: Sequence[dict[str, Any]]) -> None:
        self._ray, self._out, self._observe = ray, out, observe
        self._failed_starts = 0
        self._ended: set[int] = set()
        self._remote = ray.remote(execute_here).options(max_retries=0)
        self._actor_class = ray.remote(AloneWorker) if actors else None
        self._fixed = len(actors)
        self._idle: list[tuple[Any, dict[str, Any]]] = []
        self._starting: dict[Any, tuple[Any, dict[str, Any]]] = {}  # an actor that finds no room holds no task
        for options in actors:
            self._start_actor(options)
        self._running: dict[Any, _Running] = {}
        self._again_later: list[_Running] = []

    def run(
        self, jobs: Sequence[tuple[int, Task]], meanwhile: Callable[[], None] | None
    ) -> Iterator[tuple[int, Summary]]:
        """Execute the tasks; yields number and summary of each."""
        todo = iter(jobs)
        try:
            self._fill(todo)
            if meanwhile is not None:
                meanwhile()
            while len(self._ended) < len(jobs):
                ready, _ = self._ray.wait([*self._running, *self._starting], num_returns=1)
                for reference in ready:
                    if reference in self._starting:
                        self._started(reference)
                        continue
                    done = self._running.pop(reference)
                    result = self._result(reference, done)
                    if result is not None:
                        self._ended.add(done.index)
                        yield done.index, result
                self._fill(todo)
        finally:
            for reference, left in self._running.items():
                if left.actor is None:
                    self._ray.cancel(reference, force=True)
            taken = [left.actor for left in self._running.values() if left.actor]
            for actor in [*self._idle, *self._starting.values(), *taken]:
                self._ray.kill(actor[0])

    def _fill(self, todo: Iterator[tuple[int, Task]]) -> None:
        """Keep more tasks with Ray than it has cores, so that none waits for this process."""
        limit = 16 + 2 * int(self._ray.cluster_resources().get("CPU", 1))
        while self._idle if self._fixed else len(self._running) < limit:
            if self._again_later:
                self._submit(self._again_later.pop())
                continue
            job = next(todo, None)
            if job is None:
                return
            self._submit(_Running(*job, time.monotonic(), 0, 0, None))

    def _submit(self, running: _Running) -> None:
        careful = running.deaths > 0
        task = replace(running.task, rescue=running.task.rescue if careful else None)
        request = Request(__version__, pack(task, self._out), careful, str(Path.cwd()))
        if self._fixed:
            running = replace(running, actor=self._idle.pop())
            reference = running.actor[0].execute.remote(request)  # type: ignore[index]
        else:
            reference = self._remote.remote(request)
        self._running[reference] = running

    def _start_actor(self, options: dict[str, Any]) -> None:
        actor = self._actor_class.options(**options, max_restarts=0).remote()  # type: ignore[union-attr]
        self._starting[actor.ready.remote()] = (actor, options)

    def _started(self, reference: Any) -> None:
        actor = self._starting.pop(reference)
        try:
            self._ray.get(reference)
        except self._ray.exceptions.RayActorError as error:
            self._failed_starts += 1
            if self._failed_starts > _LOSSES:
                first = str(error).strip().partition("\n")[0]
                raise DedupkitError(
                    f"Ray's actors cannot start: {first}; install dedupkit {__version__} on every node"
                ) from None
            self._start_actor(actor[1])
        else:
            self._idle.append(actor)

    def _result(self, reference: Any, done: _Running) -> Summary | None:
        """What came of a task; None where it was begun again."""
        errors = self._ray.exceptions
        task = done.task
        try:
            said = self._ray.get(reference)
        except errors.RayTaskError as error:  # nothing of ours: the function could not be loaded there
            text = str(error.cause if getattr(error, "cause", None) else error).strip().splitlines()[-1]
            raise DedupkitError(
                f"a Ray worker could not begin {task.stage}/{task.name} ({task.label}): {text}; install dedupkit "
                f"{__version__} on every node"
            ) from None
        except errors.RayError as error:  # a process or node that died, memory, a lost object
            self._again(done, error)
            return None
        if done.actor is not None:
            self._idle.append(done.actor)
        if isinstance(said, Shown):
            raise said.error
        if self._observe is not None:
            self._observe(task, Cost(time.monotonic() - done.began, done.losses, said.requests))
        summary: Summary = said.summary
        return summary

    def _again(self, done: _Running, error: Exception) -> None:
        """Put a task back whose process or node was lost."""
        died = type(error).__name__ in ("WorkerCrashedError", "ActorDiedError", "RayActorError")
        task = done.task
        if done.losses + 1 > _LOSSES or (task.alone and done.deaths > 1):
            first = str(error).strip().partition("\n")[0]
            raise WorkerDied(
                f"Ray lost {task.stage}/{task.name} ({task.label}) {done.losses + 1} times, last: {first}; {_AGAIN}"
            ) from None
        if done.actor is not None:
            self._start_actor(done.actor[1])
        self._again_later.append(replace(done, losses=done.losses + 1, deaths=done.deaths + died, actor=None))
