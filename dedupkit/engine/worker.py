"""A worker process: reads tasks from its standard input, executes them, writes what came of each.

Started as ``python -m dedupkit.engine.worker [MODULE]``, not through multiprocessing: a user's script needs no main
guard, the worker starts with one thread per math library, and a native crash or a kill takes one worker, not the run.
"""

from __future__ import annotations

import gc
import os
import pickle
import sys
from importlib import import_module
from typing import IO

from dedupkit.engine.task import execute
from dedupkit.errors import DedupkitError
from dedupkit.startup.memory import keep_freed_memory
from dedupkit.store import leave_pandas_out

__all__ = ["main", "serve"]


def serve(requests: IO[bytes], replies: IO[bytes]) -> None:
    """Execute pickled tasks, each with its run folder, until the parent closes the pipe (or dies, which does it)."""
    while True:
        try:
            task, out = pickle.load(requests)  # noqa: S301 - the parent process is the only writer
        except EOFError:
            return
        gc.freeze()  # what is loaded stays: no collection walks through it again
        reply: tuple[bool, object]
        try:
            reply = (True, execute(task, out))
        except (DedupkitError, OSError) as error:
            reply = (False, error)
        except Exception as error:
            reply = (False, RuntimeError(f"{type(error).__name__}: {error}"))
        pickle.dump(reply, replies)
        replies.flush()


def main() -> None:
    """Serve on the standard streams; whatever a library prints goes to standard error instead.

    A module that is named is loaded before the first task comes.
    """
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    leave_pandas_out()
    keep_freed_memory(64 << 20)
    for module in sys.argv[1:]:
        import_module(module)
    serve(sys.stdin.buffer, replies)


if __name__ == "__main__":
    main()
