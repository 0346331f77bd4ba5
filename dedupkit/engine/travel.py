"""A task on its way to another machine.

Each machine keeps its own copy of a folder in an object store. A path in such a copy travels as the folder's URL and
the path relative to it, and a task brings what it reads from the store before it begins. Other paths are the same on
all machines.
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
from dedupkit.store import Mirror, local_home, mirror_of

__all__ = ["Parcel", "bring_results", "fetching", "pack", "unpack"]


@dataclass(frozen=True, slots=True)
class Parcel:
    """A task as it travels.

    Attributes:
        out: The folder that holds the task's marker, if all machines see it under the same path; None if it lies in an
            object store.
        data: The task and that folder, pickled.
    """

    out: str | None
    data: bytes


def pack(task: Task, out: Path) -> Parcel:
    """Make a task ready to travel; ``out`` holds its marker."""
    packed = io.BytesIO()
    _Pickler(packed).dump((task, out))
    return Parcel(None if mirror_of(out) else str(out), packed.getvalue())


def unpack(parcel: Parcel) -> tuple[Task, Path]:
    """The task as :func:`fetching` gives it, and the folder that holds its marker, on this machine."""
    task, out = _Unpickler(io.BytesIO(parcel.data)).load()
    return fetching(task), out


def fetching(task: Task) -> Task:
    """The task, which first brings those files from their store that it reads in copies of remote folders."""
    remote = tuple(path for path in task.inputs if mirror_of(Path(path)) is not None)
    return replace(task, call=partial(_fetched, remote, task.call)) if remote else task


def _fetched(inputs: tuple[str, ...], call: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    of_mirror: dict[Path, tuple[Mirror, list[str]]] = {}
    for path in inputs:
        mirror = mirror_of(Path(path))
        if mirror is not None:
            of_mirror.setdefault(mirror.home, (mirror, []))[1].append(path)
    for mirror, paths in of_mirror.values():
        mirror.bring(paths)
    return call()


def bring_results(tasks: Iterable[Task], out: Path) -> None:
    """Bring what other machines have put into the store, if ``out`` lies in one, but for what is left there."""
    mirror = mirror_of(out)
    if mirror is not None:
        made = (path for task in tasks for path in (*task.outputs, str(task.marker(out))))
        mirror.bring(made, all_of_them=False)


class _Pickler(pickle.Pickler):
    """Names paths in copies of remote folders by the folder and what they are relative to it."""

    def __init__(self, stream: io.BytesIO) -> None:
        super().__init__(stream)
        self._mirrors: dict[str, Mirror | None] = {}  # by path: a task names few, many times

    def persistent_id(self, value: Any) -> Any:
        if not isinstance(value, str | Path) or not (text := str(value)).startswith("/"):
            return None
        if text not in self._mirrors:
            self._mirrors[text] = mirror_of(Path(text))
        mirror = self._mirrors[text]
        return None if mirror is None else (isinstance(value, Path), mirror.url, text[len(str(mirror.home)) + 1 :])


class _Unpickler(pickle.Unpickler):
    """Gives these paths in this machine's copies."""

    def __init__(self, stream: io.BytesIO) -> None:
        super().__init__(stream)
        self._homes: dict[str, Path] = {}

    def persistent_load(self, named: Any) -> Any:
        is_path, url, name = named
        if url not in self._homes:
            self._homes[url] = local_home(url)
        path = self._homes[url] / name
        return path if is_path else str(path)
