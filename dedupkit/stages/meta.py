"""Columns of the data's own that a keep policy names: one in which no sample has a number is refused."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from itertools import islice
from typing import Any

from dedupkit.clustering.policy import DEFAULT_POLICY, META
from dedupkit.engine.marker import read_marker
from dedupkit.errors import DedupkitError
from dedupkit.runfolder import RunFolder
from dedupkit.sources import Sample, Shard
from dedupkit.sources.columns import as_score
from dedupkit.sources.sample import Extra

__all__ = ["NoNumbersError", "forgetting_refused", "number_of", "refuse_absent", "refuse_empty", "refuse_unstored"]

_FIRST = 32  # samples of a shard
_NAMED_SHARDS, _NAMED = 16, 40  # shards of which names are shown, and names at most
_NOT_OF_THE_DATA = {"key", "status", "error_message"}


class NoNumbersError(DedupkitError):
    """No sample has a number in columns that the keep policy names: a name is mistyped, or the column is text.

    Args:
        names: The columns.
        shards: Shards whose columns of numbers the message names; none to name none.
    """

    def __init__(self, names: Sequence[str], shards: Sequence[Shard] = ()) -> None:
        self.names = tuple(names)
        there = f"; there are: {', '.join(_numeric(shards)) or 'none'}" if shards else ""
        super().__init__(
            f"the keep policy names {META}{names[0]}, but no sample has a number called {names[0]!r} beside its image"
            f"{there}"
        )


def number_of(sample: Sample, name: str) -> float | None:
    """The number in a column of a sample's own, None where there is none."""
    value = as_score(sample.extra.get(name))
    return None if value is None or value != value else value


def refuse_absent(columns: Sequence[str], shards: Sequence[Shard]) -> None:
    """Refuse columns that no sample has, before anything of an earlier run over the shards is replaced.

    The first samples of each shard are read, and all of them only where these have no such number.

    Raises:
        NoNumbersError: There are samples, and none of them has a number in one of the columns.
    """
    left, readable = set(columns), False
    for most in (_FIRST, None):
        for shard in shards if left else ():
            for sample in _samples(shard, frozenset(left), most):
                readable |= sample.error is None
                left -= {name for name in left if number_of(sample, name) is not None}
                if not left:
                    return
    if left and readable:
        raise NoNumbersError([name for name in columns if name in left], shards)


def refuse_empty(columns: Sequence[str], scanned: Sequence[Mapping[str, Any]], shards: Sequence[Shard] = ()) -> None:
    """Refuse columns in which no sample of a scan has a number, unless no sample could be read at all.

    Args:
        columns: The columns.
        scanned: What the scan of each shard returned.
        shards: The shards, for the message.

    Raises:
        NoNumbersError: There is such a column.
    """
    lacking = [name for name in columns if not any(result.get("numbers", {}).get(name) for result in scanned)]
    if lacking and any(result["samples"] > result["unreadable"] for result in scanned):
        raise NoNumbersError(lacking, shards)


def refuse_unstored(columns: Sequence[str], folder: RunFolder) -> None:
    """:func:`refuse_empty` for a finished run."""
    if columns:
        markers = (read_marker(folder.scan_marker(shard)) for shard in range(len(folder.read_config().shards)))
        refuse_empty(columns, [marker.result for marker in markers if marker is not None])


@contextmanager
def forgetting_refused(folder: RunFolder) -> Iterator[None]:
    """Leave no column in ``run.json`` that was refused once the shards were read: later calls would ask for it too."""
    try:
        yield
    except NoNumbersError as error:
        config = folder.earlier()
        if config is not None and {*error.names} & {*config.meta}:
            meta = tuple(name for name in config.meta if name not in error.names)
            folder.write_config(replace(config, keep=DEFAULT_POLICY, meta=meta))
        raise


def _numeric(shards: Sequence[Shard]) -> list[str]:
    """Columns in which some of the first samples have a number."""
    found: set[str] = set()
    for shard in shards[:: -(-len(shards) // _NAMED_SHARDS)]:
        for sample in _samples(shard, True, _FIRST):
            found |= {name for name in sample.extra if number_of(sample, name) is not None}
    return sorted(found - _NOT_OF_THE_DATA)[:_NAMED]


def _samples(shard: Shard, extra: Extra, most: int | None) -> Iterator[Sample]:
    """The first samples of a shard, as far as it can be read; the scan says what is wrong with it."""
    with suppress(Exception):
        yield from islice(shard.read(extra=extra), most)
