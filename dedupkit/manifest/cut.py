"""Which kept samples go into which cleaned shard."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, pairwise, repeat

from dedupkit.errors import DedupkitError

__all__ = ["Piece", "ShardSizes", "cut"]


@dataclass(frozen=True, slots=True)
class Piece:
    """Kept samples of one input shard: those from number ``first`` up to ``last``, counted among its kept ones."""

    shard: int
    first: int
    last: int


@dataclass(frozen=True, slots=True)
class ShardSizes:
    """How many samples a cleaned shard holds.

    Attributes:
        samples: Samples in each shard, fewer in the last.
        shards: Shards of equal size; None for both to keep about the source's size.

    Raises:
        DedupkitError: Both are given, or one is less than 1.
    """

    samples: int | None = None
    shards: int | None = None

    def __post_init__(self) -> None:
        if self.samples is not None and self.shards is not None:
            raise DedupkitError("give a shard size or a number of shards, not both")
        if min(self.samples or 1, self.shards or 1) < 1 or 0 in (self.samples, self.shards):
            raise DedupkitError("a shard size and a number of shards are at least 1")

    def limits(self, total: int, source_size: int) -> Iterator[int]:
        """The number of samples in one shard after another, without end.

        Args:
            total: Kept samples.
            source_size: Samples in a shard of the source.

        Raises:
            DedupkitError: More shards than samples are asked for.

        >>> from itertools import islice
        >>> list(islice(ShardSizes(shards=4).limits(10, 100), 4))
        [2, 3, 2, 3]
        """
        if self.shards is not None and self.shards > total:
            raise DedupkitError(f"{self.shards} shards are asked for, but only {total} samples are kept")
        if self.shards is not None:
            ends = [total * number // self.shards for number in range(self.shards + 1)]
            equal = (end - start for start, end in pairwise(ends))
            return chain(equal, repeat(-(-total // self.shards)))
        if self.samples is not None:
            return repeat(self.samples)
        count = max(1, round(total / max(1, source_size)))
        return repeat(max(1, -(-total // count)))


def cut(kept: Sequence[int], limits: Iterator[int], names: Callable[[int], list[str]]) -> list[list[Piece]]:
    """Cut the kept samples, in order, into cleaned shards.

    A shard ends early where the next input shard has a name that it already holds: names stay as they are, and an
    archive must not hold one twice.

    Args:
        kept: Number of kept samples in each input shard.
        limits: The most samples of one cleaned shard after another.
        names: Names of an input shard's kept samples in an archive; asked only where two input shards may meet.

    Returns:
        The pieces of each cleaned shard.

    >>> cut([3, 2], repeat(4), lambda shard: [f"{shard}{number}" for number in range(3)])
    [[Piece(shard=0, first=0, last=3), Piece(shard=1, first=0, last=1)], [Piece(shard=1, first=1, last=2)]]
    """
    parts: list[list[Piece]] = []
    part: list[Piece] = []
    room, held = next(limits), set[str]()
    for shard, available in enumerate(kept):
        mine: list[str] | None = None
        done = 0
        while done < available:
            take = min(room, available - done)
            meets_another = bool(part) or take < room
            if meets_another and mine is None:
                mine = names(shard)
            here = mine[done : done + take] if meets_another and mine is not None else []
            is_repeated = bool(part) and not held.isdisjoint(here)
            if not is_repeated:
                part.append(Piece(shard, done, done + take))
                held.update(here)
                done, room = done + take, room - take
            if is_repeated or room == 0:
                parts.append(part)
                part, room, held = [], next(limits), set()
    return [*parts, part] if part else parts
