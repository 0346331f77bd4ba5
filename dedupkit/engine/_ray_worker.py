"""What Ray's workers call; it imports no Ray, so that they load this module as any other."""

from __future__ import annotations

import gc
import pickle
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dedupkit import __version__
from dedupkit.engine.local import LocalProcesses
from dedupkit.engine.task import execute
from dedupkit.errors import DedupkitError

__all__ = ["AloneWorker", "Request", "Shown", "execute_here"]


@dataclass(frozen=True, slots=True)
class Request:
    """A task as it travels.

    Attributes:
        version: The driver's version of dedupkit.
        data: The pickled task, which is unpickled where the versions agree.
        out: The folder that holds the markers.
        careful: Whether the task has ended a process, so that it gets one of its own.
    """

    version: str
    data: bytes
    out: str
    careful: bool


@dataclass(frozen=True, slots=True)
class Shown:
    """An error of a task, which is no error of Ray."""

    error: BaseException


def execute_here(request: Request) -> dict[str, Any] | Shown:
    """Execute a task in this process and return its summary, or what it raised."""
    host = socket.gethostname()
    if request.version != __version__:
        return Shown(
            DedupkitError(
                f"node {host} has dedupkit {__version__}, the command has {request.version}; install the same version "
                "on every node"
            )
        )
    if not Path(request.out).is_dir():
        return Shown(
            DedupkitError(
                f"node {host} does not see {request.out}; with --engine ray the run folder lies on a file system that "
                "all nodes share"
            )
        )
    gc.freeze()
    try:
        task = pickle.loads(request.data)  # noqa: S301 - the driver wrote it
        if request.careful and task.isolated:
            with LocalProcesses(1) as engine:
                return engine.run([task], Path(request.out))[0]
        return execute(task, Path(request.out))
    except (DedupkitError, OSError) as error:
        return Shown(error)
    except Exception as error:
        return Shown(RuntimeError(f"{type(error).__name__}: {error}"))


class AloneWorker:
    """A process that keeps what its tasks load; an actor."""

    def ready(self) -> None:
        """Return once the process runs."""

    def execute(self, request: Request) -> dict[str, Any] | Shown:
        """See :func:`execute_here`."""
        return execute_here(request)
