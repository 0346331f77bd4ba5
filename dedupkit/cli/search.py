"""``dedupkit search``."""

from __future__ import annotations

from typing import Annotated

import typer

from dedupkit.cli.options import Device, Json, RunDirectory, Source
from dedupkit.cli.terminal import say, say_json

__all__ = ["search"]


def search(
    directory: RunDirectory,
    query: Annotated[str, typer.Argument(help="An image file, an http(s) address, a key, or words for a CLIP.")],
    top: Annotated[int, typer.Option(min=1, help="Greatest number of samples.")] = 10,
    device: Device = None,
    source: Source = None,
    json_output: Json = False,
) -> None:
    """List the samples of the run in DIR that are nearest to QUERY, by hash and by vector."""
    from dedupkit.workflows.search import Search

    found = Search(directory, device=device, source=source or None).find(query, top)
    if json_output:
        say_json(found.to_json())
    else:
        say(str(found))
