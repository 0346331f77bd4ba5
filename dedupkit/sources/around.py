"""What is the same of a shard whose samples are read in another way."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from dedupkit.sources.sample import Place, Shard

__all__ = ["AroundShard"]


class AroundShard:
    """A shard around another, ``shard``: its identity is that of the inner one, as are images that are read again.

    Subclasses are dataclasses with a field ``shard`` and say in ``read`` which samples there are.
    """

    __slots__ = ()

    shard: Shard

    @property
    def source(self) -> str:
        """Name of the inner shard."""
        return self.shard.source

    @property
    def paths(self) -> tuple[str, ...]:
        """Files of the inner shard."""
        return self.shard.paths

    @property
    def settings(self) -> str:
        """Settings of the inner shard."""
        return self.shard.settings

    def fetch_many(self, places: Sequence[Place]) -> Iterator[tuple[Place, bytes | OSError]]:
        """Read some images again; see :meth:`dedupkit.sources.Shard.fetch_many`."""
        return self.shard.fetch_many(places)
