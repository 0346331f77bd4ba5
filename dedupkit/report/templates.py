"""The templates of pages and cards."""

from __future__ import annotations

import html
import re
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

__all__ = ["templates"]

_MARKDOWN = re.compile(r"([\\`*_\[\]|#!~])")


def templates() -> Environment:
    """Pages are escaped by default; in Markdown the filter ``md`` escapes what comes from the data."""
    environment = Environment(
        loader=PackageLoader("dedupkit.report", ""),
        autoescape=select_autoescape(["html.j2"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"n": "{:,}".format, "pct": _percent, "md": _markdown, "size": _bytes}
    return environment


def _percent(part: float, whole: float) -> str:
    return f"{100 * part / whole:.1f} %" if whole else "–"


def _bytes(count: int | None) -> str:
    if count is None:
        return ""
    return f"{count / 1e6:.1f} MB" if count >= 1e6 else f"{count / 1e3:.0f} kB" if count >= 1000 else f"{count} B"


def _markdown(text: Any) -> str:
    """Text from the data as one line of Markdown that means nothing but itself."""
    return _MARKDOWN.sub(r"\\\1", html.escape(" ".join(str(text).split()), quote=False))
