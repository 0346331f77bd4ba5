"""JSON files of dedupkit's own, and the size and digest by which one file vouches for another."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from dedupkit.store.whole import atomic_path

__all__ = [
    "FileState",
    "digest_of",
    "file_state",
    "is_intact",
    "parsed_json",
    "read_json",
    "read_sealed",
    "write_json",
    "write_sealed",
]

FileState = tuple[int, str]
"""Size in bytes and SHA-256 of a file."""

_SEAL = "checksum"


def write_json(path: Path, value: Any, *, sort_keys: bool = True) -> None:
    """Write JSON, whole or not at all."""
    with atomic_path(path) as temporary:
        text = json.dumps(value, indent=1, sort_keys=sort_keys, ensure_ascii=False) + "\n"
        temporary.write_bytes(text.encode("utf-8", "surrogatepass"))  # file names need not be Unicode


def read_json(path: Path) -> Any:
    """Read JSON; None where the file is missing or is no JSON."""
    try:
        return parsed_json(path.read_bytes())
    except OSError:
        return None


def parsed_json(data: bytes) -> Any:
    """The value of a JSON text; None where it is none."""
    try:
        return json.loads(data.decode("utf-8", "surrogatepass"))
    except (ValueError, RecursionError):
        return None


def write_sealed(path: Path, value: dict[str, Any]) -> None:
    """Write a JSON object with a digest of itself, by which :func:`read_sealed` knows that nothing changed."""
    write_json(path, value | {_SEAL: digest_of(value)})


def read_sealed(path: Path) -> dict[str, Any] | None:
    """Read what :func:`write_sealed` wrote; None where it is missing or not as it was written."""
    value = read_json(path)
    if not isinstance(value, dict):
        return None
    seal = value.pop(_SEAL, None)
    return value if seal == digest_of(value) else None


def digest_of(value: Any) -> str:
    """SHA-256 of a JSON-able value, whatever the order of its keys.

    Raises:
        TypeError: The value holds something that JSON has no form for.

    >>> digest_of({"a": 1, "b": 2}) == digest_of({"b": 2, "a": 1})
    True
    """
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def file_state(path: Path) -> FileState:
    """Size and digest of a file.

    Raises:
        OSError: The file cannot be read.
    """
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
        return stream.tell(), digest


def is_intact(path: Path, state: FileState, *, whole_up_to: int | None = None) -> bool:
    """Whether a file is as it was when :func:`file_state` looked.

    Args:
        path: The file.
        state: What it was then.
        whole_up_to: Size in bytes of the largest file that is read to compare digests; any file by default. Of a
            larger one only the size is compared.
    """
    size, digest = state
    try:
        if not path.is_file() or path.stat().st_size != size:
            return False
        return (whole_up_to is not None and size > whole_up_to) or file_state(path) == (size, digest)
    except OSError:
        return False
