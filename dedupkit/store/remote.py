"""Remote paths: their file system, and its errors as errors of reading a file."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

from dedupkit.errors import DedupkitError

__all__ = ["as_oserror", "at_once", "filesystem", "is_beyond_end", "is_refused", "is_transient", "patiently", "retried"]

PAUSES = (0.1, 0.5, 2.0, 5.0)
"""Seconds before another attempt."""

_AT_ONCE = 32
_BROKEN = {
    "ClientPayloadError", "ServerDisconnectedError", "ClientOSError",  # aiohttp's
    "HTTPClientError", "EndpointConnectionError", "IncompleteReadError", "ResponseParserError",  # botocore's
}  # fmt: skip
_counting = threading.Lock()
_retried = 0

S = TypeVar("S")
T = TypeVar("T")


def filesystem(path: str) -> tuple[Any, str, Callable[[str], str]]:
    """The fsspec file system of a remote path, the path inside it, and the way back to a full URL."""
    import fsspec

    try:
        filesystem, inner = fsspec.core.url_to_fs(path, **_options(path))
        if _is_s3(path):
            filesystem.retries = 1  # of s3fs itself
            _ask_no_leave(filesystem)
    except (ImportError, ValueError) as error:
        raise DedupkitError(f"cannot open {path}: {error}") from error
    return filesystem, inner, filesystem.unstrip_protocol


def _ask_no_leave(filesystem: Any) -> None:
    """Let an S3 client put data at once: for the leave that it asks for first it would wait for ever."""
    from botocore.handlers import add_expect_header

    filesystem.connect().meta.events.unregister("before-call.s3", add_expect_header)


def _is_s3(path: str) -> bool:
    return path.startswith(("s3://", "s3a://"))


def _options(path: str) -> Mapping[str, Any]:
    """Options that leave it to :func:`patiently` to try again, which counts how often."""
    if not _is_s3(path):
        return {}
    import fsspec

    given = fsspec.config.conf.get("s3", {}).get("config_kwargs", {})
    return {"config_kwargs": {"retries": {"total_max_attempts": 1}, **given}}


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
            _count_retry()
            time.sleep(pause)
    raise AssertionError("unreachable")


def retried() -> int:
    """How often this process has asked a store again for something that failed for a reason that may pass."""
    return _retried


def _count_retry() -> None:
    global _retried
    with _counting:
        _retried += 1


def at_once(action: Callable[[S], T], items: Iterable[S], most: int = _AT_ONCE) -> list[T]:
    """Do something for each item, ``most`` at once, and return what it gives in order; the first error ends it."""
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(most) as pool:
        return list(pool.map(action, items))


def is_transient(error: BaseException) -> bool:
    """Whether what went wrong may pass: the server is busy or failing, or the connection broke."""
    causes: list[BaseException] = [error]
    while causes[-1].__cause__ is not None and len(causes) < 10:
        causes.append(causes[-1].__cause__)
    if any(isinstance(cause, (ConnectionError, TimeoutError)) for cause in causes):
        return True
    if any(_BROKEN.intersection(kind.__name__ for kind in type(cause).__mro__) for cause in causes):
        return True
    statuses = [status for status in map(_status, causes) if status is not None]
    return bool(statuses) and statuses[0] in (408, 425, 429, 500, 502, 503, 504)


def is_refused(error: BaseException) -> bool:
    """Whether the store answered that this may not be read; some say so of what does not exist."""
    return isinstance(error, PermissionError) or any(
        _status(cause) in (401, 403) for cause in (error, error.__cause__) if cause is not None
    )


def is_beyond_end(error: BaseException) -> bool:
    """Whether the store answered that an object ends before what was asked of it."""
    return any(_status(cause) == 416 for cause in (error, error.__cause__) if cause is not None)


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
