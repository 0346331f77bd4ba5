"""Kill a process before the n-th change that it makes to a file: all of them in turn, not random moments.

Run as a program it is a server that has loaded what a run needs; it forks a child for each job, so that a kill costs a
tenth of a second and not the start of Python. Jobs and results are JSON lines on its standard streams.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

KILLED = 137
_EVENTS = {"os.rename": 1, "os.remove": 0, "os.mkdir": 0, "os.rmdir": 0, "os.truncate": 0, "os.link": 1}
"""Audit events that change files (``os.replace`` is a rename), and which argument is the file that changes."""
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


class Killer:
    """An audit hook that counts the changes below a folder and ends the process before the n-th."""

    def __init__(self, folder: str, at: int | None) -> None:
        self.folder, self.at = folder, at
        self.changes: list[str] = []
        sys.addaudithook(self)

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        """Called at each event of the process."""
        if event == "open":
            path, _, flags = arguments
            if not isinstance(flags, int) or not flags & _WRITES:
                return
        elif event in _EVENTS:
            path = arguments[_EVENTS[event]]
        else:
            return
        if not isinstance(path, str | bytes | os.PathLike):
            return
        path = os.fsdecode(path)
        in_tree = event in ("os.remove", "os.rmdir") and arguments[1] != -1  # rmtree names files from their folder
        if not in_tree and not path.startswith(self.folder):
            return
        if len(self.changes) == self.at:
            os._exit(KILLED)
        self.changes.append(f"{event} {path.removeprefix(self.folder)}")


def do(job: str, folder: str, options: dict[str, Any]) -> None:
    """What is to be killed; ``folder`` holds ``data``, ``vectors.parquet``, and the run in ``out``."""
    import dedupkit as dk

    root = Path(folder)
    out = root / "out"
    if job == "run":
        dk.dedup(root / "data", out, **options)
    elif job == "rethreshold":
        dk.Run(out).rethreshold(**options)
    elif job == "apply":
        dk.Run(out).apply(root / "clean", **options)
    elif job == "report":
        dk.Run(out).report()
    elif job == "calibrate":
        dk.Run(out).calibrate(**options)
    else:
        raise ValueError(job)


class Server:
    """The process that forks."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process

    def __call__(self, job: str, folder: Path, at: int | None = None, **options: Any) -> tuple[int, list[str]]:
        """Do a job in a child; returns its exit status and the changes that it made until then, or its error."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps([job, str(folder), at, options]) + "\n")
        self.process.stdin.flush()
        status, changes = json.loads(self.process.stdout.readline())
        return status, changes


@contextmanager
def server(environment: dict[str, str], warm: tuple[str, str, dict[str, Any]]) -> Iterator[Server]:
    """Start the server, with a job that it does first."""
    process = subprocess.Popen(
        [sys.executable, __file__, json.dumps(warm)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    )
    try:
        yield Server(process)
    finally:
        process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                stream.close()


def _child(reply: int, job: str, folder: str, at: int | None, options: dict[str, Any]) -> None:
    killer = Killer(folder, at)
    try:
        do(job, folder, options)
        status = 0
    except BaseException as error:
        killer.changes = [f"{type(error).__name__}: {error}"]
        status = 1
    os.write(reply, json.dumps(killer.changes).encode())
    os._exit(status)


def _serve() -> None:
    import cv2
    import faiss  # noqa: F401
    import pyarrow.dataset  # noqa: F401

    import dedupkit.manifest.export
    import dedupkit.report
    import dedupkit.stages.decide
    import dedupkit.stages.match
    import dedupkit.stages.scan
    import dedupkit.stages.verify
    import dedupkit.workflows.calibrate  # noqa: F401

    cv2.setNumThreads(1)
    if len(sys.argv) > 1:  # a job for the compiled kernels, which a fork then has
        do(*json.loads(sys.argv[1]))
    for line in sys.stdin:
        reader, writer = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(reader)
            _child(writer, *json.loads(line))
        os.close(writer)
        with os.fdopen(reader, "rb") as stream:
            changes = stream.read()
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        print(json.dumps([status, json.loads(changes or b"[]")]), flush=True)


if __name__ == "__main__":
    _serve()
