r"""Names of files as text: reversible, and different for different names; and names of samples that come twice.

A file name is any sequence of bytes. Python holds bytes that are no UTF-8 as lone surrogates, which Parquet and JSON
cannot store. Each such byte is written as ``\xNN``; where a name itself contains such a sequence, its backslash is
written as ``\x5c``. All other names stay as they are.
"""

from __future__ import annotations

import re

__all__ = ["name_of", "text_of", "unique_key"]

_UNSAFE = re.compile(r"[\udc80-\udcff]|\\(?=x[0-9a-f]{2})")
_ESCAPE = re.compile(r"(?:\\x[0-9a-f]{2})+")
_OTHER_SURROGATES = re.compile(r"[\ud800-\udfff]")


def text_of(name: str) -> str:
    r"""A name as text that Parquet and JSON can hold.

    >>> print(text_of("caf\udce9.jpg"), text_of("plain.jpg"), text_of(r"a\xe9"))
    caf\xe9.jpg plain.jpg a\x5cxe9
    """
    if name.isascii() and "\\" not in name:
        return name
    return _OTHER_SURROGATES.sub("\ufffd", _UNSAFE.sub(lambda match: f"\\x{ord(match[0]) & 0xFF:02x}", name))


def name_of(text: str) -> str:
    r"""The name that :func:`text_of` was given.

    >>> name_of(r"caf\xe9.jpg") == "caf\udce9.jpg", name_of(r"a\x5cxe9") == r"a\xe9"
    (True, True)
    """
    if "\\" not in text:
        return text
    return _ESCAPE.sub(lambda match: _bytes(match[0]).decode("utf-8", "surrogateescape"), text)


def unique_key(key: str, named: dict[str, int]) -> str:
    """The key, or ``KEY#2`` and so on where it came before.

    Args:
        key: A key of a file or data set.
        named: The names that came before, with the last number that each was given; it is added to.

    >>> named = {}
    >>> [unique_key(key, named) for key in ("a", "b", "a", "a")]
    ['a', 'b', 'a#2', 'a#3']
    """
    if key not in named:
        named[key] = 1
        return key
    named[key] += 1
    while f"{key}#{named[key]}" in named:
        named[key] += 1
    return unique_key(f"{key}#{named[key]}", named)


def _bytes(escapes: str) -> bytes:
    return bytes.fromhex(escapes.replace("\\x", ""))
