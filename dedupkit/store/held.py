"""Who writes into a folder that a command makes, on this machine."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dedupkit.errors import DedupkitError

__all__ = ["held_alone"]


@contextmanager
def held_alone(lock: Path, shown: str) -> Iterator[None]:
    """Hold a folder alone for the time of a block.

    Args:
        lock: A file for that, which stays; its folder must exist.
        shown: The folder as messages name it.

    Raises:
        DedupkitError: Another process holds it.
    """
    with lock.open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DedupkitError(
                f"another process is writing into {shown}; wait for it or choose another --to"
            ) from None
        yield
