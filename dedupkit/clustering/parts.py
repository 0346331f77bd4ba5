"""A decision in parts: samples that no chain of pairs connects are decided about apart, with the same outcome.

Two samples that satisfy a rule satisfy every condition of one of its alternatives. So the components of what one
condition of each alternative connects hold every pair that satisfies the rule, and a verdict follows from what is in
the sample's own component. Labels of the components are one union-find over all samples; scored pairs pass by in
blocks. Components are put together to parts of about the same size, whose samples and scored pairs go into files, and
each part is a decision of its own. A component that is larger than a part is one alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dedupkit.clustering.deciding import Decision, decide
from dedupkit.clustering.edges import within
from dedupkit.clustering.policy import Policy
from dedupkit.clustering.rules import Atom, Rule
from dedupkit.signals.matches import Matches, Origin, Streamed
from dedupkit.store import atomic_path

__all__ = [
    "MOST_PARTS",
    "Parting",
    "Parts",
    "Rows",
    "decide_part",
    "find_parts",
    "gather_parts",
    "part_inputs",
    "part_verdicts",
    "write_parts",
]

MOST_PARTS = 64
_NONE = 255  # stands for no part

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
class Parts:
    """The part of each sample.

    Attributes:
        part: (n,) uint8; 255 for a sample that nothing connects with another one.
        count: Number of parts.
        linked: The signals of which no pair that counts lies across two parts.
    """

    part: NDArray[np.uint8]
    count: int
    linked: frozenset[str]


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


def find_parts(rule: Rule, signals: Mapping[str, Streamed], taking: NDArray[np.bool_], size: int) -> Parts:
    """Put the samples into parts.

    Args:
        rule: What makes two samples duplicates.
        signals: One entry for each signal of the rule.
        taking: (n,) which samples take part.
        size: Number of samples and scored pairs that a part should hold at most.
    """
    from dedupkit.clustering.class_kernels import connect, connect_pairs, count
    from dedupkit.clustering.part_kernels import fill_parts, weigh

    links = _links(rule, signals)
    parent = np.arange(len(taking), dtype=np.int32)
    amount = np.zeros(len(taking), np.uint32)
    for name, signal in signals.items():
        for a, b, score in signal.blocks():
            count(a, amount)
            if name in links:
                held = within(score, links[name])
                connect_pairs(a[held], b[held], parent)
        if name in links:
            connect(signal.labels(), parent)
    several = np.zeros(len(taking), np.uint8)
    weigh(parent, taking, amount, several)
    part = np.full(len(taking), _NONE, np.uint8)
    number = fill_parts(parent, several, amount, size, MOST_PARTS, part)
    return Parts(part, int(number), frozenset(links))


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
        signals: One entry for each signal of the rule.
        masks: (n,) which samples take part, and which are kept whatever the order says.
        rows: All samples, in order.
    """
    taking, protected = masks
    firsts = {name: signal.labels() for name, signal in signals.items()}
    for each in rows:
        here = slice(each.start, each.stop)
        known = np.zeros(each.stop - each.start, parting.row)
        known["sample"], known["protected"] = np.arange(each.start, each.stop), protected[here]
        for name, first in firsts.items():
            known[_first(name)] = first[here]
        for name, column in each.columns.items():
            known[_column(name)] = column
        _scatter(home, "samples", np.where(taking[here], parts.part[here], _NONE), known, parts.count)
    del firsts
    for name, signal in signals.items():
        for where, edges in _placed(name, signal, parts, taking):
            _scatter(home, name, where, edges, parts.count)


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
        edges = np.fromfile(path, _EDGE) if path.exists() else np.zeros(0, _EDGE)
        signals[name] = _local(known[_first(name)], edges, origin, parting.samples)
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
    home: Path, parts: Parts, taking: NDArray[np.bool_], summaries: Sequence[Mapping[str, int]]
) -> Decision:
    """The verdicts of all samples from those of the parts.

    Args:
        home: Folder of the parts.
        parts: The part of each sample.
        taking: (n,) which samples take part.
        summaries: What :func:`decide_part` returned for each part.
    """
    count = len(taking)
    witness, clause = np.full(count, -1, np.int32), np.full(count, -1, np.int8)
    score, group = np.full(count, np.nan, np.float32), np.arange(count, dtype=np.int32)
    for number in range(parts.count):
        verdict = np.load(part_verdicts(home, number))
        sample = verdict["sample"]
        witness[sample], clause[sample] = verdict["witness"], verdict["clause"]
        score[sample], group[sample] = verdict["score"], verdict["group"]
    alone = int(np.count_nonzero(taking & (parts.part == _NONE)))
    edges, vertices = (sum(summary[name] for summary in summaries) for name in ("edges", "vertices"))
    return Decision(witness, clause, score, group, edges, vertices + alone)


