"""Brace patterns, and names that only look like one."""

from __future__ import annotations

import re

from dedupkit.errors import DedupkitError
from dedupkit.store.listing import exists
from dedupkit.store.paths import is_remote

__all__ = ["expand_braces"]

_MOST = 10_000_000
_RANGE = re.compile(r"\{(-?\d+)\.\.(-?\d+)")


def expand_braces(pattern: str) -> list[str]:
    """Expand ``{00000..00099}`` and ``{a,b}`` as a shell does; numbers keep their leading zeros.

    A file or folder that is really called so is taken literally, alone or as the start of a longer path. As in a
    shell, braces without a comma or a range stay as they are.

    Raises:
        DedupkitError: A range in it has more than ten million numbers.

    >>> expand_braces("{00008..00010}.tar")
    ['00008.tar', '00009.tar', '00010.tar']
    >>> expand_braces("shards/{x}/0.tar")
    ['shards/{x}/0.tar']
    """
    from braceexpand import braceexpand

    literal = "" if is_remote(pattern) else _literal_start(pattern)
    rest = pattern[len(literal) :]
    if "{" not in rest:
        return [pattern]
    if any(abs(int(last) - int(first)) >= _MOST for first, last in _RANGE.findall(rest)):  # it would list them all
        raise DedupkitError(f"{pattern} stands for more than {_MOST:,} paths; name fewer, or a folder")
    try:
        return [literal + path for path in braceexpand(rest, escape=False)]
    except ValueError:  # unbalanced braces
        return [pattern]


def _literal_start(pattern: str) -> str:
    """The longest start of a local path, up to a slash or its end, that has braces and exists as it stands."""
    ends = [place for place, character in enumerate(pattern) if character == "/"]
    starts = (pattern[:end] for end in (len(pattern), *reversed(ends)))
    return next((start for start in starts if "{" in start and exists(start)), "")
