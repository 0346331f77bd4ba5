"""Text from data on its way to a terminal, where control characters are commands."""

from __future__ import annotations

import re

__all__ = ["printable", "say"]

# Control characters except the newline, line separators, overrides of direction, lone surrogates.
_UNSAFE = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: object) -> str:
    r"""Text with everything escaped that a terminal would obey instead of showing it.

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
        err: Whether it goes to standard error.
    """
    import typer

    typer.echo(printable(text), err=err)
