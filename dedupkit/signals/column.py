"""Signals over one column of the samples."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dedupkit.signals.signal import Signal

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from dedupkit.signals.columns import Distinct, Scanned

__all__ = ["ColumnSignal", "compared_columns"]


@dataclass(frozen=True)
class ColumnSignal(Signal):
    """A signal whose fingerprints are the values of one column of the samples.

    The column is the signal's own, named after it, or one that every scan has (``sha256``, ``width``, ``caption``).
    """

    @property
    def column(self) -> str:
        """The column of fingerprints."""
        return self.name

    @property
    def also(self) -> tuple[str, ...]:
        """Further columns that ``usable`` looks at."""
        return ("error",)

    def usable(self, table: Any) -> Any:
        """Which samples' fingerprints count: those of samples without an error.

        A row with an error takes no part, even where its bytes could be hashed.

        Args:
            table: The columns ``column`` and ``also`` of all samples.

        Returns:
            Booleans, one per sample; null counts as no.
        """
        return table["error"].is_null()

    def labels(self, scanned: Scanned) -> NDArray[np.int32]:
        """Samples with equal values; see :meth:`Signal.labels`."""
        from dedupkit.signals.labels import equal_samples

        return equal_samples(scanned, self.column, self.also, self.usable)

    def distinct(self, scanned: Scanned) -> Distinct:
        """The values of the column; see :meth:`Signal.distinct`."""
        from dedupkit.signals.columns import distinct_values

        return distinct_values(scanned, self.column, self.also, self.usable)

    def rows(self, scanned: Scanned, samples: NDArray[np.int64]) -> tuple[NDArray[np.bool_], NDArray[Any]]:
        """The values of some samples; files that hold none of them are not read. See :meth:`Signal.rows`."""
        from dedupkit.signals.columns import values_of

        return values_of(scanned, self.column, self.also, self.usable, samples)


def compared_columns(signals: Iterable[Signal]) -> list[str]:
    """The columns of samples that some signals compare, as far as they are over one column each."""
    return [name for each in signals if isinstance(each, ColumnSignal) for name in (each.column, *each.also)]
