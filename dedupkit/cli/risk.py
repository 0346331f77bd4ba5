"""``dedupkit risk``."""

from __future__ import annotations

from typing import Annotated

import typer

from dedupkit.cli.options import Json, RunDirectory
from dedupkit.cli.terminal import say, say_json

__all__ = ["risk"]


def risk(
    directory: RunDirectory,
    top: Annotated[int, typer.Option(min=0, help="Greatest number of groups to list.")] = 20,
    json_output: Json = False,
) -> None:
    """Say which images of the run in DIR a model may memorize. It says how often, and what is left."""
    from dedupkit.memorization.risk import measure_risk

    found = measure_risk(directory, top)
    if json_output:
        say_json(found.to_json())
    else:
        say(str(found))
