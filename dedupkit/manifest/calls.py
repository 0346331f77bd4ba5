"""How data loaders call a filter: with one example or a batch, and with row numbers that may be the run's or not."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any, SupportsIndex

from dedupkit.errors import UnknownSampleError

__all__ = ["RowNumbers", "batch_size", "ends_in_number", "is_batch", "is_sequence"]


class RowNumbers:
    """Whether the row numbers that a loader gives are the run's, as far as this process has seen."""

    def __init__(self) -> None:
        self._fit = True
        self._decided = False

    def see(self, index: int | None, *, fits: bool) -> None:
        """Note whether a row number is among the rows that its example may be.

        Raises:
            UnknownSampleError: It is not, and an earlier one has decided already.
        """
        self._fit = self._fit and fits
        if self._decided and not self._fit:
            raise UnknownSampleError(
                f"row number {index} is not the run's: the data are in another order or not complete; "
                "call the filter without with_indices"
            )

    def may_decide(self) -> bool:
        """Whether a row number may decide; not in one of several data-loader workers, where each counts from 0."""
        torch = sys.modules.get("torch.utils.data")
        worker = torch.get_worker_info() if torch is not None else None
        self._decided = self._fit and (worker is None or worker.num_workers == 1)
        return self._decided


def is_sequence(value: Any) -> bool:
    """Whether a value is a column of a batch: a list, a tuple or an array.

    >>> is_sequence(["a"]), is_sequence("a")
    (True, False)
    """
    return isinstance(value, list | tuple) or (hasattr(value, "__len__") and hasattr(value, "tolist"))


def ends_in_number(values: Sequence[Any]) -> int:
    """1 where the last of bare values is a row number, or a batch of them."""
    if len(values) < 2:
        return 0
    last: Any = values[-1]
    return int(isinstance(last[0] if is_sequence(last) and len(last) else last, SupportsIndex))


def batch_size(columns: Mapping[str, Any]) -> int:
    """The number of rows of a batch; of datasets' lazy ones without touching a column."""
    table = getattr(columns, "pa_table", None)
    return len(next(iter(columns.values()))) if table is None else int(table.num_rows)


def is_batch(columns: Mapping[str, Any], index: Any) -> bool:
    """Whether every column holds a sequence of values; a column that may be an image is not looked at."""
    if index is not None:
        return is_sequence(index)
    if hasattr(columns, "pa_table"):
        return type(columns).__name__ == "LazyBatch"
    return bool(columns) and all(is_sequence(value) for value in columns.values())
