"""Lists of what must not be in a data set: hashes of images, URLs and domains, a line each."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from dedupkit import store
from dedupkit.errors import DedupkitError

__all__ = ["LIST_KINDS", "Blocklist", "Entry", "is_blocklist", "read_blocklist"]

LIST_KINDS = ("sha256", "pdq", "phash", "urls", "domains")
"""What the lines of a list can be read as: ``KIND:FILE`` names one, a file alone takes all of them."""

_SUFFIXES = (".txt", ".csv", ".tsv", ".list", ".lst")
_HEX = {64: re.compile(r"[0-9a-fA-F]{64}"), 16: re.compile(r"[0-9a-fA-F]{16}")}
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]*://[^\s]+")
_DOMAIN = re.compile(r"(?:\*?\.)?((?:[\w-]{1,63}\.)+[^\W\d_][\w-]{0,61}\w)\.?")
_HEADINGS = frozenset(
    {"hash", "pdq", "pdq_hash", "sha256", "phash", "url", "domain", "indicator", "value", "signal_type"}
)
_WORDS: Mapping[str, str] = {"pdq": "pdq", "sha256": "sha256", "phash": "phash", "url": "urls", "domain": "domains"}
_LEAST_QUALITY = 50  # PDQ's own bound; ThreatExchange's lists state the quality
_EXAMPLES = 3
_SHOWN = 60


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of a list.

    Attributes:
        line: Its number in the file, from 1.
        text: The hash, URL or domain as written.
        kinds: What it is read as; 64 hexadecimal digits may be a SHA-256 and a PDQ hash.
    """

    line: int
    text: str
    kinds: tuple[str, ...]


@dataclass(slots=True)
class Blocklist:
    """A list that was read.

    Attributes:
        entries: Its usable lines.
        malformed: Number of lines that are none of what the list may hold.
        examples: The first of those, with their numbers.
        flat: Number of PDQ hashes left out for their quality, which is below 50.
    """

    entries: list[Entry] = field(default_factory=list)
    malformed: int = 0
    examples: list[str] = field(default_factory=list)
    flat: int = 0

    @property
    def kinds(self) -> tuple[str, ...]:
        """What occurs in it, in the order of :data:`LIST_KINDS`."""
        present = {kind for entry in self.entries for kind in entry.kinds}
        return tuple(kind for kind in LIST_KINDS if kind in present)


def is_blocklist(path: str) -> bool:
    """Whether a file is a list by its name."""
    return path.lower().endswith(_SUFFIXES)


def read_blocklist(path: str, reads: str = "") -> Blocklist:
    r"""Read a list of hashes, URLs or domains.

    A line holds one entry: 64 hexadecimal digits (SHA-256 of a file, or PDQ; neither matches by accident, so both are
    tried), 16 (pHash, as imagehash writes it), a URL, or a domain (with or without ``*.``). More fields may follow,
    separated by commas, tabs or spaces; a word such as ``pdq`` before the entry says what it is. A first line of names
    is understood as ThreatExchange's CSV files have it: ``hash,quality,filename``. A comma may be part of a URL: it
    separates fields after one only where a first line names several. Empty lines and those that begin with ``#`` are
    skipped; a line that is nothing of this is counted as malformed.

    Args:
        path: A text file, local or remote.
        reads: One of :data:`LIST_KINDS`, where the lines are all of one kind.

    Raises:
        DedupkitError: The file cannot be read, or no line of it can be used, and not because all are comments.

    >>> import tempfile, pathlib
    >>> folder = tempfile.TemporaryDirectory()
    >>> path = pathlib.Path(folder.name, "list.txt")
    >>> _ = path.write_text("example.org\nhttps://example.com/a.jpg\n<html>\n")
    >>> found = read_blocklist(str(path))
    >>> [entry.kinds for entry in found.entries], found.malformed
    ([('domains',), ('urls',)], 1)
    """
    try:
        with store.open_binary(path) as stream:
            text = stream.read().decode("utf-8-sig", "replace")
    except OSError as error:
        raise DedupkitError(f"the list {path} cannot be read: {error.strerror or error}") from error
    found = Blocklist()
    for number, line, entry, quality in _lines(text, reads):
        if entry is None:
            found.malformed += 1
            if len(found.examples) < _EXAMPLES:
                found.examples.append(f"line {number}: {line.strip()[:_SHOWN]}")
        elif quality is not None and quality < _LEAST_QUALITY and entry.kinds == ("pdq",):
            found.flat += 1
        else:
            found.entries.append(entry)
    if not found.entries and not _says_that_nothing_is_listed(text):
        looked = reads or "SHA-256, PDQ or pHash in hex, a URL or a domain"
        such = f", such as {found.examples[0]}" if found.examples else ""
        raise DedupkitError(f"the list {path} has no usable line (looked for {looked}){such}")
    return found


