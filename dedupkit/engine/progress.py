"""Progress of a stage: a bar on a terminal, elsewhere a log line a minute."""

from __future__ import annotations

import sys
import threading
import time
from contextlib import suppress
from types import TracebackType
from typing import Any

__all__ = ["LOGGER", "Progress"]

LOGGER = "dedupkit"
"""The name of the logger; its level decides whether lines of progress (INFO) are shown, its handlers where."""


class Progress:
    """Shows how far a stage is, with rate and time left; a context manager.

    On a terminal it is a bar on standard error. Elsewhere it logs a line a minute, also while a single task takes
    long; a stage that takes less logs none.

    Args:
        label: The stage, as shown.
        total: Number of tasks.
        unit: What ``advance`` counts beside the tasks, e.g. ``img``.
        every: Seconds between log lines.
    """

    def __init__(self, label: str, total: int, unit: str = "task", *, every: float = 60.0) -> None:
        self._label, self._total, self._unit, self._every = label, total, unit, every
        self._tasks = self._count = 0
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
        if self._bar is not None:
            try:
                if self._count:
                    self._bar.set_postfix_str(self._rate())
                self._bar.update(1)
            except (OSError, ValueError):
                self._bar = None

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        if self._bar is not None:
            with suppress(OSError, ValueError):
                self._bar.close()

    def _log(self) -> None:
        while not self._ended.wait(self._every):
            import logging

            logging.getLogger(LOGGER).info(
                "%s: %s of %s tasks, %s, %.0f s so far",
                self._label,
                f"{self._tasks:,}",
                f"{self._total:,}",
                self._rate(),
                time.monotonic() - self._started,
            )

    def _rate(self) -> str:
        elapsed = max(time.monotonic() - self._started, 1e-9)
        return f"{self._count:,} {self._unit}, {self._count / elapsed:,.0f}/s"


def _on_terminal() -> bool:
    try:
        return sys.stderr is not None and sys.stderr.isatty()
    except ValueError:  # it is closed
        return False
