"""The match stage: scored pairs of distinct fingerprints, written as edges between the first samples that have them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dedupkit.runfolder.folder import RunFolder
from dedupkit.signals.columns import Scanned
from dedupkit.signals.signal import JoinSettings, Signal

__all__ = ["match_signal"]


def match_signal(out: str, shards: int, signal: Signal, settings: JoinSettings) -> dict[str, Any]:
    """Join one signal; a task of the engine.

    Args:
        out: The run folder.
        shards: Number of shards scanned.
        signal: The signal.
        settings: How far, and how.

    Returns:
        ``distinct`` fingerprints joined, ``edges`` written, the ``bound``, and what else the signal says of its search.
    """
    return signal.match(Scanned(RunFolder(Path(out)), shards), settings)
