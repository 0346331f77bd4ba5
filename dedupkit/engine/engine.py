"""What every engine does with tasks, and what they share."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

from dedupkit.engine.task import Task, done_result, execute

__all__ = ["Cost", "Engine", "Observe", "OnDone", "Summary", "ThisProcess", "in_this_process", "run_waiting"]

Summary = dict[str, Any]
OnDone = Callable[[Task, Summary], None]


@dataclass(frozen=True, slots=True)
class Cost:
    """What executing a task took; it is shown, and is part of no result.

    Attributes:
        seconds: Time from taking the task to its marker.
        retries: How often it was begun again because its process or machine was lost.
        requests: How often another process that executed it asked a store again for what failed and may pass.
    """

    seconds: float
    retries: int = 0
    requests: int = 0


Observe = Callable[[Task, Cost], None]


class Engine(Protocol):
    """Runs the tasks of a stage, one stage after the other; a context manager that owns what it starts.

    Two engines share nothing, so two jobs may run in two threads of one process.
    """

    def start(self, count: int, load: Callable[[], object]) -> None:
        """Prepare for tasks that are not known yet; an engine may do nothing.

        Args:
            count: Number of tasks that will run at once.
            load: Function of a module that loads what they need.
        """

    def run(
        self,
        tasks: Sequence[Task],
        out: Path,
        *,
        on_done: OnDone | None = None,
        meanwhile: Callable[[], None] | None = None,
        observe: Observe | None = None,
    ) -> list[Summary]:
        """Execute the tasks that are not done yet.

        Args:
            tasks: Tasks of one stage, independent of one another.
            out: The run folder.
            on_done: Called in the caller's thread after each task, also for those that were done before.
            meanwhile: Called once in the caller's thread while the tasks run elsewhere; not called where they run in
                this process.
            observe: Called in the caller's thread with the cost of each task that was executed now, before
                ``on_done``.

        Returns:
            The summaries, in the order of the tasks.

        Raises:
            WorkerDied: A task ended its process twice, and nothing can be done without it.
            DedupkitError, OSError: What a task raised; what was done before stays done.
        """

    def lasting(self) -> AbstractContextManager[None]:
        """Until this ends, processes stay between calls of :meth:`run`, with what they have loaded: for short calls."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def run_waiting(
    tasks: Sequence[Task],
    out: Path,
    on_done: OnDone | None,
    run: Callable[[list[tuple[int, Task]]], Iterator[tuple[int, Summary]]],
) -> list[Summary]:
    """Run the tasks that are not done, and collect the summaries of all in order.

    Args:
        tasks: Tasks of one stage.
        out: The run folder.
        on_done: Called after each task, also for those that were done before.
        run: Executes numbered tasks and yields number and summary as each ends.
    """
    results: dict[int, Summary] = {}
    for index, task in enumerate(tasks):
        result = done_result(task, out)
        if result is not None:
            results[index] = result
            if on_done:
                on_done(task, result)
    for index, result in run([(index, task) for index, task in enumerate(tasks) if index not in results]):
        results[index] = result
        if on_done:
            on_done(tasks[index], result)
    return [results[index] for index in range(len(tasks))]


def in_this_process(
    jobs: Iterator[tuple[int, Task]], out: Path, observe: Observe | None
) -> Iterator[tuple[int, Summary]]:
    """Execute numbered tasks one after the other; yields number and summary of each."""
    for index, task in jobs:
        began = time.monotonic()
        result = execute(task, out)
        if observe is not None:
            observe(task, Cost(time.monotonic() - began))
        yield index, result


class ThisProcess:
    """Runs tasks one after the other in this process; a native crash in one of them ends it."""

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
        del meanwhile  # it would wait for itself
        return run_waiting(tasks, out, on_done, lambda jobs: in_this_process(iter(jobs), out, observe))

    def lasting(self) -> AbstractContextManager[None]:
        """Nothing to keep; see :meth:`Engine.lasting`."""
        return nullcontext()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None
