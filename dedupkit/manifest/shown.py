"""Text of a manifest as it is shown to people."""

from __future__ import annotations

import re

__all__ = ["clip"]

_UNPRINTABLE = re.compile(r"[\s\x00-\x1f\x7f-\x9f\ufdd0-\ufdef\ufffe\uffff]+")
_LONGEST = 200


def clip(text: str | None, most: int = _LONGEST) -> str | None:
    r"""Text fit to be shown: one line without control characters; long text ends in ``…``.

    Args:
        text: Any text, such as a caption.
        most: Length after which it is cut, in characters.

    Example:
        >>> clip("a red\n fox"), clip("a red fox jumps", most=8)
        ('a red fox', 'a red f…')
    """
    if text is None:
        return None
    shown = _UNPRINTABLE.sub(" ", text[: most + 1]).strip()
    return shown if len(text) <= most else shown[: most - 1] + "…"
