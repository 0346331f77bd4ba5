"""Run tasks on this machine, in worker processes."""

from __future__ import annotations

import os
import pickle
import queue
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from dedupkit.engine.task import Task, done_result, execute
from dedupkit.errors import DedupkitError

__all__ = ["WorkerDied", "run_tasks", "workers_ahead"]

# One thread per worker: the workers are the parallelism, and idle math threads spin.
_SINGLE_THREADED = dict.fromkeys(
    ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS"), "1"
)


# Workers that were started ahead and not taken yet.
_ready: list[subprocess.Popen[bytes]] = []


class WorkerDied(DedupkitError):  # noqa: N818 - an event, said as it happened
    """A worker process ended in the middle of a task (killed, out of memory, a crash in a native decoder)."""


def run_tasks(
    tasks: Sequence[Task],
    out: Path,
    *,
    workers: int,
    on_done: Callable[[Task, dict[str, Any]], None] | None = None,
    meanwhile: Callable[[], None] | None = None,
) -> list[dict[str, Any]]:
    """Execute the tasks that are not done yet.

    Args:
        tasks: of one stage, independent of one another.
        out: the run folder.
        workers: processes at most; with one, or one task left, the work is done in this process.
        on_done: called in this process after each task, also for those that were done before.
        meanwhile: called once in this process while workers are busy; not at all where it would wait for itself.

    Returns:
        The summaries, in the order of the tasks.

    Raises:
        WorkerDied: a task killed its worker twice.
        DedupkitError, OSError: what the task raised; what was done before stays done.
    """
    results: dict[int, dict[str, Any]] = {}
    waiting: list[int] = []
    for index, task in enumerate(tasks):
        result = done_result(task, out)
        if result is None:
            waiting.append(index)
        else:
            results[index] = result
            if on_done:
                on_done(task, result)
    jobs = [(index, tasks[index]) for index in waiting]
    lanes = min(workers, len(jobs))
    for index, result in _run_here(jobs, out) if lanes <= 1 else _run_in_workers(jobs, out, lanes, meanwhile):
        results[index] = result
        if on_done:
            on_done(tasks[index], result)
    return [results[index] for index in range(len(tasks))]


@contextmanager
def workers_ahead(count: int, module: str) -> Iterator[None]:
    """Start workers before their tasks are known, so that they load while this process does; see ``run_tasks``.

    Args:
        count: processes; ``run_tasks`` inside the block takes them before it starts others, and those that it does
            not take end with the block.
        module: what their tasks will need.
    """
    _ready.extend(_spawn(module) for _ in range(count))
    try:
        yield
    finally:
        while _ready:
            _end(_ready.pop())


def _spawn(module: str | None = None) -> subprocess.Popen[bytes]:
    path = os.pathsep.join(entry or str(Path.cwd()) for entry in sys.path)
    environment = {**os.environ, **_SINGLE_THREADED, "PYTHONPATH": path}
    # -P: modules come from where this process has them, not from whatever lies in the current folder.
    command = [sys.executable, "-P", "-m", "dedupkit.engine.worker", *([module] if module else [])]
    # A session of its own: the terminal's Ctrl-C reaches the parent alone, which then stops its workers.
    return subprocess.Popen(  # noqa: S603 - our own module
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, start_new_session=True
    )


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a worker at once, also in the middle of a task (a half-written file has a temporary name)."""
    with suppress(OSError):
        process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with suppress(OSError):
                pipe.close()


def _run_here(jobs: list[tuple[int, Task]], out: Path) -> Any:
    for index, task in jobs:
        yield index, execute(task, out)


def _run_in_workers(jobs: list[tuple[int, Task]], out: Path, workers: int, meanwhile: Callable[[], None] | None) -> Any:
    """One thread per worker process feeds it; the caller's thread hands out results and can be interrupted."""
    todo: queue.SimpleQueue[tuple[int, Task]] = queue.SimpleQueue()
    for job in jobs:
        todo.put(job)
    done: queue.SimpleQueue[tuple[int, dict[str, Any] | BaseException]] = queue.SimpleQueue()
    stop = threading.Event()
    lanes = [_Lane(out, todo, done, stop) for _ in range(workers)]
    for lane in lanes:
        lane.start()
    try:
        if meanwhile is not None:
            meanwhile()
        for _ in jobs:
            index, result = done.get()
            if isinstance(result, BaseException):
                raise result
            yield index, result
    finally:
        stop.set()
        for lane in lanes:
            lane.close()


class _Lane(threading.Thread):
    """A worker process and the thread that feeds it."""

    def __init__(self, out: Path, todo: Any, done: Any, stop: threading.Event) -> None:
        super().__init__(daemon=True)
        self._out, self._todo, self._done, self._stop_event = out, todo, done, stop
        self._process = _ready.pop() if _ready else _spawn()

    def run(self) -> None:
        while not self._stop_event.is_set():
            try:
                index, task = self._todo.get_nowait()
            except queue.Empty:
                return
            try:
                self._done.put((index, self._call(task)))
            except BaseException as error:
                self._done.put((index, error))
                return

    def _call(self, task: Task) -> dict[str, Any]:
        for attempt in (1, 2):
            stdin, stdout = self._process.stdin, self._process.stdout
            if stdin is None or stdout is None:
                raise WorkerDied("a worker process has no pipes")
            try:
                pickle.dump((task, self._out), stdin)
                stdin.flush()
                succeeded, result = pickle.load(stdout)  # noqa: S301 - our own worker wrote it
            except (EOFError, OSError, pickle.UnpicklingError):
                code = self._process.wait()
                if self._stop_event.is_set() or attempt == 2:
                    raise WorkerDied(
                        f"a worker process died (exit status {code}) at {task.stage}/{task.name}: "
                        f"{task.label}; what was done is kept, run the same command to go on"
                    ) from None
                self._process = _spawn()
                continue
            if succeeded:
                return dict(result)
            raise result
        raise AssertionError("unreachable")

    def close(self) -> None:
        """End the worker."""
        _end(self._process)
