"""A run's shards again, later: which of them are still there, and some of their images."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from dedupkit.errors import DedupkitError
from dedupkit.sources.find import find_shards
from dedupkit.sources.sample import Shard, ShardError
from dedupkit.sources.webdataset import TarShard

__all__ = ["Fetch", "fetcher", "find_again"]

Fetch = Callable[[dict[str, Any]], bytes]


def find_again(sources: Sequence[str], names: Sequence[str]) -> list[Shard | None]:
    """The run's shards in its order; None for one that is gone.

    Shards of one folder share a name, so the n-th of a name then is the n-th of that name now.

    Args:
        sources: as the user named them.
        names: ``source`` of each shard of the run.
    """
    present: dict[str, list[Shard]] = defaultdict(list)
    for source in sources:
        try:
            for shard in find_shards(source):
                present[shard.source].append(shard)
        except (DedupkitError, OSError, ImportError):
            continue
    taken: dict[str, int] = defaultdict(int)
    shards: list[Shard | None] = []
    for name in names:
        again, number = present.get(name, []), taken[name]
        shards.append(again[number] if number < len(again) else None)
        taken[name] += 1
    return shards


def fetcher(shard: Shard, places: Sequence[dict[str, Any]]) -> Fetch:
    """How to read some images of a shard: by seeking, or in one pass over a tar that is compressed.

    Args:
        shard: where they are.
        places: ``key``, ``offset`` and ``nbytes`` of each, as the scan noted them.

    Returns:
        A function from one of the places to the stored bytes; it raises OSError where they cannot be read.
    """
    if not isinstance(shard, TarShard) or any(place["offset"] is not None for place in places):
        return lambda place: shard.fetch(place["key"], place["offset"], place["nbytes"])
    wanted = {place["key"] for place in places}
    held: dict[str, bytes] = {}
    with suppress(OSError):  # what was read before the tar broke off is good
        for sample in shard.read():
            if sample.key in wanted and sample.image is not None:
                held[sample.key] = sample.image
                if len(held) == len(wanted):
                    break

    def fetch(place: dict[str, Any]) -> bytes:
        if place["key"] not in held:
            raise ShardError(f"{place['key']} was not found in it")
        return held[place["key"]]

    return fetch
