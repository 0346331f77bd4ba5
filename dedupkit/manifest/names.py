"""Names of samples in an archive: safe to unpack, read back by every WebDataset reader, and reversible.

A key may be anything that a data set calls a sample: empty, ``../../x``, ``/abs/y``, text with dots, tabs or NUL. A
member's name may not. This is the one place that turns the first into the second.

WebDataset splits a name at the first dot of its base name, skips folders ``__*__``, and takes folders as part of the
key. An archive is unpacked into a folder that no name may leave. So these characters are written as ``%XX`` (ASCII) or
``%uXXXX`` (others): ``%`` itself, backslashes, control characters, line separators and lone surrogates anywhere; dots
in the base name; dots of the folders ``.`` and ``..``; slashes that begin or end the key or follow one another; and
the first underscore of a folder ``__*__``. Everything else stays as it is. ``%~`` and ``%~2`` stand for nothing: the
first for the empty key, the second for a key that occurs again.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

__all__ = ["ArchiveNames", "archive_name", "original_key", "safe_extension", "short_key"]

_UNSAFE = re.compile(r"[%\\/\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_UNSAFE_IN_BASE = re.compile(_UNSAFE.pattern[:-1] + ".]")
_FOLDER_SLASH = re.compile(r"(?<=[^/])/(?=[^/])")
_ESCAPE = re.compile(r"%(?:~[0-9]*|u([0-9A-F]{4})|([0-9A-F]{2}))")
_NOTHING = "%~"


def archive_name(key: str) -> str:
    """The key as the name of a member without its extension; no two keys have the same.

    >>> archive_name("00017/000171234"), archive_name("a.b"), archive_name("../../x"), archive_name("/abs/y")
    ('00017/000171234', 'a%2Eb', '%2E%2E/%2E%2E/x', '%2Fabs/y')
    """
    *folders, base = _FOLDER_SLASH.split(key)
    return "/".join([*map(_folder, folders), _UNSAFE_IN_BASE.sub(_escaped, base)]) or _NOTHING


def original_key(name: str, data: bytes | None = None) -> str:
    """The key of a sample that was read from a cleaned tar.

    Args:
        name: The sample's key in the tar.
        data: The sample's JSON, which holds the key where the name lost a suffix (``cat.JPG`` becomes ``cat``).

    >>> original_key("%2E%2E/%2E%2E/x"), original_key("cat", b'{"original_key": "cat.JPG"}')
    ('../../x', 'cat.JPG')
    """
    try:
        stated: Any = json.loads(data).get("original_key") if data is not None else None
    except (ValueError, AttributeError, RecursionError):
        stated = None
    if isinstance(stated, str):
        return stated
    return _ESCAPE.sub(lambda match: chr(int(match[1] or match[2], 16)) if match[1] or match[2] else "", name)


def short_key(key: str, extension: str) -> str:
    """The key without a suffix that repeats the image's extension, as the file names of a folder have it.

    >>> short_key("sub/IMG_0001.JPG", "jpg"), short_key("a.b", "jpg"), short_key(".jpg", "jpg")
    ('sub/IMG_0001', 'a.b', '.jpg')
    """
    stem, _, suffix = key.rpartition(".")
    return stem if suffix.lower() == extension and stem and not stem.endswith("/") else key


def safe_extension(extension: str) -> str:
    r"""An extension without what a member's name may not hold; dots may stand in it.

    >>> safe_extension("seg.png"), safe_extension("p\0ng")
    ('seg.png', 'p%00ng')
    """
    return _UNSAFE.sub(_escaped, extension)


class ArchiveNames:
    """Names for the samples of one archive, each given once.

    >>> names = ArchiveNames()
    >>> names.give("cat.jpg", "jpg"), names.give("cat.png", "png"), names.give("cat.png", "png")
    ('cat', 'cat%2Epng', 'cat%2Epng%~2')
    """

    def __init__(self) -> None:
        self._given: set[str] = set()

    def give(self, key: str, extension: str | None) -> str:
        """The shortest name of this key that is free.

        Args:
            key: As the source has it.
            extension: Of the image; None where there is none.
        """
        name = next(name for name in _candidates(key, extension) if name not in self._given)
        self._given.add(name)
        return name


def _candidates(key: str, extension: str | None) -> Iterator[str]:
    if extension is not None:
        yield archive_name(short_key(key, extension))
    full = archive_name(key)
    yield full
    number = 2
    while True:
        yield f"{full}{_NOTHING}{number}"
        number += 1


def _folder(name: str) -> str:
    """One folder of the key; it may begin and end with slashes that are no separators."""
    if name in (".", ".."):
        return name.replace(".", "%2E")
    name = _UNSAFE.sub(_escaped, name)
    return "%5F" + name[1:] if name.startswith("__") and name.endswith("__") else name


def _escaped(match: re.Match[str]) -> str:
    code = ord(match[0])
    return f"%{code:02X}" if code < 0x80 else f"%u{code:04X}"
