"""The folder that cleaned lists go to."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dedupkit.errors import DedupkitError
from dedupkit.metadata.grouping import KEY_BYTES
from dedupkit.store import digest_of, held_alone, is_temporary, read_json, sweep, write_json

if TYPE_CHECKING:
    from dedupkit.metadata.lists import UrlList

__all__ = ["FOLDER", "check_room", "claimed", "remove_earlier", "room_for_keys"]

FOLDER = "dedupkit"
"""Folder inside the output for the manifest and the summary, which img2dataset does not take for lists."""

KEYS = "dedupkit-keys.tmp"
"""Folder of the keys inside the output; what a killed call leaves of it is an earlier call's too."""


@contextmanager
def claimed(target: Path, lists: Sequence[UrlList], shown: str) -> Iterator[list[str]]:
    """Hold a folder that is new or an earlier call's alone; yields the lists' names.

    What an earlier call wrote stays until :func:`remove_earlier`, so that a call that is refused leaves it.

    Args:
        target: The folder on this machine.
        lists: The lists.
        shown: The folder as messages name it.

    Raises:
        DedupkitError: It holds something else, two lists have one name (then nothing in it was touched), or another
            process is writing into it.
    """
    names = _names(target, lists, shown)
    _earlier(target, shown)
    (target / FOLDER).mkdir(parents=True, exist_ok=True)
    with held_alone(target / FOLDER / ".lock", shown):
        earlier = _earlier(target, shown)  # another process may have come first
        sweep(target)
        sweep(target / FOLDER)
        if earlier is None:
            write_json(target / FOLDER / "summary.json", {"lists": names})
        yield names


def remove_earlier(target: Path, names: Sequence[str]) -> None:
    """Remove what an earlier call wrote into a folder that is held, to write lists of these names."""
    summary = target / FOLDER / "summary.json"
    for name in (read_json(summary) or {}).get("lists", []):
        if Path(name).name == name:  # anybody may have written the summary
            (target / name).unlink(missing_ok=True)
    (target / FOLDER / "manifest.parquet").unlink(missing_ok=True)
    write_json(summary, {"lists": list(names)})


def _names(target: Path, lists: Sequence[UrlList], shown: str) -> list[str]:
    """The names of the lists, no two of which are the same, and none of which lies where it would be written."""
    names = [one.path.name for one in lists]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise DedupkitError(f"two lists are called {twice}; clean them into folders of their own")
    for one in lists:
        folder = one.path.resolve().parent
        if target.resolve() == folder or folder / one.path.name == target.resolve():
            raise DedupkitError(f"{shown} holds the list {one.path}; choose another --to")
    return names


def _earlier(target: Path, shown: str) -> dict[str, Any] | None:
    """What an earlier call says that it wrote into the folder; None where there was none, and nothing lies there."""
    if target.exists() and not target.is_dir():
        raise DedupkitError(f"{shown} is a file; --to takes a folder")
    earlier = read_json(target / FOLDER / "summary.json") if target.exists() else None
    present = [entry.name for entry in target.iterdir() if not is_temporary(entry.name)] if target.exists() else []
    mine = {FOLDER, KEYS, *(earlier.get("lists", []) if isinstance(earlier, dict) else [])}
    if set(present) - mine or (present and not isinstance(earlier, dict) and present != [FOLDER]):
        raise DedupkitError(f"{shown} is not empty and was not written by this command; choose another --to")
    return earlier if isinstance(earlier, dict) else None


def room_for_keys(temporary: str | Path | None, target: Path) -> Path:
    """The folder of the keys; elsewhere it has a name of its own for each output, so that calls don't share one."""
    if temporary is None:
        return target / KEYS
    stem, suffix = KEYS.rsplit(".", 1)
    return Path(temporary) / f"{stem}-{digest_of(str(target.resolve()))[:16]}.{suffix}"


def check_room(lists: Sequence[UrlList], kinds: int, keys: Path, target: Path) -> None:
    """Compare the room on the disk with what keys and cleaned lists will take.

    Raises:
        DedupkitError: there is not enough; the message says how much is needed and where.
    """
    sizes = sum(one.path.stat().st_size for one in lists)
    need = {keys: sum(one.rows for one in lists) * kinds * KEY_BYTES, target: sizes}
    if keys.resolve() == target.resolve():
        need = {target: sum(need.values())}
    for folder, wanted in need.items():
        folder.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(folder).free
        if wanted > free:
            raise DedupkitError(
                f"about {wanted / 1e9:.1f} GB are needed in {folder}, and {free / 1e9:.1f} GB are free; "
                "name another folder with --temporary or --to"
            )
