"""Cleaned WebDataset tars: bytes copied, never re-encoded."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from dedupkit.manifest.extra import as_json, beside
from dedupkit.manifest.names import ArchiveNames, safe_extension
from dedupkit.manifest.readme import readme
from dedupkit.sources import Sample

__all__ = ["TarShardWriter"]

_BLOCK = 512
_EMPTY = tarfile.TarInfo("").tobuf(tarfile.USTAR_FORMAT)
_EMPTY_SUM = sum(_EMPTY[:124]) + sum(_EMPTY[135:148]) + 8 * ord(" ") + sum(_EMPTY[156:])


class TarShardWriter:
    """A WebDataset tar: members in source order, ``mtime=0``, names as ustar where they fit, else pax.

    Every sample has a ``json``: the source's own, byte for byte, where the name in the tar is the key; with
    ``original_key`` added where it is not (see :mod:`dedupkit.manifest.names`); and where the source has none,
    ``caption``, ``url``, ``uid``, every other column of the source, the ``captions`` that the sample carries, ``key``
    and ``original_key``. Then there is a ``txt`` with the caption too, empty where there is none, because readers want
    the same members of every sample.
    """

    suffix = ".tar"

    def __init__(self, path: Path, extra: Any = None) -> None:
        del extra  # JSON needs no types
        self._path = path
        self._names = ArchiveNames()

    def __enter__(self) -> TarShardWriter:
        self._stream = self._path.open("wb")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._stream.write(bytes(2 * _BLOCK))
        self._stream.close()

    def add(self, sample: Sample, row: Mapping[str, Any]) -> None:
        """Append every file of the sample under its key."""
        members = dict(sample.members)
        stated = _json_object(members.get("json"))
        # JSON that is no object can hold no key, so the name must keep all of it.
        name = self._names.give(row["key"], None if stated is None else sample.image_ext)
        if "json" not in members:
            members.setdefault("txt", (row["caption"] or "").encode())
            members["json"] = _dump(_described(sample, name, row))
        elif stated is not None and name != row["key"]:
            members["json"] = _dump({**stated, "original_key": row["key"]})
        for extension, data in members.items():
            self._stream.write(_header(f"{name}.{safe_extension(extension)}", len(data)))
            self._stream.write(data)
            self._stream.write(bytes(-len(data) % _BLOCK))

    @staticmethod
    def beside(name: str, samples: int) -> dict[str, bytes]:
        """img2dataset's ``_stats.json``; its times are zero, so that the same input gives the same bytes."""
        stats = {
            "count": samples,
            "successes": samples,
            "failed_to_download": 0,
            "failed_to_resize": 0,
            "duration": 0.0,
            "start_time": 0.0,
            "end_time": 0.0,
            "status_dict": {"success": samples},
        }
        return {name.removesuffix(".tar") + "_stats.json": _pretty(stats)}

    @staticmethod
    def index(sizes: Mapping[str, int]) -> dict[str, bytes]:
        """``sizes.json``, which open_clip's training reads, and a README.md for Hugging Face ``datasets``."""
        return {"sizes.json": _pretty(dict(sizes)), **readme(sizes, "*.tar")}


def _header(name: str, size: int) -> bytes:
    """A member's header as :mod:`tarfile` writes it; short names in a tenth of its time."""
    raw = name.encode("utf-8", "surrogateescape")
    if len(raw) <= 100 and size < 8**11:
        octal = b"%011o" % size
        checksum = _EMPTY_SUM + sum(raw) + sum(octal)
        parts = (raw.ljust(100, b"\0"), _EMPTY[100:124], octal, _EMPTY[135:148], b"%06o\0 " % checksum, _EMPTY[156:])
        return b"".join(parts)
    header = tarfile.TarInfo(name)
    header.size = size
    try:
        return header.tobuf(tarfile.USTAR_FORMAT, "utf-8", "surrogateescape")
    except ValueError:  # a name that no prefix splits
        return header.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")


def _described(sample: Sample, name: str, row: Mapping[str, Any]) -> dict[str, Any]:
    """The JSON of a sample whose source has none: the columns of the source, and what the manifest says."""
    known = {field: row.get(field) for field in ("caption", "url", "uid")}
    ours = {"key": name, "original_key": row["key"]}
    stated = {column: as_json(value) for column, value in sample.extra.items()}
    theirs = {column: value for column, value in stated.items() if value is not None or column not in known}
    if theirs.get("key") in ours.values():
        del theirs["key"]
    if "captions" in row:
        ours["captions"] = row["captions"]
    return {**known, **beside(theirs, ours)}


def _json_object(data: bytes | None) -> dict[str, Any] | None:
    """The object in a sample's JSON, empty where there is no JSON; None where it is something else."""
    try:
        value = {} if data is None else json.loads(data)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _pretty(value: Mapping[str, Any]) -> bytes:
    return (json.dumps(value, indent=1, sort_keys=True) + "\n").encode()


def _dump(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value).encode()
