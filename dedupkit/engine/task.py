"""A task, and the marker that says it is done.

A stage is a list of independent tasks. A task calls a function of a module, which pickles by reference, so that any
process on any machine can call it. It writes its files whole or not at all; its marker ``.done/{stage}/{name}.json``
comes last; see :mod:`dedupkit.engine.marker`. Resume, many processes and a cluster are this one mechanism.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any

from dedupkit.engine.marker import marker_path, read_marker, write_marker
from dedupkit.store import mirror_of, retried

__all__ = ["Task", "cache_key", "done_result", "execute", "execute_counted", "mark_done"]


@dataclass(frozen=True, slots=True)
class Task:
    """One unit of work.

    Attributes:
        stage: ``scan``, ``embed``, ``match``, …
        name: unique in its stage, e.g. ``00017``.
        call: The work: a ``functools.partial`` of a module's function with picklable arguments, whose types a checker
            compares with the function's. It returns a summary that has a JSON form.
        key: The :func:`cache_key` of everything that the result depends on; with another key the task is not done.
        label: What the task is about, for messages: a shard's name, "512 pairs".
        outputs: The files that it writes, or folders for its files alone; where one is missing or not as the task
            wrote it, the task is not done.
        inputs: The files of the run folder that it reads; an engine brings them to where the task runs.
        isolated: Whether it must not run in the process that owns the engine, because it reads what may crash a
            decoder.
        alone: Whether it uses all threads, or the GPU, of its process, and leaves there what the next such task needs
            (a model): an engine gives each process one after the other.
        rescue: Another way to the summary when the task has ended two processes, called in the engine's process with
            a function that calls what it is given in a process of its own and raises ``WorkerDied`` if that ends.
    """

    stage: str
    name: str
    call: Callable[[], dict[str, Any]]
    key: str
    label: str = ""
    outputs: tuple[str, ...] = ()
    inputs: tuple[str, ...] = ()
    isolated: bool = False
    alone: bool = False
    rescue: Callable[[Callable[[Callable[[], Any]], Any]], dict[str, Any]] | None = None

    def marker(self, out: Path) -> Path:
        """The completion marker in the run folder."""
        return marker_path(out, self.stage, self.name)


def cache_key(value: Any) -> str:
    """A short digest of a value, the same in every process.

    Args:
        value: A value with a JSON form, in which dataclasses (by class name and fields) and sets may occur.

    Returns:
        16 hex digits, the first 64 bits of a SHA-256.

    Raises:
        TypeError: A value in it has no stable form: its text may hold an address.
        ValueError: A number in it is not finite, or it contains itself.

    >>> cache_key({"a": 1, "b": (2, 3)}) == cache_key({"b": [2, 3], "a": 1})
    True
    """
    text = json.dumps(value, sort_keys=True, default=_stable_form, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _stable_form(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return [type(value).__qualname__, {field.name: getattr(value, field.name) for field in fields(value)}]
    if isinstance(value, set | frozenset):
        return sorted(value)
    raise TypeError(f"{type(value).__qualname__} has no JSON form, so nothing stable can be derived from {value!r:.80}")


def done_result(task: Task, out: Path) -> dict[str, Any] | None:
    """The summary of a task that is done with this very key and whose files are as it wrote them, else None.

    A summary with ``"retry": true`` (a shard that could not be read to its end) counts as done for the run that made
    it, and is tried again by the next.
    """
    marker = read_marker(task.marker(out))
    if marker is None or marker.key != task.key or marker.result.get("retry"):
        return None
    return marker.result if marker.holds(out, task.outputs) else None


def execute(task: Task, out: Path) -> dict[str, Any]:
    """Call the task's function, then write its marker."""
    result = task.call()
    mark_done(task, out, result)
    return result


def execute_counted(task: Task, out: Path) -> tuple[dict[str, Any], int]:
    """As :func:`execute`, with how often a store was asked again meanwhile."""
    before = retried()
    return execute(task, out), retried() - before


def mark_done(task: Task, out: Path, result: dict[str, Any]) -> None:
    """Write the task's marker, after everything else that it writes; in an object store too, if the run lies in one."""
    write_marker(task.marker(out), task.key, result, out, task.outputs)
    mirror = mirror_of(out)
    if mirror is not None:
        mirror.push([*task.outputs, task.marker(out)])
