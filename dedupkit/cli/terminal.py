"""Printing. Text from data passes through here, because control characters are commands to a terminal."""

from __future__ import annotations

import json
import logging
import os
import re
import sys
from collections.abc import Iterable
from contextlib import suppress

__all__ = ["ensure_streams", "log_to_stderr", "printable", "say", "say_json", "say_rows"]

# Control characters except the newline, line separators, overrides of direction, lone surrogates.
_UNSAFE = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: object) -> str:
    r"""Text in which everything that a terminal would obey instead of showing it is escaped.

    Shard names, keys and captions come from strangers: an escape sequence in one could clear the screen, retitle the
    window or hide what is printed.

    Args:
        text: Any object; its ``str`` is taken. Newlines stay.

    Example:
        >>> print(printable("a\x1b[2Jb.tar"))
        a\x1b[2Jb.tar
    """
    return _UNSAFE.sub(lambda found: found[0].encode("unicode_escape").decode(), str(text))


def say(text: object, *, err: bool = False) -> None:
    """Print a line for people.

    Args:
        text: The line; what a terminal would obey is escaped.
        err: Print it on standard error. One that nobody reads any more is no reason to fail.
    """
    import typer

    if not err:
        typer.echo(printable(text))
        return
    with suppress(OSError, ValueError):
        typer.echo(printable(text), err=True)


def say_json(value: object) -> None:
    """Print a value as one JSON object on standard output."""
    import typer

    typer.echo(json.dumps(value))


def say_rows(rows: Iterable[tuple[str, object]]) -> None:
    """Print labels and values as two columns on standard output."""
    table = [(label, str(value)) for label, value in rows]
    width = max((len(label) for label, _ in table), default=0)
    for label, value in table:
        say(f"{label:<{width}}  {value}")


class _StandardError(logging.Handler):
    """Prints log records for people."""

    def emit(self, record: logging.LogRecord) -> None:
        say(f"dedupkit: {self.format(record)}", err=True)


def log_to_stderr() -> None:
    """Print what dedupkit logs, progress included, on standard error, with the time."""
    logger = logging.getLogger("dedupkit")
    handler = _StandardError()
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False


def ensure_streams() -> None:
    """Open the null device in place of each standard stream that is closed.

    Otherwise the first files that the program opens take the numbers of those streams, and what a library prints goes
    into them.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDONLY if number == 0 else os.O_WRONLY)
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115, PTH123 - open until the end
