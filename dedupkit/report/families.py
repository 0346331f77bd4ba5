"""Families of one template, as the report shows them: the part that all share, and where each differs."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pyarrow.compute as pc

from dedupkit.report.facts import Families, Family, FamilyMember, Sample
from dedupkit.runfolder import RunFolder
from dedupkit.store import read_columns

__all__ = ["families_shown"]

_FAMILIES, _SHOWN = 20, 6


def families_shown(
    folder: RunFolder, policy: str, get: Callable[[Iterable[int]], dict[int, Sample]]
) -> Families | None:
    """The largest families.

    Args:
        folder: Folder of a finished run.
        policy: What became of families.
        get: Gives samples as they are shown.

    Returns:
        None where the rule looked for none.
    """
    if not folder.families.exists():
        return None
    sizes = read_columns(folder.families, ["size"])["size"]
    top = read_columns(folder.families).slice(0, _FAMILIES).to_pylist()
    chosen = [(row, _chosen(row)) for row in top]
    samples = get(row["samples"][place] for row, places in chosen for place in places)
    largest = tuple(
        Family(
            **{name: row[name] for name in ("family", "size", "kept", "removed")},
            shown=tuple(_member(row, place, samples) for place in places),
        )
        for row, places in chosen
    )
    return Families(policy, len(sizes), pc.sum(sizes).as_py() or 0, largest)


def _chosen(row: dict[str, Any]) -> list[int]:
    """Places of the head and of the members that share most with it."""
    same = row["same"]
    return [0, *sorted(range(1, len(same)), key=lambda place: (-same[place], place))[: _SHOWN - 1]]


def _member(row: dict[str, Any], place: int, samples: dict[int, Sample]) -> FamilyMember:
    boxes = (tuple(round(side, 4) for side in row[name][place]) for name in ("differs", "head_differs"))
    return FamilyMember(samples[row["samples"][place]], round(row["same"][place], 4), *boxes)
