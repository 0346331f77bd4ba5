"""A worker process: reads callables from its standard input, calls them, writes what came of each.

Started as ``python -m dedupkit.engine.worker``, not through multiprocessing: a user's script needs no main guard, the
worker starts with one thread per math library, and a native crash or a kill takes one worker, not the run.
"""

from __future__ import annotations

import gc
import os
import pickle
from typing import IO

from dedupkit.errors import DedupkitError
from dedupkit.startup.memory import keep_freed_memory
from dedupkit.startup.no_pandas import leave_pandas_out

__all__ = ["main", "serve"]

_REUSED_BLOCKS = 64 << 20  # bytes: larger than most decoded images


def serve(requests: IO[bytes], replies: IO[bytes]) -> None:
    """Call what the parent asks for until it closes the pipe (or dies, which closes it)."""
    while True:
        reply: tuple[bool, object]
        try:
            call = pickle.load(requests)  # noqa: S301 - the parent process is the only writer
        except EOFError:
            return
        except Exception as error:  # the function's module cannot be imported here
            reply = (False, RuntimeError(f"{type(error).__name__}: {error}"))
        else:
            gc.freeze()  # what is loaded stays: no collection walks through it again
            try:
                reply = (True, call())
            except (DedupkitError, OSError) as error:
                reply = (False, error)
            except Exception as error:
                reply = (False, RuntimeError(f"{type(error).__name__}: {error}"))
        replies.write(_pickled(reply))
        replies.flush()


def _pickled(reply: tuple[bool, object]) -> bytes:
    try:
        return pickle.dumps(reply)
    except Exception as error:  # an error that holds a lock or a file
        return pickle.dumps((False, RuntimeError(f"{type(reply[1]).__name__}: {reply[1]} ({error})")))


def main() -> None:
    """Serve on the standard streams; whatever a library prints goes to standard error instead."""
    requests, replies = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nowhere = os.open(os.devnull, os.O_RDWR)
    os.dup2(nowhere, 0)
    try:
        os.dup2(2, 1)
    except OSError:  # standard error is closed
        os.dup2(nowhere, 1)
        os.dup2(nowhere, 2)
    leave_pandas_out()
    keep_freed_memory(_REUSED_BLOCKS)
    serve(requests, replies)


if __name__ == "__main__":
    main()
