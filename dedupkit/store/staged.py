"""A folder to write into, of this machine or in an object store, for commands whose files belong together."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dedupkit.errors import DedupkitError
from dedupkit.store.homes import local_home
from dedupkit.store.lease import Lease
from dedupkit.store.mirror import Mirror
from dedupkit.store.paths import is_remote

__all__ = ["staged"]


@contextmanager
def staged(folder: str | Path) -> Iterator[Path]:
    """Have a local folder for the time of a block; of a remote one a copy, which is put back when the block ends.

    The remote folder is held alone meanwhile, and what lies in it is here when the block begins. It is put back too
    where the block ends by a :class:`DedupkitError`, because files may say what was wrong.

    Args:
        folder: The folder, or the URL of one in an object store; it need not exist.

    Raises:
        DedupkitError: The store cannot be used, or another process writes into the folder.

    Example:
        >>> with staged("results") as home:
        ...     home
        PosixPath('results')
    """
    home = local_home(folder)
    if not is_remote(str(folder)):
        yield home
        return
    mirror = Mirror(home, str(folder).rstrip("/"))
    with Lease(mirror.bucket) as lease:
        mirror.pull()
        try:
            yield home
        except DedupkitError:
            lease.check()
            mirror.push()
            raise
        lease.check()
        mirror.push()
