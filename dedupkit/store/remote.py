"""Remote paths: their file system, and its errors as errors of reading a file."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from dedupkit.errors import DedupkitError

__all__ = ["as_oserror", "filesystem"]


def filesystem(path: str) -> tuple[Any, str, Callable[[str], str]]:
    """The fsspec file system of a remote path, the path inside it, and the way back to a full URL."""
    import fsspec

    try:
        filesystem, inner = fsspec.core.url_to_fs(path)
    except (ImportError, ValueError) as error:
        raise DedupkitError(f"cannot open {path}: {error}") from error
    return filesystem, inner, filesystem.unstrip_protocol


@contextmanager
def as_oserror(path: str) -> Iterator[None]:
    """Stores raise errors of their client's own kinds; here they are all errors of reading a file."""
    try:
        yield
    except (OSError, DedupkitError):
        raise
    except Exception as error:
        raise OSError(f"cannot read {path}: {type(error).__name__}: {error}") from error
