"""Completion markers: what says that a task is done, and vouches for the files that it wrote.

A marker ``.done/{stage}/{name}.json`` is written after everything that it speaks of. It holds the key of what was
asked, the summary that the task returned, and size and SHA-256 of each file. On resuming, a task is done only if its
files are as the marker says: one that was truncated, zeroed, changed or lost is made again. A marker that is itself
damaged does not count.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dedupkit.store import FileState, file_state, is_intact, is_temporary, mirror_of, read_sealed, write_sealed

__all__ = ["Marker", "done_folder", "marker_path", "read_marker", "write_marker"]

_DONE = ".done"


@dataclass(frozen=True, slots=True)
class Marker:
    """What a marker says.

    Attributes:
        key: Digest of everything that the result depends on.
        result: The summary that the task returned.
        files: Size and SHA-256 by path; relative to the run folder for files inside it.
    """

    key: str
    result: dict[str, Any]
    files: Mapping[str, FileState]

    def holds(self, out: Path, outputs: Iterable[str | Path] = ()) -> bool:
        """Whether the files are as they were written; of one that is left in a store, whether it has that size.

        Args:
            out: The run folder.
            outputs: Files and folders that the marker must vouch for; of a folder, some file in it.
        """
        for output in outputs:
            name = _relative(Path(output), out)
            if name not in self.files and not any(file.startswith(f"{name}/") for file in self.files):
                return False
        return all(is_intact(out / name, state) or _is_left(out / name, state) for name, state in self.files.items())


def done_folder(out: Path) -> Path:
    """The folder of the markers."""
    return out / _DONE


def marker_path(out: Path, stage: str, name: str) -> Path:
    """Where a task's marker lies."""
    return Path(out, _DONE, stage, f"{name}.json")  # in one: a resume asks for many


def read_marker(path: Path) -> Marker | None:
    """Read a marker; None where there is none or it is damaged."""
    value = read_sealed(path)
    try:
        if value is None or not isinstance(value["result"], dict):
            return None
        files = {str(name): (int(size), str(digest)) for name, (size, digest) in value["files"].items()}
        return Marker(str(value["key"]), value["result"], files)
    except (KeyError, TypeError, ValueError, AttributeError):
        return None


def write_marker(path: Path, key: str, result: Mapping[str, Any], out: Path, outputs: Iterable[str | Path]) -> None:
    """Write a marker.

    Args:
        path: Where, from :func:`marker_path`.
        key: Digest of everything that the result depends on.
        result: The summary, JSON-able.
        out: The run folder.
        outputs: Files to vouch for; of a folder, all files in it.

    Raises:
        OSError: An output is missing, or the marker cannot be written.
    """
    files = {_relative(file, out): file_state(file) for output in outputs for file in _files_of(Path(output))}
    write_sealed(path, {"key": key, "result": dict(result), "files": {name: list(of) for name, of in files.items()}})


def _files_of(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    return sorted(file for file in path.rglob("*") if file.is_file() and not is_temporary(file.name))


def _is_left(path: Path, state: FileState) -> bool:
    mirror = None if path.exists() else mirror_of(path)
    return mirror is not None and mirror.size_left(path) == state[0]


def _relative(path: Path, out: Path) -> str:
    return path.relative_to(out).as_posix() if path.is_relative_to(out) else str(path)
