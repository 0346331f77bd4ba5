"""What Ray's workers call; it imports no Ray, so that they load this module as any other."""

from __future__ import annotations

import gc
import os
import socket
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dedupkit import __version__
from dedupkit.engine.local import LocalProcesses
from dedupkit.engine.task import execute
from dedupkit.engine.travel import Parcel, unpack
from dedupkit.errors import DedupkitError
from dedupkit.store import retried

__all__ = ["AloneWorker", "Done", "Request", "Shown", "execute_here"]


@dataclass(frozen=True, slots=True)
class Request:
    """A task as it travels.

    Attributes:
        version: The driver's version of dedupkit.
        parcel: The task, which is unpacked where the versions agree.
        careful: Whether the task has ended a process, so that it gets one of its own.
        directory: The driver's working directory, from which relative paths of sources are named.
    """

    version: str
    parcel: Parcel
    careful: bool
    directory: str


@dataclass(frozen=True, slots=True)
class Done:
    """What came of a task: its summary, and how often a store was asked again."""

    summary: dict[str, Any]
    requests: int


@dataclass(frozen=True, slots=True)
class Shown:
    """An error of a task, which is no error of Ray."""

    error: BaseException


def execute_here(request: Request) -> Done | Shown:
    """Execute a task in this process and return what came of it, or what it raised."""
    host = socket.gethostname()
    if request.version != __version__:
        return Shown(
            DedupkitError(
                f"node {host} has dedupkit {__version__}, the command has {request.version}; install the same version "
                "on every node"
            )
        )
    with suppress(OSError):  # a node without it may still see all that the task names
        os.chdir(request.directory)
    shared = request.parcel.out
    if shared is not None and not Path(shared).is_dir():
        return Shown(
            DedupkitError(
                f"node {host} does not see {shared}; with --engine ray it lies in an object store, or on a file system "
                "that all nodes share"
            )
        )
    gc.freeze()
    before = retried()
    try:
        task, out = unpack(request.parcel)
        if request.careful and task.isolated:
            with LocalProcesses(1) as engine:
                return Done(engine.run([task], out)[0], retried() - before)
        return Done(execute(task, out), retried() - before)
    except (DedupkitError, OSError) as error:
        return Shown(error)
    except Exception as error:
        return Shown(RuntimeError(f"{type(error).__name__}: {error}"))


class AloneWorker:
    """A process that keeps what its tasks load; an actor."""

    def ready(self) -> None:
        """Return once the process runs."""

    def execute(self, request: Request) -> Done | Shown:
        """See :func:`execute_here`."""
        return execute_here(request)
