"""The memory that near conditions over URL lists may take."""

from __future__ import annotations

from dedupkit.errors import DedupkitError

__all__ = ["HASH_BYTES", "PAIR_BYTES", "ROW_BYTES", "TEXT_BYTES", "WORD_BYTES", "Room"]

ROW_BYTES = 60
"""Bytes of memory that a row takes in each near condition, and in each alternative that names one."""

TEXT_BYTES = 120
"""Bytes of a distinct caption, beside its words."""

WORD_BYTES = 20
"""Bytes of a word of a distinct caption."""

HASH_BYTES = 150
"""Bytes of a distinct hash."""

PAIR_BYTES = 60
"""Bytes of a pair."""


class Room:
    """Memory, taken step by step.

    Args:
        limit: bytes.

    Example:
        >>> room = Room(1000)
        >>> room.take(600, "10 rows")
        >>> room.take(600, "10 pairs")
        Traceback (most recent call last):
        dedupkit.errors.DedupkitError: 10 pairs need more memory than the near conditions of the rule may take, ...
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._taken = 0

    def take(self, size: int, what: str) -> None:
        """Count some bytes; nothing is given back.

        Raises:
            DedupkitError: More than the limit; the message says what they were for.
        """
        self._taken += size
        if self._taken > self.limit:
            raise DedupkitError(
                f"{what} need more memory than the near conditions of the rule may take, {self.limit / 1e9:g} GB; "
                "raise --memory, use a stricter bound, or clean the lists in parts"
            )
