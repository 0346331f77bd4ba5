"""Where on this machine the local folders lie that stand for remote ones, and which one a path lies in."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

from dedupkit.errors import DedupkitError
from dedupkit.store.mirror import NOTE, Mirror
from dedupkit.store.paths import is_remote
from dedupkit.store.records import read_json, write_json

__all__ = ["here", "local_home", "mirror_of"]


def local_home(path: str | os.PathLike[str]) -> Path:
    """The local folder that stands for a remote one, in ``DEDUPKIT_SCRATCH``; a local path stays as it is.

    Raises:
        DedupkitError: The folder for such copies belongs to another user.
    """
    name = os.fspath(path)
    if not is_remote(name):
        return Path(name)
    url = name.rstrip("/")
    scratch = os.environ.get("DEDUPKIT_SCRATCH")
    above = Path(scratch) if scratch else Path(tempfile.gettempdir(), f"dedupkit-{os.getuid()}")
    above.mkdir(mode=0o700, parents=True, exist_ok=True)
    if above.stat().st_uid != os.getuid():
        raise DedupkitError(f"{above} belongs to another user; name a folder of yours in DEDUPKIT_SCRATCH")
    home = above.absolute() / hashlib.sha256(url.encode()).hexdigest()[:16] / "folder"
    home.mkdir(parents=True, exist_ok=True)
    if read_json(home.parent / NOTE) != {"url": url}:
        write_json(home.parent / NOTE, {"url": url})
    return home


def mirror_of(path: Path) -> Mirror | None:
    """The mirror that a local path lies in, if any."""
    for folder in (path, *path.parents):
        if folder.name == "folder" and (folder.parent / NOTE).is_file():
            return _opened(folder, read_json(folder.parent / NOTE)["url"])
    return None


def here(paths: Iterable[Path]) -> list[Path]:
    """The paths, once those files are copied to this machine that a store alone has."""
    found = list(paths)
    missing = [path for path in found if not path.exists()]
    while missing and (mirror := mirror_of(missing[0])) is not None:
        mirror.bring(path for path in missing if path.is_relative_to(mirror.home))
        missing = [path for path in missing if not path.is_relative_to(mirror.home)]
    return found


@lru_cache(maxsize=16)
def _opened(home: Path, url: str) -> Mirror:
    return Mirror(home, url)
