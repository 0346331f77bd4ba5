"""URL lists read once: for each row the first row with the same key, and what the keep policy looks at."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from dedupkit.clustering.policy import Policy
from dedupkit.errors import DedupkitError
from dedupkit.metadata.columns import Batch
from dedupkit.metadata.grouping import KeyParts
from dedupkit.metadata.keys import Keys, KeySettings, batch_keys, text_column
from dedupkit.metadata.lists import UrlList

__all__ = ["GroupedRows", "group_rows"]

_MOST_ROWS = 2**31 - 1
_NUMBER = r"^[+-]?((\d+\.?\d*|\.\d+)([eE][+-]?\d+)?|(?i:inf(inity)?))$"  # what Arrow takes, but for NaN


class GroupedRows:
    """What the lists hold: labels by kind of key, values for the policy, and counts."""

    def __init__(self, kinds: int) -> None:
        self.ends: list[int] = []
        self.labels: Any = None
        self.distinct = [0] * kinds
        self.present = [0] * kinds
        self.odd = 0
        self.unreadable: list[tuple[int, int, str]] = []
        self.values: dict[str, list[NDArray[np.float64]]] = {}


def group_rows(
    lists: Sequence[UrlList],
    kinds: list[tuple[str, ...]],
    alternatives: int,
    settings: KeySettings,
    policy: Policy,
    room: Path,
    workers: int,
) -> GroupedRows:
    """Read the lists once; label each row by the first with the same key, for the alternatives of the rule.

    The kinds of keys that follow them are counted alone.
    """
    grouped, total = GroupedRows(len(kinds)), 0
    rows = sum(one.rows for one in lists)
    with ExitStack() as stack:
        parts = [stack.enter_context(KeyParts(room / str(number), rows)) for number in range(len(kinds))]
        pool = stack.enter_context(ThreadPoolExecutor(workers))
        for batch, keys in _keyed(lists, kinds, settings, policy, pool, 2 * workers, grouped):
            for number, (part, one) in enumerate(zip(parts, keys, strict=True)):
                part.add(one.hashes, one.state, total)
                grouped.present[number] += int(one.state.sum())
                grouped.odd += one.odd
            if batch.problem is not None:
                grouped.unreadable.append((total, total + batch.rows, batch.problem))
            total += batch.rows
            if total > _MOST_ROWS:
                raise DedupkitError(f"more than {_MOST_ROWS:,} rows; clean the lists in several calls")
        grouped.labels = np.full((alternatives, total), -1, np.int32)
        for number, part in enumerate(parts):
            labels = grouped.labels[number] if number < alternatives else np.empty(total, np.int32)
            grouped.distinct[number] = part.label(labels)
    return grouped


def _keyed(
    lists: Sequence[UrlList],
    kinds: list[tuple[str, ...]],
    settings: KeySettings,
    policy: Policy,
    pool: ThreadPoolExecutor,
    ahead: int,
    grouped: GroupedRows,
) -> Iterator[tuple[Batch, list[Keys]]]:
    """The batches of all lists in order with their keys, of which a few are made ahead."""
    needed = ["width", "height"] if "pixels" in policy.needs else []
    needed += [name for name in policy.needs if name != "pixels"]
    grouped.values = {name: [np.zeros(0)] for name in needed}  # each once, also where the lists have no rows
    roles = sorted({*needed, *("url" if name == "url_family" else name for kind in kinds for name in kind)})
    waiting: deque[tuple[Batch, Future[list[Keys]]]] = deque()
    total = 0
    for one in lists:
        for batch in one.batches(roles):
            total += batch.rows
            for name, values in grouped.values.items():
                values.append(_numbers(batch.columns.get(name), batch.rows))
            waiting.append((batch, pool.submit(batch_keys, batch.columns, batch.rows, kinds, settings)))
            if len(waiting) > ahead:
                first, keys = waiting.popleft()
                yield first, keys.result()
        grouped.ends.append(total)
    while waiting:
        first, keys = waiting.popleft()
        yield first, keys.result()


def _numbers(column: Any, rows: int) -> NDArray[np.float64]:
    """A column as numbers, NaN where a cell holds none."""
    if column is None:
        return np.full(rows, np.nan)
    try:
        numbers = column.cast(pa.float64(), safe=False)
    except pa.ArrowException:
        texts = pc.ascii_trim_whitespace(text_column(column).view(pa.large_string()))
        numbers = pc.if_else(pc.match_substring_regex(texts, _NUMBER), texts, None).cast(pa.float64())
    values: NDArray[np.float64] = numbers.to_numpy(zero_copy_only=False)
    return values.astype(np.float64)
