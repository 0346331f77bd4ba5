"""The files of a decision in parts, and the decision about one part; see :mod:`dedupkit.clustering.parts`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dedupkit.clustering.deciding import Decision, decide
from dedupkit.clustering.parts import NO_PART, Parts
from dedupkit.clustering.policy import Policy
from dedupkit.clustering.rules import Rule
from dedupkit.signals.matches import Matches, Origin, Streamed, relabelled
from dedupkit.store import append_rows, atomic_path, give_back_pages, in_blocks, on_disk

__all__ = ["Parting", "Rows", "decide_part", "gather_parts", "part_inputs", "part_verdicts", "write_parts"]

_EDGE = np.dtype([("a", np.int32), ("b", np.int32), ("score", np.float32)])
_VERDICT = np.dtype(
    [("sample", np.int32), ("witness", np.int32), ("group", np.int32), ("score", np.float32), ("clause", np.int8)]
)


@dataclass(frozen=True, slots=True)
class Parting:
    """What is decided, and how; it goes with each part.

    Attributes:
        rule: What makes two samples duplicates.
        policy: Which of them is kept.
        origins: By signal of the rule what its fingerprints are computed from.
        samples: Number of all samples.
    """

    rule: Rule
    policy: Policy
    origins: Mapping[str, Origin]
    samples: int

    @property
    def row(self) -> np.dtype[Any]:
        """What is known of a sample of a part."""
        firsts = [(_first(name), np.int32) for name in self.origins]
        return np.dtype([
            ("sample", np.int32), ("protected", np.bool_), *firsts,
            *((_column(name), np.float64) for name in self.policy.needs),
        ])  # fmt: skip


@dataclass(frozen=True, slots=True)
class Rows:
    """What is known of some samples in a row.

    Attributes:
        start: The first of them.
        stop: The one behind the last of them.
        columns: Columns of the keep policy by name, (k,) float64.
    """

    start: int
    stop: int
    columns: Mapping[str, NDArray[np.float64]]


def write_parts(
    home: Path,
    parting: Parting,
    parts: Parts,
    signals: Mapping[str, Streamed],
    masks: tuple[NDArray[np.bool_], NDArray[np.bool_]],
    rows: Iterable[Rows],
) -> None:
    """Write the samples and the scored pairs of each part into files.

    Args:
        home: An empty folder.
        parting: What is decided.
        parts: The part of each sample.
        signals: One entry for each signal of the rule; its labels are asked for again for each of ``rows``.
        masks: (n,) which samples take part, and which are kept whatever the order says.
        rows: All samples, in order.
    """
    active, protected = masks
    for each in rows:
        here = slice(each.start, each.stop)
        known = np.zeros(each.stop - each.start, parting.row)
        known["sample"], known["protected"] = np.arange(each.start, each.stop), protected[here]
        for name, signal in signals.items():
            first = signal.labels()
            known[_first(name)] = first[here]
            give_back_pages(first)
        for name, column in each.columns.items():
            known[_column(name)] = column
        append_rows(_files(home, parts, "samples"), np.where(active[here], parts.numbers[here], NO_PART), known)
    for name, signal in signals.items():
        for where, edges in _placed(name, signal, parts, active):
            append_rows(_files(home, parts, name), where, edges)


def decide_part(home: str, number: int, parting: Parting) -> dict[str, Any]:
    """Decide about one part, and write its verdicts; a task of the engine.

    Args:
        home: Folder of the parts.
        number: The part.
        parting: What is decided.

    Returns:
        ``samples``, ``vertices`` and ``edges`` of the part.
    """
    known = np.fromfile(_file(Path(home), number, "samples"), parting.row)
    signals = {}
    for name, origin in parting.origins.items():
        path = _file(Path(home), number, name)
        signals[name] = _local(known[_first(name)], _edges_in(path), origin, parting.samples)
    order = parting.policy.order({name: known[_column(name)] for name in parting.policy.needs}, len(known))
    protected = known["protected"] if known["protected"].any() else None
    found = decide(parting.rule, signals, order, np.ones(len(known), bool), protected)
    verdict = np.zeros(len(known), _VERDICT)
    sample = known["sample"]
    verdict["sample"], verdict["group"] = sample, sample[found.group]
    verdict["witness"] = np.where(found.witness >= 0, sample[found.witness], -1)
    verdict["score"], verdict["clause"] = found.score, found.clause
    with atomic_path(part_verdicts(Path(home), number)) as temporary, temporary.open("wb") as stream:
        np.save(stream, verdict)
    return {"samples": len(known), "vertices": found.vertices, "edges": found.edges}


def gather_parts(
    home: Path, parts: Parts, active: NDArray[np.bool_], summaries: Sequence[Mapping[str, int]]
) -> Decision:
    """The verdicts of all samples from those of the parts, one column in memory at a time.

    Args:
        home: Folder of the parts.
        parts: The part of each sample.
        active: (n,) which samples take part.
        summaries: What :func:`decide_part` returned for each part.
    """
    count = len(active)

    def gathered(name: str, column: NDArray[Any]) -> NDArray[Any]:
        for number in range(parts.count):
            for _, verdict in in_blocks(np.load(part_verdicts(home, number), mmap_mode="r")):
                column[verdict["sample"]] = verdict[name]
        return on_disk(column)

    alone = sum(
        int(np.count_nonzero(active[low : low + len(block)] & (block == NO_PART)))
        for low, block in in_blocks(parts.numbers)
    )
    edges, vertices = (sum(summary[name] for summary in summaries) for name in ("edges", "vertices"))
    return Decision(
        gathered("witness", np.full(count, -1, np.int32)),
        gathered("clause", np.full(count, -1, np.int8)),
        gathered("score", np.full(count, np.nan, np.float32)),
        gathered("group", np.arange(count, dtype=np.int32)),
        edges,
        vertices + alone,
    )


def part_inputs(home: Path, number: int, names: Iterable[str]) -> tuple[Path, ...]:
    """The files that :func:`decide_part` reads, as far as there are any; ``names`` are those of the signals."""
    paths = [_file(home, number, name) for name in ("samples", *names)]
    return tuple(path for path in paths if path.exists())


def part_verdicts(home: Path, number: int) -> Path:
    """The file that :func:`decide_part` writes."""
    return home / f"{number:02d}.npy"


def _placed(
    name: str, signal: Streamed, parts: Parts, active: NDArray[np.bool_]
) -> Iterator[tuple[NDArray[np.uint8], NDArray[Any]]]:
    """The scored pairs of one signal, and the part of each; what lies in several parts comes for each of them."""
    from dedupkit.clustering.part_kernels import mark_parts

    marks = np.zeros(0, np.uint64)
    if name not in parts.linked:
        marks = np.zeros(len(active), np.uint64)
        for low, first in in_blocks(signal.labels()):
            here = slice(low, low + len(first))
            mark_parts(first, active[here], parts.numbers[here], NO_PART, marks)
    for a, b, score in signal.blocks():
        edges = np.empty(len(a), _EDGE)
        edges["a"], edges["b"], edges["score"] = a, b, score
        if name in parts.linked:
            where = parts.numbers[a]
            where[where != parts.numbers[b]] = NO_PART
            yield where, edges
            continue
        both = marks[a] & marks[b]
        for number in range(parts.count):
            mine = edges[(both >> np.uint64(number) & np.uint64(1)).astype(bool)]
            yield np.full(len(mine), number, np.uint8), mine


def _edges_in(path: Path) -> NDArray[Any]:
    return np.fromfile(path, _EDGE) if path.exists() else np.zeros(0, _EDGE)


def _local(first: NDArray[np.int32], edges: NDArray[Any], origin: Origin, samples: int) -> Matches:
    """What a signal says about the samples of a part, numbered as they stand in it."""
    label, leader = relabelled(first, True, samples)
    a, b, score = leader[edges["a"]], leader[edges["b"]], edges["score"]
    held = (a >= 0) & (b >= 0)
    if not held.all():
        a, b, score = a[held], b[held], score[held]
    smaller = np.minimum(a, b)
    return Matches(label, smaller, np.maximum(a, b, out=b), np.ascontiguousarray(score), origin)


def _files(home: Path, parts: Parts, name: str) -> list[Path]:
    return [_file(home, number, name) for number in range(parts.count)]


def _file(home: Path, number: int, name: str) -> Path:
    return home / f"{number:02d}.{name}"


def _first(name: str) -> str:
    return f"first {name}"


def _column(name: str) -> str:
    return f"column {name}"
