"""URLs to a normal form in which addresses of the same file are equal.

First the WHATWG URL Standard, by the package can_ada: case of scheme and host, default ports, dot segments, escapes.
Then our own few rules, each of which can be switched off. A parameter that can name an image (``id``, ``uid``,
``ref``, ``source``, ``session``, …) is never dropped.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from dedupkit.captions.steps import Steps
from dedupkit.errors import import_optional

__all__ = ["TRACKERS", "TRACKER_PREFIXES", "UrlSteps", "normalize_url", "url_family"]

TRACKER_PREFIXES = ("utm_",)
TRACKERS = (
    "_ga", "_gl", "_hsenc", "_hsmi", "dclid", "fbclid", "gbraid", "gclid", "gclsrc", "igshid", "mc_cid", "mc_eid",
    "mkt_tok", "msclkid", "ttclid", "twclid", "wbraid", "yclid",
)  # fmt: skip
"""Parameters that say how somebody came to a page; together with those that begin with TRACKER_PREFIXES."""

_SIZE_NAMES = frozenset({"w", "h", "width", "height", "size", "resize", "fit", "crop", "q", "quality", "dpr"})
_SIZE_SEGMENT = re.compile(r"/\d{1,5}x\d{1,5}(?=/)")
_SIZE_SUFFIX = re.compile(r"[-_]\d{1,5}x\d{1,5}(?=\.[A-Za-z]{3,4}$)")


@dataclass(frozen=True)
class UrlSteps(Steps):
    """Which steps are applied to a URL before it is compared.

    Attributes:
        standard: parse and write it by the URL Standard, which also drops default ports.
        fragment: drop what follows ``#``.
        trackers: drop parameters that tell how a visitor came (``TRACKERS``), and a query that is empty then.

    Example:
        >>> str(UrlSteps(fragment=False))
        'standard,trackers'
    """

    standard: bool = True
    fragment: bool = True
    trackers: bool = True


def normalize_url(url: str, steps: UrlSteps | None = None) -> str | None:
    """The normal form of a URL.

    Args:
        url: an absolute URL.
        steps: steps to apply; all by default.

    Returns:
        The normal form; None for what is no absolute URL.

    Raises:
        MissingExtraError: can_ada is not installed.

    Example:
        >>> normalize_url("HTTP://Example.com:80/a/../b.jpg?utm_source=x&id=7#top")
        'http://example.com/b.jpg?id=7'
    """
    steps = steps or UrlSteps()
    if steps.standard:
        can_ada = import_optional("can_ada", "metadata")
        try:
            url = str(can_ada.parse(url))
        except (ValueError, TypeError):  # a TypeError for what is no Unicode text
            return None
    elif "://" not in url:
        return None
    if steps.fragment:
        url = url.partition("#")[0]
    return _without(url, _is_tracker) if steps.trackers else url


def url_family(url: str) -> str:
    """A weaker form, equal for the sizes in which a site offers one image; for URLs in normal form.

    Parameters of size and quality (``w``, ``h``, ``width``, ``q``, …), path segments such as ``/300x200/`` and suffixes
    such as ``-300x200.jpg`` are dropped.

    Example:
        >>> url_family("https://example.com/300x200/cat-150x150.jpg?w=100&id=7")
        'https://example.com/cat.jpg?id=7'
    """
    address, mark, query = _without(url, lambda name: name.lower() in _SIZE_NAMES).partition("?")
    return _SIZE_SUFFIX.sub("", _SIZE_SEGMENT.sub("", address)) + mark + query


def _is_tracker(name: str) -> bool:
    return name in TRACKERS or name.startswith(TRACKER_PREFIXES)


def _without(url: str, dropped: Callable[[str], bool]) -> str:
    """A URL without some parameters, and without a query that is empty then."""
    before, mark, after = url.partition("#")
    address, _, query = before.partition("?")
    kept = [part for part in query.split("&") if not dropped(part.partition("=")[0])] if query else []
    return address + ("?" + "&".join(kept) if any(kept) or len(kept) > 1 else "") + mark + after
