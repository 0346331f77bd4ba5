"""A worker process as its parent sees it: a callable goes in, its result comes out."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from dedupkit.errors import DedupkitError

__all__ = ["WorkerDied", "WorkerProcess"]

# One thread per worker: the workers are the parallelism, and idle math threads spin.
_SINGLE_THREADED = dict.fromkeys(
    ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS"), "1"
)


class WorkerDied(DedupkitError):  # noqa: N818 - an event, said as it happened
    """A worker process ended in the middle of a task (killed, out of memory, a crash in a native decoder)."""


class WorkerProcess:
    """A process that runs one callable at a time.

    Args:
        load: Function of a module that is called before the first request, to load what requests will need.
    """

    def __init__(self, load: Callable[[], object] | None = None) -> None:
        path = os.pathsep.join(entry or str(Path.cwd()) for entry in sys.path)
        # -P: modules come from where this process has them, not from whatever lies in the current folder.
        # A session of its own: the terminal's Ctrl-C reaches the parent alone, which then stops its workers.
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "dedupkit.engine.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, **_SINGLE_THREADED, "PYTHONPATH": path},
            start_new_session=True,
        )
        if self._process.stdin is None or self._process.stdout is None:
            raise WorkerDied("a worker process has no pipes")
        self._requests, self._replies = self._process.stdin, self._process.stdout
        self._loading = load is not None
        if load is not None:
            with suppress(OSError):  # it died; the first request says so
                self._send(load)

    def ask(self, call: Callable[[], Any]) -> Any:
        """Call ``call``, which pickles, in the process and return what it returns.

        Raises:
            WorkerDied: The process ended; the message says how.
            DedupkitError, OSError: What the call raised.
            RuntimeError: The call raised anything else, with its name and message.
        """
        try:
            if self._loading:
                self._receive()  # where loading failed, the request fails likewise and says why
                self._loading = False
            self._send(call)
            succeeded, result = self._receive()
        except (EOFError, OSError, pickle.UnpicklingError):
            raise WorkerDied(self._ending()) from None
        if succeeded:
            return result
        raise result

    def end(self) -> None:
        """End the process at once, also in the middle of a request (a half-written file has a temporary name)."""
        with suppress(OSError):
            self._process.kill()
        self._process.wait()
        for pipe in (self._requests, self._replies):
            with suppress(OSError):
                pipe.close()

    def _send(self, call: Callable[[], Any]) -> None:
        request = pickle.dumps(call)
        self._requests.write(request)
        self._requests.flush()

    def _receive(self) -> tuple[bool, Any]:
        reply: tuple[bool, Any] = pickle.load(self._replies)  # noqa: S301 - our own worker wrote it
        return reply

    def _ending(self) -> str:
        """How the process ended, for a message."""
        self.end()  # a process that closed its pipe but lives on is of no use
        return describe_ending(self._process.returncode)


def describe_ending(code: int) -> str:
    """A process's return code in words, as ``subprocess`` states it: negative for a signal.

    >>> describe_ending(-9), describe_ending(3)
    ('killed by SIGKILL', 'exit status 3')
    """
    if code >= 0:
        return f"exit status {code}"
    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"killed by signal {-code}"
