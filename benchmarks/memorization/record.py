"""What experiment a folder holds, so that another one does not take its results for its own."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

from dedupkit.store import digest_of, read_json, write_json

__all__ = ["claim", "digest_of_photos"]

_NAME = "experiment.json"


def claim(out: Path, asked: Mapping[str, object]) -> None:
    """Write down which experiment a folder holds, or end where it is another one.

    Args:
        out: Folder of the experiment; one from before this was written down is taken with a line that says so.
        asked: What decides about the results, JSON-ready.
    """
    record = out / _NAME
    if out.exists() and any(path.name != _NAME for path in out.iterdir()):
        if not record.exists():
            print(f"{out} does not say which experiment it holds, so it cannot be checked that it is this one")
        elif read_json(record) != asked:
            sys.exit(f"{out} holds another experiment; choose another --out")
        return
    out.mkdir(parents=True, exist_ok=True)
    write_json(record, dict(asked))  # whole: arms may run side by side, each in its own process


def digest_of_photos(folder: Path | None) -> str:
    """Names and sizes of the photos in a folder, as a digest; made pictures have none."""
    if folder is None:
        return "made"
    return digest_of([[path.name, path.stat().st_size] for path in sorted(folder.rglob("*.jp*g"))])
