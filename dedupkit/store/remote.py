"""Remote paths: their file system, and its errors as errors of reading a file."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from dedupkit.errors import DedupkitError

__all__ = ["as_oserror", "filesystem", "is_refused", "is_transient", "patiently"]

PAUSES = (0.1, 0.5, 2.0)
"""Seconds before another attempt."""

T = TypeVar("T")


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
    """Stores raise errors of their client's own kinds; here they are all errors of reading a file.

    A file counts as missing only if the store said so: some clients say "not found" for whatever went wrong.
    """
    try:
        yield
    except FileNotFoundError as error:
        cause = error.__cause__
        if cause is None or isinstance(cause, FileNotFoundError) or _status(cause) in (404, 410):
            raise
        raise OSError(f"cannot read {path}: {_said(cause)}") from cause
    except (OSError, DedupkitError):
        raise
    except Exception as error:
        raise OSError(f"cannot read {path}: {_said(error)}") from error


def patiently(path: str, action: Callable[[], T], recover: Callable[[], None] | None = None) -> T:
    """Do something with a remote path; if it fails for a reason that may pass, try again.

    Args:
        path: For the message.
        action: What to do.
        recover: Called after each failure.

    Raises:
        OSError: it failed for good; see :func:`as_oserror`.
    """
    for pause in (*PAUSES, None):
        try:
            with as_oserror(path):
                return action()
        except OSError as error:
            if recover is not None:
                recover()
            if pause is None or not is_transient(error):
                raise
            time.sleep(pause)
    raise AssertionError("unreachable")


def is_transient(error: BaseException) -> bool:
    """Whether what went wrong may pass: the server is busy or failing, or the connection broke."""
    causes: list[BaseException] = [error]
    while causes[-1].__cause__ is not None and len(causes) < 10:
        causes.append(causes[-1].__cause__)
    broken = ("ClientPayloadError", "ServerDisconnectedError", "ClientOSError")
    if any(isinstance(cause, (ConnectionError, TimeoutError)) or type(cause).__name__ in broken for cause in causes):
        return True
    statuses = [status for status in map(_status, causes) if status is not None]
    return bool(statuses) and statuses[0] in (408, 425, 429, 500, 502, 503, 504)


def is_refused(error: BaseException) -> bool:
    """Whether the store answered that this may not be read; some say so of what does not exist."""
    return isinstance(error, PermissionError) or any(
        _status(cause) in (401, 403) for cause in (error, error.__cause__) if cause is not None
    )


def _status(error: BaseException) -> int | None:
    """The status of an HTTP error, under the name that the client gives it."""
    response = getattr(error, "response", None)
    metadata = response.get("ResponseMetadata", {}) if isinstance(response, dict) else {}
    status = getattr(error, "status", None) or metadata.get("HTTPStatusCode")
    return status if isinstance(status, int) else None


def _said(error: BaseException) -> str:
    status = _status(error)
    words = {401: "credentials are needed", 403: "access is denied", 429: "too many requests"}
    hint = f" ({words[status]})" if status in words else ""
    return f"{type(error).__name__}: {error}{hint}"
