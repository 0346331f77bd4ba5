"""The shards of a finished run, found again: where they were, or where their data lies now."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Mapping, Sequence
from pathlib import Path

from dedupkit import store
from dedupkit.errors import DedupkitError
from dedupkit.sources.find import find_shards, listed_shards
from dedupkit.sources.keys import name_of
from dedupkit.sources.sample import Shard

__all__ = ["Moved", "find_again", "moved_to"]

Moved = str | Path | Sequence[str | Path] | Mapping[str, str]
"""Where moved data lies now: one or several sources, or a mapping from the old start of a path to the new one."""


def find_again(
    sources: Sequence[str], names: Sequence[str], *, directory: str | None = None, moved: Moved | None = None
) -> list[Shard | None]:
    """Find the shards of a run again, in its order.

    Shards of one folder of images share a name, so the n-th shard of a name is the n-th of that name now, or the last
    where the folder has fewer now: each of them finds every image of the folder.

    Args:
        sources: The sources as the user named them.
        names: The ``source`` of each shard of the run.
        directory: The folder in which relative paths were named, where they are looked up before they are in the
            current one; the current one by default.
        moved: Where the data lies now, if it moved, seen from the current folder. Shards are then matched by their
            names below the old place and the new one.

    Returns:
        One shard per name; None for one that is gone.

    Raises:
        DedupkitError: ``moved`` names a source that does not exist.
    """
    if isinstance(moved, Mapping):
        moved = {old: new if "://" in new else str(Path(new).absolute()) for old, new in moved.items()}
        sources = [_renamed(source, moved) for source in sources]
        names = [_renamed(name, moved) for name in names]
    elif moved is not None:
        return _matched_by_name(names, find_shards(moved))
    store.forget_listings(sources)
    present: dict[str, list[Shard]] = defaultdict(list)
    for source in sources:
        for shard in _present(source, directory):
            present[shard.source].append(shard)
    taken: dict[str, int] = defaultdict(int)
    shards: list[Shard | None] = []
    for name in names:
        shards.append(_nth(present.get(_absolute(name, directory)) or present.get(name, []), taken[name]))
        taken[name] += 1
    return shards


def moved_to(moved: Moved | None) -> list[str]:
    """The places that ``moved`` names."""
    if moved is None:
        return []
    if isinstance(moved, Mapping):
        return list(moved.values())
    return [str(moved)] if isinstance(moved, str | Path) else [str(source) for source in moved]


def _present(source: str, directory: str | None) -> list[Shard]:
    """The shards of one source; none where it is gone or cannot be asked."""
    for place in dict.fromkeys((_absolute(source, directory), source)):
        try:
            return listed_shards([name_of(place)])
        except (DedupkitError, OSError, ImportError):
            continue
    return []


def _absolute(path: str, directory: str | None) -> str:
    return path if directory is None or store.is_remote(path) else str(Path(directory, path))


def _renamed(path: str, moved: Mapping[str, str]) -> str:
    """The path with the longest of the old starts that it has replaced by the new one."""
    for old in sorted(moved, key=len, reverse=True):
        if path == old or path.startswith(old.rstrip("/") + "/"):
            return moved[old].rstrip("/") + path[len(old.rstrip("/")) :]
    return path


def _matched_by_name(names: Sequence[str], shards: Sequence[Shard]) -> list[Shard | None]:
    """Match the names with the shards whose paths end alike, those with the longest common end first.

    A folder of images has no name below itself: if the run read one folder and one is given, they are the same.
    """
    if len(set(names)) == len({shard.source for shard in shards}) == 1:
        return [_nth(shards, number) for number in range(len(names))]
    matched: dict[int, Shard] = {}
    free = list(shards)
    for length in range(max((name.count("/") + 1 for name in names), default=0), 0, -1):
        by_end: dict[str, deque[Shard]] = defaultdict(deque)
        for shard in free:
            by_end[_end(shard.source, length)].append(shard)
        for number, name in enumerate(names):
            if number not in matched and by_end.get(_end(name, length)):
                matched[number] = by_end[_end(name, length)].popleft()
        free = [shard for left in by_end.values() for shard in left]
    return [matched.get(number) for number in range(len(names))]


def _end(path: str, length: int) -> str:
    """The last components of a path; all of it where it has fewer."""
    return "/".join(path.split("/")[-length:])


def _nth(shards: Sequence[Shard], number: int) -> Shard | None:
    return shards[min(number, len(shards) - 1)] if shards else None
