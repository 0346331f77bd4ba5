"""The scan as a task that can be named before arrays are loaded; :mod:`dedupkit.stages.scan` does the work."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from dedupkit.engine import WorkerDied
from dedupkit.signals import Signal
from dedupkit.sources import Shard

__all__ = ["load_scan", "scan_task", "scan_without_killers"]

_TRIES = 3


def load_scan() -> None:
    """Load what a scan needs."""
    import_module("dedupkit.stages.scan")


def scan_task(shard: Shard, path: str, signals: Sequence[Signal], meta: Sequence[str]) -> dict[str, Any]:
    """Scan a shard; see :func:`dedupkit.stages.scan.scan_shard`."""
    from dedupkit.stages.scan import scan_shard

    return scan_shard(shard, path, signals, meta)


def scan_carefully(
    shard: Shard, path: str, signals: Sequence[Signal], meta: Sequence[str], end: tuple[int, str] | None, notes: str
) -> Any:
    """Scan a shard, each sample in a process of its own first; see :class:`dedupkit.stages.careful.CarefulShard`."""
    from dedupkit.stages.careful import CarefulShard
    from dedupkit.stages.scan import scan_shard

    return scan_shard(CarefulShard(shard, signals, notes, end), path, signals, meta)


def scan_without_killers(
    shard: Shard, path: str, signals: Sequence[Signal], meta: Sequence[str], ask: Callable[[Callable[[], Any]], Any]
) -> dict[str, Any]:
    """Scan a shard that has ended two processes; the samples that do it get a row with that reason.

    Args:
        shard: What to read.
        path: The Parquet file to write.
        signals: What to measure beside SHA-256 and PDQ.
        meta: Columns of the data's own to store.
        ask: Calls a function in a process of its own.

    Returns:
        The summary of the scan. Where the reader itself ends the process twice at the same sample, the rest of the
        shard cannot be read.

    Raises:
        WorkerDied: The process ends at changing places, so neither a sample nor the reader is the cause.
    """
    with TemporaryDirectory(prefix="dedupkit-") as folder:
        notes = Path(folder, "read")
        end: tuple[int, str] | None = None
        while True:
            notes.write_text("0")
            try:
                summary: dict[str, Any] = ask(partial(scan_carefully, shard, path, signals, meta, end, str(notes)))
                return summary
            except WorkerDied as death:
                read = int(notes.read_text())
                if end is not None:
                    raise
                if notes.with_name(f"died-{read}").exists():
                    end = (read, str(death))
                elif len(list(Path(folder).glob("died-*"))) == _TRIES:
                    raise
                notes.with_name(f"died-{read}").touch()