def _says_that_nothing_is_listed(text: str) -> bool:
    lines = [line.lstrip() for line in text.splitlines() if line.strip()]
    return bool(lines) and all(line.startswith("#") for line in lines)


def _lines(text: str, reads: str) -> Iterator[tuple[int, str, Entry | None, float | None]]:
    heading: list[str] | None = None
    separator = ""
    first = True
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        fields = _split(line.strip(), separator) if separator else _fields(line.strip())
        if first:
            first = False
            names = [name.strip().lower() for name in fields]
            if set(names) & _HEADINGS and not any(_kinds(name, reads) for name in names):
                heading, separator = names, _separator(line) if len(names) > 1 else ""
                continue
        yield (number, line, *_entry(number, fields, heading, reads))


def _fields(line: str) -> list[str]:
    """The fields of a line; a URL at its beginning is one up to white space, whatever is in it."""
    found = _URL.match(line)
    return [found[0].rstrip(",")] if found and '"' not in line else _split(line, _separator(line))


def _separator(line: str) -> str:
    return "," if "," in line or '"' in line else "\t" if "\t" in line else " "


def _split(line: str, separator: str) -> list[str]:
    return next(csv.reader([line])) if separator == "," else line.split("\t" if separator == "\t" else None)


def _entry(number: int, fields: list[str], heading: list[str] | None, reads: str) -> tuple[Entry | None, float | None]:
    said = reads
    quality = None
    if heading is not None:
        named = dict(zip(heading, (value.strip() for value in fields), strict=False))
        said = said or _WORDS.get(named.get("signal_type", ""), "")
        quality = _number(named.get("quality"))
        column = next((name for name in heading if name in _HEADINGS and name != "signal_type"), "")
        said = said or _WORDS.get(column.removesuffix("_hash"), "") or ("pdq" if quality is not None else "")
        text = named.get(column, "")
    else:
        fields = [*fields[0].split(), *fields[1:]]
        if len(fields) > 1 and fields[0].strip().lower() in _WORDS:
            said = said or _WORDS[fields[0].strip().lower()]
            fields = fields[1:]
        text = fields[0].strip() if fields else ""
        quality = _number(fields[1]) if said == "pdq" and len(fields) > 1 else None
    kinds = _kinds(text, said)
    return (Entry(number, text, kinds) if kinds else None), quality


def _number(text: str | None) -> float | None:
    try:
        return None if text is None else float(text)
    except ValueError:
        return None


def _kinds(text: str, reads: str) -> tuple[str, ...]:
    """What a text can be read as."""
    if any(pattern.fullmatch(text) for pattern in _HEX.values()):
        possible: tuple[str, ...] = ("sha256", "pdq") if len(text) == 64 else ("phash",)
    elif _URL.fullmatch(text):
        possible = ("urls",)
    elif _DOMAIN.fullmatch(text):
        possible = ("domains",)
    else:
        possible = ()
    return possible if not reads else tuple(kind for kind in possible if kind == reads)
