"""Nothing is written into what is read."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from dedupkit.errors import DedupkitError
from dedupkit.store.paths import is_remote, local_path
from dedupkit.store.patterns import expand_braces

__all__ = ["refuse_inside"]

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


def refuse_inside(path: str | Path, sources: Sequence[str], *, directory: str | None = None) -> None:
    """Refuse a place to write that lies in a folder that is read, however either of them is spelled.

    Folders are compared as the file system knows them: links, ``..``, a scheme such as ``file://`` and URLs chained to
    a local folder make no difference.

    Args:
        path: What is to be written, a path or a URL.
        sources: Paths as the user named them, with braces, and the shards found.
        directory: The folder in which relative ones were named; the current one by default.

    Raises:
        DedupkitError: The path is one of these folders or lies below one.
    """
    if is_remote(str(path)):
        for name in dict.fromkeys(name for source in sources for name in expand_braces(source)):
            if is_remote(name) and f"{str(path).rstrip('/')}/".startswith(f"{name.rstrip('/')}/"):
                raise DedupkitError(f"{path} lies inside the source {name}; choose a folder outside")
        return
    target = Path(path).resolve()
    above = [state for folder in (target, *target.parents) if (state := _state(str(folder))) is not None]
    for name in dict.fromkeys(name for source in sources for name in expand_braces(source)):
        for local in _local_ends(name):
            read = os.path.join(directory or "", local)  # noqa: PTH118 - names need not be valid paths
            state = _state(read)
            if state is not None and os.path.isdir(read) and any(os.path.samestat(state, one) for one in above):  # noqa: PTH112
                raise DedupkitError(f"{path} lies inside the source {name}; choose a folder outside")


def _local_ends(path: str) -> Iterable[str]:
    """The local paths that a path names, itself or as links of a chained URL of fsspec."""
    for link in path.split("::") if "::" in path and _SCHEME.search(path) else [path]:
        local = local_path(link)
        if local:
            yield local


def _state(path: str) -> os.stat_result | None:
    try:
        return os.stat(path)  # noqa: PTH116 - names need not be valid paths
    except (OSError, ValueError):
        return None
