"""A task on its way to another machine.

Where the run folder lies in an object store, each machine has a copy of its own in another place. Paths in the folder
travel relative to it then, and a task brings what it reads from the store before it begins.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from dedupkit.engine.task import Task
from dedupkit.store import local_home, mirror_of

__all__ = ["Parcel", "bring_results", "fetching", "pack", "unpack"]


@dataclass(frozen=True, slots=True)
class Parcel:
    """A task as it travels.

    Attributes:
        url: The run folder in an object store; None where all machines see it under the same path.
        out: The folder that holds the task's marker; relative to the run folder of ``url``.
        data: The pickled task.
    """

    url: str | None
    out: str
    data: bytes


def pack(task: Task, out: Path) -> Parcel:
    """Make a task ready to travel; ``out`` holds its marker."""
    mirror = mirror_of(out)
    if mirror is None:
        return Parcel(None, str(out), pickle.dumps(task))
    packed = io.BytesIO()
    _Pickler(packed, mirror.home).dump(task)
    return Parcel(mirror.url, mirror.name(out), packed.getvalue())


def unpack(parcel: Parcel) -> tuple[Task, Path]:
    """The task as :func:`fetching` gives it, and the folder that holds its marker, on this machine."""
    if parcel.url is None:
        return pickle.loads(parcel.data), Path(parcel.out)  # noqa: S301 - the driver wrote it
    home = local_home(parcel.url)
    task: Task = _Unpickler(io.BytesIO(parcel.data), home).load()
    return fetching(task, home), home / parcel.out


def fetching(task: Task, out: Path) -> Task:
    """The task, which first brings what it reads from the store, if ``out`` lies in a copy of a folder there."""
    mirror = mirror_of(out)
    if mirror is None or not task.inputs:
        return task
    return replace(task, call=partial(_fetched, str(mirror.home), task.inputs, task.call))


def _fetched(home: str, inputs: tuple[str, ...], call: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    mirror = mirror_of(Path(home))
    if mirror is not None:
        mirror.bring(inputs)
    return call()


def bring_results(tasks: Iterable[Task], out: Path) -> None:
    """Bring what other machines have put into the store, if the run folder lies in one, but for what is left there."""
    mirror = mirror_of(out)
    if mirror is not None:
        made = (path for task in tasks for path in (*task.outputs, str(task.marker(out))))
        mirror.bring(made, all_of_them=False)


class _Pickler(pickle.Pickler):
    """Names paths in the run folder by what they are relative to it."""

    def __init__(self, stream: io.BytesIO, home: Path) -> None:
        super().__init__(stream)
        self._home, self._text = home, str(home)

    def persistent_id(self, value: Any) -> Any:
        if isinstance(value, str) and (value == self._text or value.startswith(f"{self._text}/")):
            return "text", value[len(self._text) + 1 :]
        if isinstance(value, Path) and value.is_relative_to(self._home):
            return "path", value.relative_to(self._home).as_posix()
        return None


class _Unpickler(pickle.Unpickler):
    """Gives these paths in this machine's copy."""

    def __init__(self, stream: io.BytesIO, home: Path) -> None:
        super().__init__(stream)
        self._home = home

    def persistent_load(self, named: Any) -> Any:
        kind, name = named
        return str(self._home / name) if kind == "text" else self._home / name
