"""Paths as text, local or remote: what they name, in one normal form, and joined."""

from __future__ import annotations

import re

__all__ = ["is_http", "is_remote", "join", "local_path"]

_LOCAL_SCHEME = re.compile(r"(?:file|local)://", re.IGNORECASE)


def local_path(path: str) -> str | None:
    """The path in this machine's file system that a text names, None for a remote one.

    ``file://`` and ``local://`` are taken away, in any case; what follows is the path as it stands. A chained URL of
    fsspec (``simplecache::file:///data``) is remote: fsspec opens it.

    >>> local_path("FILE:///data/0.tar"), local_path("data/0.tar"), local_path("s3://bucket/0.tar")
    ('/data/0.tar', 'data/0.tar', None)
    """
    match = _LOCAL_SCHEME.match(path)
    rest = path[match.end() :] if match else path
    return None if "://" in rest else rest


def is_remote(path: str) -> bool:
    """Whether a path has a URL scheme other than that of local files."""
    return local_path(path) is None


def is_http(path: str) -> bool:
    """Whether a path is an http(s) address."""
    return path.startswith(("http://", "https://"))


def join(folder: str, *names: str) -> str:
    """Join with forward slashes, which every file system here understands."""
    return "/".join([folder.rstrip("/") or "/", *names]) if folder != "." else "/".join(names)
