"""How many workers start where nobody says a number."""

from __future__ import annotations

import os

from dedupkit.errors import RangeError

__all__ = ["worker_count"]


def worker_count(workers: int | None, *, least: int = 0) -> int:
    """The number of workers that was asked for; for None one for each core that this process may use.

    Args:
        workers: The number, or None.
        least: The least number that makes sense: 1 for threads; 0 for processes, where it means the calling one alone.

    Raises:
        RangeError: It is smaller.

    >>> worker_count(3), worker_count(0), worker_count(None) >= 1
    (3, 0, True)
    >>> worker_count(-1)
    Traceback (most recent call last):
        ...
    dedupkit.errors.RangeError: the number of workers is at least 0, not -1
    """
    if workers is None:
        return _cores()
    if workers < least:
        raise RangeError(f"the number of workers is at least {least}, not {workers}")
    return workers


def _cores() -> int:
    """Cores that this process may use: ``taskset``, a batch system or a container's set of cores may leave it few."""
    try:
        return len(os.sched_getaffinity(0))
    except (AttributeError, OSError):  # not on every platform
        return os.cpu_count() or 1
