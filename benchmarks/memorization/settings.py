"""Settings of training; a module of its own, so that planning a run does not load torch."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Training"]


@dataclass(frozen=True, slots=True)
class Training:
    """Settings of training and sampling."""

    steps: int = 2000
    batch: int = 64
    rate: float = 4e-4
    ema: float = 0.995
    width: int = 32
    euler: int = 20
