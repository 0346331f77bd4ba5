"""Paths as text, local or remote: what they name, joined and expanded."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from dedupkit.errors import DedupkitError

__all__ = ["expand_braces", "is_http", "is_remote", "join", "refuse_inside"]

_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"^(\d+)\.\.(\d+)$")


def is_remote(path: str) -> bool:
    """Whether the path has a URL scheme."""
    return "://" in path


def is_http(path: str) -> bool:
    """Whether a path is an http(s) address."""
    return path.startswith(("http://", "https://"))


def join(folder: str, *names: str) -> str:
    """Join with forward slashes, which every file system here understands."""
    return "/".join([folder.rstrip("/") or "/", *names]) if folder != "." else "/".join(names)


def expand_braces(pattern: str) -> list[str]:
    """Expand ``{00000..00099}`` and ``{a,b}`` as a shell does; numbers keep their leading zeros."""
    match = _BRACES.search(pattern)
    if match is None:
        return [pattern]
    span = _RANGE.match(match[1])
    if span:
        first, last = int(span[1]), int(span[2])
        width = len(span[1]) if span[1].startswith("0") else 0
        step = 1 if last >= first else -1
        choices = [f"{number:0{width}d}" for number in range(first, last + step, step)]
    else:
        choices = match[1].split(",")
    before, after = pattern[: match.start()], pattern[match.end() :]
    return [before + choice + tail for choice in choices for tail in expand_braces(after)]


def refuse_inside(path: Path, sources: Sequence[str]) -> None:
    """Nothing is ever written into a source, so what is written cannot lie in a folder that is read.

    Args:
        path: what is to be written.
        sources: paths as the user named them, with braces, and the shards found.

    Raises:
        DedupkitError: the path is one of these folders or below one.
    """
    target = path.resolve()
    for name in dict.fromkeys(name for source in sources for name in expand_braces(source)):
        root = Path(name)
        if root.is_dir() and root.resolve() in (target, *target.parents):
            raise DedupkitError(f"{path} lies inside the source {name}; choose a folder outside")
