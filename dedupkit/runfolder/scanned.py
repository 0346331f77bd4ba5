"""What the scan and the embedders of a run came to, as their markers state it: samples, and what could not be taken."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from dedupkit.engine.marker import read_marker
from dedupkit.engine.task import cache_key
from dedupkit.runfolder.folder import RunFolder
from dedupkit.runfolder.layout import Layout

__all__ = [
    "passed_over",
    "scan_digest",
    "scan_key",
    "scan_problem",
    "scanned_samples",
    "shard_problems",
    "without_vector",
]


def scan_key(read: str, meta: Sequence[str]) -> str:
    """The key of a shard's scan.

    Args:
        read: Digest of what is read and of what is measured.
        meta: Columns of the data's own that are stored too.
    """
    return f"{read}-{cache_key(sorted(meta))}" if meta else read


def scan_digest(key: str, result: Mapping[str, Any]) -> str:
    """Digest of what was read of a shard, for the keys of later stages: the keep policy alone looks at columns of meta.

    Args:
        key: Key of the scan.
        result: What the scan returned.
    """
    read, _, _ = key.partition("-")
    return cache_key([read, {name: value for name, value in result.items() if name != "numbers"}])


def scanned_samples(folder: Layout, shards: int) -> int:
    """The number of samples of a run whose scan is done.

    Args:
        folder: The run folder.
        shards: Number of its shards.
    """
    markers = (read_marker(folder.scan_marker(number)) for number in range(shards))
    return sum(int(marker.result["samples"]) for marker in markers if marker is not None)


def scan_problem(folder: Layout, shard: int) -> str | None:
    """Why a shard could not be read to its end, None where it was."""
    marker = read_marker(folder.scan_marker(shard))
    problem = None if marker is None else marker.result.get("problem")
    return None if problem is None else str(problem)


def shard_problems(folder: Layout, shards: Sequence[str]) -> list[dict[str, str]]:
    """The shards that could not be read to their end: ``source`` and ``problem``.

    Args:
        folder: The run folder, or what was read of a reference set.
        shards: ``source`` of each shard.
    """
    found = []
    for number, source in enumerate(shards):
        problem = scan_problem(folder, number)
        if problem:
            found.append({"source": source, "problem": problem})
    return found


def passed_over(folder: RunFolder) -> dict[str, Any]:
    """What the sources hold that is neither a sample nor about one: ``count``, and one ``example``."""
    total: dict[str, Any] = {"count": 0}
    for number in range(len(folder.read_config().shards)):
        marker = read_marker(folder.scan_marker(number))
        found = None if marker is None else marker.result.get("passed_over")
        if found:
            total.setdefault("example", found["example"])
            total["count"] += found["count"]
    return total


def without_vector(folder: Layout, shards: Sequence[str], embedders: Iterable[str]) -> dict[str, dict[str, Any]]:
    """The readable images that an embedder has no vector of: they take no part in that signal.

    Args:
        folder: The run folder, or what was read of a reference set.
        shards: ``source`` of each shard.
        embedders: Signal names of the embedders.

    Returns:
        For each embedder that has not all: ``count`` of them ``of`` so many readable images, ``examples``
        (``source`` and ``key``) and ``reason``, what was wrong with the first.
    """
    found: dict[str, dict[str, Any]] = {}
    for name in embedders:
        total: dict[str, Any] = {"count": 0, "of": 0, "examples": [], "reason": None}
        for number, source in enumerate(shards):
            marker = read_marker(folder.embed_marker(name, number))
            result = {} if marker is None else marker.result
            total["count"] += result.get("failed", 0)
            total["of"] += result.get("failed", 0) + result.get("embedded", 0)
            total["reason"] = total["reason"] or result.get("failure")
            total["examples"] += [{"source": source, "key": key} for key in result.get("examples", [])]
        if total["count"]:
            found[name] = {**total, "examples": total["examples"][:5]}
    return found
