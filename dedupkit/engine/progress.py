"""Progress of a stage: a bar on a terminal, elsewhere a log line a minute."""

from __future__ import annotations

import heapq
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from dedupkit.engine.engine import Cost
from dedupkit.engine.task import Task
from dedupkit.store import read_json, retried, write_json

__all__ = ["LOGGER", "Progress"]

LOGGER = "dedupkit"
"""The name of the logger; its level decides whether lines of progress (INFO) are shown, its handlers where."""

_SECONDS_BETWEEN_FILES = 2.0
_SLOWEST = 5


class Progress:
    """Shows how far a stage is, with rate and time left; a context manager.

    On a terminal it is a bar on standard error. Elsewhere it logs a line a minute, also while a single task takes
    long; a stage that takes less logs none.

    Args:
        label: The stage, as shown.
        total: Number of tasks.
        unit: What ``advance`` counts beside the tasks, e.g. ``img``.
        every: Seconds between log lines.
        path: File that states the progress as JSON, written whole and at most every two seconds, once a task was
            executed; see ``docs/running-at-scale.md``. None to write none.
    """

    def __init__(
        self, label: str, total: int, unit: str = "task", *, every: float = 60.0, path: Path | None = None
    ) -> None:
        self._label, self._total, self._unit, self._every = label, total, unit, every
        self._tasks = self._count = 0
        self._path, self._written = path, 0.0
        self._executed = self._retries = self._requests = 0
        self._requests_before = retried()
        self._slowest: list[tuple[float, str]] = []  # a heap
        self._started = time.monotonic()
        self._ended = threading.Event()
        self._bar: Any = None
        if _on_terminal():
            from tqdm import tqdm

            with suppress(OSError, ValueError):  # nobody reads standard error any more
                self._bar = tqdm(total=total, desc=label, unit="task", leave=False, dynamic_ncols=True)
        else:
            threading.Thread(target=self._log, name=f"progress of {label}", daemon=True).start()

    def advance(self, count: int = 0) -> None:
        """One task is done, which handled ``count`` units."""
        self._tasks += 1
        self._count += count
        if self._executed and time.monotonic() - self._written > _SECONDS_BETWEEN_FILES:
            self._write_file()
        if self._bar is not None:
            try:
                if self._count:
                    self._bar.set_postfix_str(self._rate())
                self._bar.update(1)
            except (OSError, ValueError):
                self._bar = None

    def observe(self, task: Task, cost: Cost) -> None:
        """Note what a task took that was executed now; see :meth:`dedupkit.engine.Engine.run`."""
        self._executed += 1
        self._retries += cost.retries
        self._requests += cost.requests
        shown = task.label or f"{task.stage}/{task.name}"
        push = heapq.heappush if len(self._slowest) < _SLOWEST else heapq.heappushpop
        push(self._slowest, (cost.seconds, shown))
        if cost.retries:
            _log("%s: %s was tried %d times", self._label, shown, cost.retries + 1)

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        if self._executed:
            self._write_file()
        if again := self._asked_again():
            _log("%s: stores were asked again %s times, for what failed and may pass", self._label, f"{again:,}")
        if self._bar is not None:
            with suppress(OSError, ValueError):
                self._bar.close()

    def _log(self) -> None:
        while not self._ended.wait(self._every):
            slowest = max(self._slowest, default=None)
            _log(
                "%s: %s of %s task%s, %s%.0f s so far%s",
                self._label,
                f"{self._tasks:,}",
                f"{self._total:,}",
                "" if self._total == 1 else "s",
                f"{self._rate()}, " if self._unit != "task" else "",
                time.monotonic() - self._started,
                f"; slowest: {slowest[1]}, {slowest[0]:.0f} s" if slowest else "",
            )

    def _write_file(self) -> None:
        if self._path is None:
            return
        seconds = time.monotonic() - self._started
        stage = {
            "tasks": self._total,
            "done": self._tasks,
            "executed": self._executed,
            "retries": self._retries,
            "requests_retried": self._asked_again(),
            "unit": self._unit,
            "count": self._count,
            "per_second": round(self._count / max(seconds, 1e-9), 1),
            "seconds": round(seconds, 1),
            "slowest": [{"task": shown, "seconds": round(took, 3)} for took, shown in sorted(self._slowest)[::-1]],
        }
        before = read_json(self._path)
        stages = before.get("stages") if isinstance(before, dict) else None
        with suppress(OSError):  # what it says is not worth a run
            write_json(self._path, {"stage": self._label, "stages": {**(stages or {}), self._label: stage}})
        self._written = time.monotonic()

    def _asked_again(self) -> int:
        return self._requests + retried() - self._requests_before

    def _rate(self) -> str:
        elapsed = max(time.monotonic() - self._started, 1e-9)
        return f"{self._count:,} {self._unit}, {self._count / elapsed:,.0f}/s"


def _log(message: str, *values: Any) -> None:
    import logging

    logging.getLogger(LOGGER).info(message, *values)


def _on_terminal() -> bool:
    try:
        return sys.stderr is not None and sys.stderr.isatty()
    except ValueError:  # it is closed
        return False
