"""Two signals of another package: equal width, and nearly equal aspect. A plug-in is a module such as this one."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from dedupkit.signals import JoinSettings, register
from dedupkit.signals.column import ColumnSignal
from dedupkit.signals.identity import IdentitySignal


@dataclass(frozen=True)
class EqualWidth(IdentitySignal):
    """Images of equal width, over a column that every scan has."""

    column: ClassVar[str] = "width"

    def words(self, bound: float | None) -> str:
        """In words."""
        return "they are equally wide"


@dataclass(frozen=True)
class NearAspect(ColumnSignal):
    """Images whose aspects differ by a few hundredths of an octave, over a column of its own."""

    kind = "distance"
    whole = True
    bounds: ClassVar[tuple[float, float]] = (0.0, 1000.0)
    scan_columns: ClassVar[Mapping[str, int | str]] = {"near_aspect": "int16"}

    def measure(self, image: Any) -> Mapping[str, Any]:
        """Hundredths of an octave."""
        return {self.name: round(100 * math.log2(image.width / image.height))}

    def join(self, values: Any, settings: JoinSettings) -> Iterator[Any]:
        """All with all: there are few distinct aspects."""
        a, b = np.triu_indices(len(values), 1)
        score = self.compare(values[a], values[b])
        near = score <= settings.bound
        yield a[near], b[near], score[near]

    def compare(self, left: Any, right: Any) -> Any:
        """The difference."""
        return np.abs(left.astype(np.float32) - right)

    def words(self, bound: float | None) -> str:
        """In words."""
        return f"their aspects differ by at most {bound:g} hundredths of an octave"

    def strata(self) -> list[float]:
        """Every ten hundredths."""
        return [10.0, 20.0, 30.0, 40.0]

    def thresholds(self, floor: float) -> list[float]:
        """Every hundredth."""
        return [float(bound) for bound in range(int(floor) + 1)]


def register_both() -> None:
    """The two entries in the table."""
    register(EqualWidth("equal_width"))
    register(NearAspect("near_aspect"))
