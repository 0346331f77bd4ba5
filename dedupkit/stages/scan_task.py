"""The scan as a task that can be named before arrays are loaded; :mod:`dedupkit.stages.scan` does the work."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dedupkit.signals import Signal
from dedupkit.sources import Shard

__all__ = ["scan_task"]


def scan_task(shard: Shard, path: str, signals: Sequence[Signal]) -> dict[str, Any]:
    """Scan a shard; see :func:`dedupkit.stages.scan.scan_shard`."""
    from dedupkit.stages.scan import scan_shard

    return scan_shard(shard, path, signals)
