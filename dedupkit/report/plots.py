"""Plots as the geometry of an SVG, which a template draws."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from dedupkit.memorization.risk import Copies

__all__ = ["Bar", "RiskPlot", "risk_plot"]

_WIDE, _GAP, _BETWEEN, _HIGH = 46, 4, 44, 150  # pixels


@dataclass(frozen=True, slots=True)
class Bar:
    """A bar that stands on the axis.

    Attributes:
        kind: What it counts: ``all``, ``caption`` or ``left``.
        x: Left end, in pixels.
        y: Upper end, in pixels.
        height: Height, in pixels.
        value: The number that it stands for.
    """

    kind: str
    x: float
    y: float
    height: float
    value: int


@dataclass(frozen=True, slots=True)
class RiskPlot:
    """Bars for each least number of copies.

    Attributes:
        width: Width of the plot, in pixels.
        height: Height of the axis, in pixels.
        bars: The bars.
        labels: Middle of each class and its least number of copies.
        bar: Width of a bar, in pixels.
    """

    width: float
    height: float
    bars: tuple[Bar, ...]
    labels: tuple[tuple[float, int], ...]
    bar: int = _WIDE


def risk_plot(copies: Sequence[Copies]) -> RiskPlot:
    """Groups by least number of copies: all, those with one caption as often, and those that the rule leaves.

    Heights are logarithmic: one group is seen beside a million.

    Args:
        copies: The groups by least size.
    """
    top = math.log10(1 + max((each.groups for each in copies), default=0)) or 1.0
    each_wide = 3 * (_WIDE + _GAP) - _GAP
    bars, labels = [], []
    for place, each in enumerate(copies):
        left = place * (each_wide + _BETWEEN)
        labels.append((left + each_wide / 2, each.at_least))
        values = (("all", each.groups), ("caption", each.one_caption), ("left", each.remaining))
        for number, (kind, value) in enumerate(values):
            height = round((_HIGH - 22) * math.log10(1 + value) / top, 1)
            x = left + number * (_WIDE + _GAP)
            bars.append(Bar(kind, x, round(_HIGH - height, 1), height, value))
    return RiskPlot(len(copies) * (each_wide + _BETWEEN) - _BETWEEN, _HIGH, tuple(bars), tuple(labels))
