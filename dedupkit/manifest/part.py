"""Write cleaned shards from one pass over the input shards that they take samples from."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, overload

import numpy as np

from dedupkit.manifest.captions import CarriedCaptions, with_captions
from dedupkit.manifest.shards import SHARD_WRITERS
from dedupkit.manifest.target import Target
from dedupkit.sources import Sample, Shard
from dedupkit.sources.reread import Scanned, read_samples
from dedupkit.store import atomic_path, read_columns

__all__ = ["Input", "Output", "load_writers", "write_parts"]

_COLUMNS = ("key", "sha256", "caption", "url", "uid", "width", "height")


@dataclass(frozen=True, slots=True)
class Input:
    """What is read of one input shard.

    Attributes:
        shard: The shard, as it is found now.
        source: Its name in the manifest.
        samples: The file in which the scan described its samples.
        wanted: One bit for each of them, packed: whether it is written.
        captions: By number of the sample in the shard the captions that it carries.
    """

    shard: Shard
    source: str
    samples: str
    wanted: bytes
    captions: Mapping[int, CarriedCaptions] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Output:
    """A cleaned shard: its file name, the number of its samples, and a digest of all that it is made from."""

    name: str
    samples: int
    key: str


def load_writers() -> None:
    """Do nothing: a worker that is to call this has loaded what it needs to write shards."""


def write_parts(to: str, format: str, inputs: Sequence[Input], outputs: Sequence[Output], extra: Any) -> dict[str, Any]:
    """Write cleaned shards that follow one another; a task of the engine.

    Args:
        to: The target folder.
        format: A name in ``SHARD_WRITERS``.
        inputs: The input shards in order; their samples together are those of the outputs.
        outputs: The cleaned shards in order; those that are whole are left as they are.
        extra: A pyarrow schema, the columns of the source that are kept.

    Returns:
        ``samples``: the number of samples in all outputs.

    Raises:
        DedupkitError: An input is not as it was when the run was made.
        OSError: An input cannot be read, or an output not be written.
    """
    target = Target(Path(to))
    missing = [number for number, output in enumerate(outputs) if not target.is_whole(output.name, output.key)]
    samples = _kept_samples(inputs)
    for number, output in enumerate(outputs[: max(missing, default=-1) + 1]):
        here = islice(samples, output.samples)
        if number in missing:
            _write(target, format, output, here, extra)
        else:
            deque(here, maxlen=0)
    return {"samples": sum(output.samples for output in outputs)}


def _write(
    target: Target, format: str, output: Output, samples: Iterator[tuple[Sample, dict[str, Any]]], extra: Any
) -> None:
    writer = SHARD_WRITERS[format]
    target.forget(output.name)
    with atomic_path(target.path / output.name) as temporary, writer(temporary, extra) as shard:
        for sample, row in samples:
            shard.add(sample, row)
    beside = writer.beside(output.name, output.samples)
    for name, data in beside.items():
        with atomic_path(target.path / name) as temporary:
            temporary.write_bytes(data)
    target.record(output.name, output.key, [output.name, *beside])


def _kept_samples(inputs: Sequence[Input]) -> Iterator[tuple[Sample, dict[str, Any]]]:
    """The wanted samples of all inputs, each with what the manifest says of it."""
    for item in inputs:
        rows = _Rows(item)
        for number, sample in read_samples(item.shard, rows, extra=True):
            row, carried = rows.described(number), item.captions.get(number)
            yield (sample, row) if carried is None else with_captions(sample, row, carried)


class _Rows(Sequence[Scanned | None]):
    """What the scan said of each sample of an input shard, None for one that is not wanted; one row at a time."""

    def __init__(self, item: Input) -> None:
        self._source = item.source
        table = read_columns(Path(item.samples), _COLUMNS)
        self._columns = {name: table[name].combine_chunks() for name in _COLUMNS}
        self._wanted = np.unpackbits(np.frombuffer(item.wanted, np.uint8), count=table.num_rows)

    def __len__(self) -> int:
        return len(self._wanted)

    @overload
    def __getitem__(self, number: int) -> Scanned | None: ...
    @overload
    def __getitem__(self, number: slice) -> Sequence[Scanned | None]: ...
    def __getitem__(self, number: int | slice) -> Scanned | Sequence[Scanned | None] | None:
        if isinstance(number, slice):
            return [self[each] for each in range(*number.indices(len(self)))]
        if not self._wanted[number]:  # past the end, an IndexError
            return None
        return Scanned(self._columns["key"][number].as_py(), self._columns["sha256"][number].as_py())

    def described(self, number: int) -> dict[str, Any]:
        """The row of a sample, as the manifest has it."""
        row = {name: column[number].as_py() for name, column in self._columns.items()}
        return {**row, "sha256": row["sha256"].hex(), "source": self._source}