def part_inputs(home: Path, number: int, names: Iterable[str]) -> tuple[Path, ...]:
    """The files that :func:`decide_part` reads, as far as there are any; ``names`` are those of the signals."""
    paths = [_file(home, number, name) for name in ("samples", *names)]
    return tuple(path for path in paths if path.exists())


def part_verdicts(home: Path, number: int) -> Path:
    """The file that :func:`decide_part` writes."""
    return home / f"{number:02d}.npy"


def _links(rule: Rule, signals: Mapping[str, Streamed]) -> dict[str, Atom]:
    """By signal the loosest condition of it that stands for an alternative: that with the fewest pairs of all in it."""
    chosen: dict[str, Atom] = {}
    for clause in rule.clauses:
        atom = clause[0] if len(clause) == 1 else min(clause, key=lambda atom: _pairs(atom, signals[atom.signal]))
        before = chosen.get(atom.signal)
        chosen[atom.signal] = atom if before is None or atom.covers(before) else before
    return chosen


def _pairs(atom: Atom, signal: Streamed) -> int:
    """How many pairs of samples satisfy a condition, pairs of equal fingerprints counted among samples."""
    from dedupkit.clustering.part_kernels import equal_pairs

    scored = sum(int(np.count_nonzero(within(score, atom))) for _, _, score in signal.blocks())
    return scored + int(equal_pairs(signal.labels(), np.zeros(signal.samples, np.int32)))


def _placed(
    name: str, signal: Streamed, parts: Parts, taking: NDArray[np.bool_]
) -> Iterator[tuple[NDArray[np.uint8], NDArray[Any]]]:
    """The scored pairs of one signal, and the part of each; what lies in several parts comes for each of them."""
    from dedupkit.clustering.part_kernels import mark_parts

    marks = np.zeros(0, np.uint64)
    if name not in parts.linked:
        marks = np.zeros(len(taking), np.uint64)
        mark_parts(signal.labels(), taking, parts.part, _NONE, marks)
    for a, b, score in signal.blocks():
        edges = np.empty(len(a), _EDGE)
        edges["a"], edges["b"], edges["score"] = a, b, score
        if name in parts.linked:
            where = parts.part[a]
            where[where != parts.part[b]] = _NONE
            yield where, edges
            continue
        both = marks[a] & marks[b]
        for number in range(parts.count):
            mine = edges[(both >> np.uint64(number) & np.uint64(1)).astype(bool)]
            yield np.full(len(mine), number, np.uint8), mine


def _scatter(home: Path, name: str, where: NDArray[np.uint8], rows: NDArray[Any], count: int) -> None:
    """Append rows to the files of their parts."""
    order = np.argsort(where, kind="stable")
    bounds = np.searchsorted(where[order], np.arange(count + 1))
    for number in range(count):
        mine = order[bounds[number] : bounds[number + 1]]
        if len(mine):
            with _file(home, number, name).open("ab") as stream:
                rows[mine].tofile(stream)


def _local(first: NDArray[np.int32], edges: NDArray[Any], origin: Origin, samples: int) -> Matches:
    """What a signal says about the samples of a part, numbered as they stand in it."""
    leader = np.full(samples, -1, np.int32)
    mine = np.flatnonzero(first >= 0)[::-1].astype(np.int32)
    leader[first[mine]] = mine  # the last write is the first sample of the part
    label = np.full(len(first), -1, np.int32)
    label[mine] = leader[first[mine]]
    a, b = leader[edges["a"]], leader[edges["b"]]
    held = (a >= 0) & (b >= 0)
    a, b = np.minimum(a, b)[held], np.maximum(a, b)[held]
    return Matches(label, a, b, edges["score"][held], origin)


def _file(home: Path, number: int, name: str) -> Path:
    return home / f"{number:02d}.{name}"


def _first(name: str) -> str:
    return f"first {name}"


def _column(name: str) -> str:
    return f"column {name}"
