"""Runs tasks on this machine, in worker processes."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from dedupkit.engine.engine import Cost, Engine, Observe, OnDone, Summary, ThisProcess, in_this_process, run_waiting
from dedupkit.engine.process import WorkerDied, WorkerProcess
from dedupkit.engine.task import Task, execute_counted, mark_done

__all__ = ["LocalProcesses", "Take", "local_engine", "run_tasks"]

Take = Callable[[], tuple[int, Task] | None]
"""Gives a numbered task, or None where there is none left."""


def local_engine(workers: int) -> Engine:
    """The engine for a number of worker processes on this machine; with 0 all work is done in this process."""
    return LocalProcesses(workers) if workers else ThisProcess()


def run_tasks(
    tasks: Sequence[Task],
    out: Path,
    *,
    workers: int | Engine,
    on_done: OnDone | None = None,
    observe: Observe | None = None,
) -> list[Summary]:
    """Execute the tasks of one stage with a given engine, or with so many processes; see :meth:`Engine.run`."""
    with local_engine(workers) if isinstance(workers, int) else nullcontext(workers) as engine:
        return engine.run(tasks, out, on_done=on_done, observe=observe)


class LocalProcesses:
    """Runs tasks in worker processes, each of which is replaced when it dies.

    Tasks that run ``alone`` are done in this process. A single task, or a single worker, needs no process of its own
    unless the task is ``isolated``: then the work is done in this process too. A task that ends its process is tried
    once more; if that process dies too, the task's ``rescue`` is asked for another way.

    Args:
        workers: Number of processes at most, 1 or more.
    """

    def __init__(self, workers: int) -> None:
        self._workers = workers
        self._ready: list[WorkerProcess] = []  # started ahead, or kept, and not taken yet
        self._keeps = False

    def start(self, count: int, load: Callable[[], object]) -> None:
        """Start processes before their tasks are known, so that they load while this process does."""
        self._ready += [WorkerProcess(load) for _ in range(min(count, self._workers))]

    def run(
        self,
        tasks: Sequence[Task],
        out: Path,
        *,
        on_done: OnDone | None = None,
        meanwhile: Callable[[], None] | None = None,
        observe: Observe | None = None,
    ) -> list[Summary]:
        """Execute the tasks that are not done yet; see :meth:`Engine.run`. Processes that need not last end with it."""

        def run(jobs: list[tuple[int, Task]]) -> Iterator[tuple[int, Summary]]:
            todo = iter(jobs)
            lock = threading.Lock()

            def take() -> tuple[int, Task] | None:
                with lock:
                    return next(todo, None)

            here = all(task.alone for _, task in jobs)
            single = min(self._workers, len(jobs)) <= 1 and not any(task.isolated for _, task in jobs)
            if here or single:
                return in_this_process(todo, out, observe)
            return self.serve(take, out, len(jobs), meanwhile=meanwhile, observe=observe)

        return run_waiting(tasks, out, on_done, run)

    def serve(
        self,
        take: Take,
        out: Path,
        count: int,
        *,
        meanwhile: Callable[[], None] | None = None,
        observe: Observe | None = None,
    ) -> Iterator[tuple[int, Summary]]:
        """Execute what ``take`` gives until it gives None, each task in a worker process.

        One thread per process feeds it; the caller's thread hands out results and can be interrupted.

        Args:
            take: Gives a numbered task, or None; called from several threads.
            out: The run folder.
            count: Number of tasks at most.
            meanwhile: See :meth:`Engine.run`.
            observe: See :meth:`Engine.run`.
        """
        work = _Work(out, take)
        lanes: list[_Lane] = []
        keep = False
        try:
            for _ in range(min(self._workers, count)):
                lanes.append(_Lane(work, self._ready.pop() if self._ready else WorkerProcess()))
                lanes[-1].start()
            if meanwhile is not None:
                meanwhile()
            running = len(lanes)
            while running:
                done = work.done.get()
                if done is None:
                    running -= 1
                    continue
                if isinstance(done, BaseException):
                    raise done
                index, task, result, cost = done
                if observe is not None:
                    observe(task, cost)
                yield index, result
            keep = self._keeps
        finally:
            work.stop.set()
            self._ready += [process for lane in lanes if (process := lane.close(keep=keep)) is not None]

    @contextmanager
    def lasting(self) -> Iterator[None]:
        """Keep processes between calls of :meth:`run`; see :meth:`Engine.lasting`."""
        self._keeps = True
        try:
            yield
        finally:
            self._keeps = False
            self._end_ready()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end_ready()

    def _end_ready(self) -> None:
        while self._ready:
            self._ready.pop().end()


@dataclass(frozen=True, slots=True)
class _Work:
    """What the lanes of one stage share."""

    out: Path
    take: Take
    done: queue.SimpleQueue[tuple[int, Task, Summary, Cost] | BaseException | None] = field(
        default_factory=queue.SimpleQueue
    )  # None: a lane has ended
    stop: threading.Event = field(default_factory=threading.Event)


class _Lane(threading.Thread):
    """A worker process and the thread that feeds it."""

    def __init__(self, work: _Work, process: WorkerProcess) -> None:
        super().__init__(daemon=True)
        self._work, self._process = work, process
        self._dead = False
        self._deaths = self._requests = 0  # in this task
        self._replacing = threading.Lock()

    def run(self) -> None:
        try:
            while not self._work.stop.is_set() and (job := self._work.take()) is not None:
                index, task = job
                began = time.monotonic()
                self._deaths = self._requests = 0
                result = self._do(task)
                self._work.done.put((index, task, result, Cost(time.monotonic() - began, self._deaths, self._requests)))
        except BaseException as error:
            self._work.done.put(error)
        finally:
            self._work.done.put(None)

    def close(self, *, keep: bool = False) -> WorkerProcess | None:
        """End the process, and the thread follows; or let the thread end, and give the process away if it lives."""
        if keep:
            self.join()
            if not self._dead:
                return self._process
        with self._replacing:
            self._process.end()
        self.join()
        return None

    def _do(self, task: Task) -> Summary:
        call = partial(execute_counted, replace(task, rescue=None), self._work.out)
        for _ in range(2):
            try:
                result, self._requests = self._ask(call)
                return dict(result)
            except WorkerDied as death:
                ending = death
        if task.rescue is None or self._work.stop.is_set():
            raise _named(task, ending)
        try:
            result = task.rescue(self._ask)
        except WorkerDied as death:
            raise _named(task, death) from None
        mark_done(task, self._work.out, result)
        return result

    def _ask(self, call: Callable[[], Any]) -> Any:
        if self._dead:
            with self._replacing:
                if self._work.stop.is_set():
                    raise WorkerDied("stopped")
                self._process, self._dead = WorkerProcess(), False
        try:
            return self._process.ask(call)
        except WorkerDied:
            self._dead = True
            self._deaths += 1
            raise


def _named(task: Task, death: WorkerDied) -> WorkerDied:
    return WorkerDied(
        f"a worker process died twice ({death}) at {task.stage}/{task.name}: {task.label}; what was done is kept. "
        "If memory ran out, run the same command again with fewer --workers"
    )
