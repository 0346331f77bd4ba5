"""What was fitted to transformed copies of a run's images, for its summary."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from dedupkit.engine.marker import read_marker
from dedupkit.runfolder import RunFolder

__all__ = ["projection_facts", "projection_rows"]


def projection_facts(folder: RunFolder, embedders: Iterable[str]) -> dict[str, Any]:
    """What each fit came to, by name of the embedder; those that nothing was fitted for are left out."""
    markers = {name: read_marker(folder.projection_marker(name)) for name in embedders}
    return {name: marker.result for name, marker in markers.items() if marker is not None}


def projection_rows(projections: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, str]]:
    """The same as label and text: the stranger pairs above the threshold that keeps the copies, and ranks."""
    shown = []
    for name, facts in projections.items():
        if "reason" in facts:
            shown.append((f"nothing fitted for {name}", facts["reason"]))
            continue
        sides = [facts[side] for side in ("before", "after") if side in facts]
        if facts["fitted"]:
            dims = f"{facts['dims'][1]:,} of {facts['dims'][0]:,} values"
            shown.append((f"projection of {name}", f"{dims}, fitted to copies of {facts['images']:,} images"))
        else:
            shown.append((f"floor of {name}", f"{facts['floor']:g}, from copies of {facts['images']:,} images"))
        pairs = f"of {sides[0]['pairs']:,} pairs of a copy and another image"
        shown.append((f"  strangers at recall {facts['recall']:g}", f"{_both(sides, 'strangers', '.2g')} {pairs}"))
        first = f"{_both(sides, 'first', '.4f')} of {sides[0]['copies']:,} copies"
        shown.append(("  before every stranger", first))
    return shown


def _both(sides: list[Mapping[str, Any]], what: str, form: str) -> str:
    values = [format(side[what], form) for side in sides]
    return values[0] if len(values) == 1 else f"{values[0]} without, {values[1]} with the projection"
