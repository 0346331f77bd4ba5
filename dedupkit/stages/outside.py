"""The samples of a run and the rows of references that they touch, side by side, as deciding takes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dedupkit.clustering.rules import Atom, Rule
from dedupkit.runfolder import Layout
from dedupkit.signals.across import Across, restricted
from dedupkit.signals.matches import Matches
from dedupkit.store import atomic_path, read_columns

__all__ = ["LIST_BOUNDS", "AcrossFiles", "Beside", "across_files", "beside", "list_rule", "write_labels"]

LIST_BOUNDS = {"pdq": 31.0, "phash": 6.0}
"""Largest distances to the hashes of a list where the rule names none: PDQ's published match radius; 6 of 64 bits."""

_LIST_ATOMS = (("sha256", "exact"), ("pdq", "pdq"), ("phash", "phash"), ("urls", "url"), ("domains", "domain"))


def list_rule(kinds: Sequence[str], rule: Rule) -> Rule:
    """What makes a sample duplicate a line of a list.

    Args:
        kinds: What the list holds, of :data:`dedupkit.sources.blocklist.LIST_KINDS`.
        rule: The rule against references, whose bounds count for hashes.
    """
    clauses = []
    for kind, signal in _LIST_ATOMS:
        if kind in (kinds or ("sha256",)):  # a list of comments alone has rows of no kind, and a rule a condition
            bound = LIST_BOUNDS.get(signal)
            clauses.append((rule.loosest(signal) if signal in rule.signals else Atom(signal, bound),))
    return Rule(" or ".join(str(atom) for (atom,) in clauses), tuple(clauses))


class AcrossFiles(NamedTuple):
    """Files of the join of a run with one reference under one signal."""

    pairs: Path
    own: Path
    other: Path


def across_files(folder: Layout, number: int, signal: str) -> AcrossFiles:
    """Where the join of a run with a reference lies."""
    home = folder.across(number, signal)
    return AcrossFiles(home / "00000.parquet", home / "own.npy", home / "other.npy")


def write_labels(files: AcrossFiles, found: Across) -> None:
    """Write the labels of both sides of a join."""
    for path, labels in ((files.own, found.own), (files.other, found.other)):
        with atomic_path(path) as temporary, temporary.open("wb") as stream:
            np.save(stream, labels)


@dataclass(frozen=True, slots=True)
class Beside:
    """The n samples of a run, and after them the rows of references that a pair leads to.

    Attributes:
        signals: What each signal says about all of them.
        number: (k,) int64, the reference of each row.
        row: (k,) int64, its number there.
    """

    signals: dict[str, Matches]
    number: NDArray[np.int64]
    row: NDArray[np.int64]

    def protected(self, count: int) -> NDArray[np.bool_]:
        """(n + k,) bool: all rows of references."""
        return np.arange(count + len(self.row)) >= count


@dataclass(frozen=True, slots=True)
class _Side:
    """One reference under one signal."""

    a: NDArray[np.int64]
    b: NDArray[np.int64]
    score: NDArray[np.float32]
    labels: NDArray[np.int32]


def beside(
    folder: Layout, numbers: Sequence[int], names: Sequence[str], own: Mapping[str, Matches] | None = None
) -> Beside:
    """Put the rows of references that samples touch beside the samples.

    Args:
        folder: A run folder.
        numbers: The references.
        names: The signals.
        own: What the signals say about the samples; without it, samples are joined with the references alone.
    """
    parts: dict[str, list[Matches]] = {name: [] for name in names}
    number, row = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    count = -1
    for each in numbers:
        sides = {name: _read(folder, each, name) for name in names}
        touched = np.flatnonzero(_touched(list(sides.values())))
        for name, side in sides.items():
            parts[name].append(_moved(side, touched, sum(map(len, row))))
        number.append(np.full(len(touched), each, np.int64))
        row.append(touched)
    signals = {}
    for name in names:
        mine = own[name] if own is not None else _alone(folder, numbers[0], name)
        count = len(mine.first)
        signals[name] = _together(mine, parts[name], count)
    return Beside(signals, np.concatenate(number), np.concatenate(row))


def _alone(folder: Layout, number: int, name: str) -> Matches:
    return Matches.identity(np.load(across_files(folder, number, name).own), "sample")


def _read(folder: Layout, number: int, name: str) -> _Side:
    files = across_files(folder, number, name)
    table = read_columns(files.pairs)
    a, b, score = (table[column].to_numpy() for column in ("a", "b", "score"))
    return _Side(a, b, score, np.load(files.other))


def _touched(sides: Sequence[_Side]) -> NDArray[np.bool_]:
    """Which rows of a reference have, under some signal, a fingerprint that a pair leads to."""
    touched = np.zeros(len(sides[0].labels), bool)
    for side in sides:
        if len(side.b):
            led_to = np.zeros(len(side.labels), bool)
            led_to[side.b] = True
            touched |= (side.labels >= 0) & led_to[np.maximum(side.labels, 0)]
    return touched


def _moved(side: _Side, touched: NDArray[np.int64], before: int) -> Matches:
    """One reference's rows as they stand behind others, ``before`` of them; ``a`` still names samples."""
    mask = np.zeros(len(side.labels), bool)
    mask[touched] = True
    place = np.full(len(side.labels), -1, np.int32)
    place[touched] = before + np.arange(len(touched), dtype=np.int32)
    labels = restricted(side.labels, mask)
    first = np.where(labels[touched] >= 0, place[np.maximum(labels[touched], 0)], -1).astype(np.int32)
    return Matches(first, side.a.astype(np.int32), place[side.b], side.score.astype(np.float32))


def _together(own: Matches, parts: Sequence[Matches], count: int) -> Matches:
    """The samples and the rows of all references, numbered one after the other."""
    parts = [_of_first(own.first, part) for part in parts]
    firsts = [np.where(part.first >= 0, part.first + np.int32(count), -1).astype(np.int32) for part in parts]
    return Matches(
        np.concatenate([own.first, *firsts]),
        np.concatenate([own.a, *(part.a for part in parts)]),
        np.concatenate([own.b, *(part.b + np.int32(count) for part in parts)]),
        np.concatenate([own.score, *(part.score for part in parts)]),
        own.origin,
    )


def _of_first(first: NDArray[np.int32], part: Matches) -> Matches:
    """Pairs with rows of the samples that stand for others: the run's own join may know more samples as equal."""
    a = first[part.a]
    if (a == part.a).all():
        return part
    _, once = np.unique(a.astype(np.int64) * len(part.first) + part.b, return_index=True)
    return Matches(part.first, a[once], part.b[once], part.score[once])
