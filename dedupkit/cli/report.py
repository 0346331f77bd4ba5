"""``dedupkit report``."""

from __future__ import annotations

from dedupkit.cli.options import Json, RunDirectory, Source
from dedupkit.cli.terminal import say, say_json
from dedupkit.store import join

__all__ = ["report"]


def report(directory: RunDirectory, source: Source = None, json_output: Json = False) -> None:
    """Write report.html, report.json and DATASET_CARD.md into DIR."""
    from dedupkit.workflows.run import Run

    run = Run(directory)
    path = join(run.shown, run.report(source=source or None).name)
    if json_output:
        say_json({"report": path})
    else:
        say(f"wrote {path}")
