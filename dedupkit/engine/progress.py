"""Progress on standard error, with rate and time left; silent where standard error is no terminal."""

from __future__ import annotations

import sys
from types import TracebackType

__all__ = ["Progress"]


class Progress:
    """A bar for one stage; a no-op without a terminal, so that logs and notebooks stay clean.

    Args:
        label: the stage, as shown.
        total: tasks, None if unknown.
        unit: what ``advance`` counts beside the tasks, e.g. ``img``.
    """

    def __init__(self, label: str, total: int | None, unit: str = "task") -> None:
        self._bar = None
        self._unit = unit
        self._count = 0
        if sys.stderr.isatty():
            from tqdm import tqdm

            self._bar = tqdm(total=total, desc=label, unit="task", leave=False, dynamic_ncols=True)

    def advance(self, count: int = 0) -> None:
        """One task is done, which handled ``count`` units."""
        self._count += count
        if self._bar is not None:
            elapsed = max(self._bar.format_dict["elapsed"], 1e-9)
            if self._count:
                self._bar.set_postfix_str(f"{self._count:,} {self._unit}, {self._count / elapsed:,.0f}/s")
            self._bar.update(1)

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.close()
