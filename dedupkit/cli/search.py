"""``dedupkit search``."""

from __future__ import annotations

from typing import Annotated

import typer

from dedupkit.cli.options import Device, Json, RunDirectory, Source
from dedupkit.cli.terminal import say, say_json

__all__ = ["search"]


def search(
    directory: RunDirectory,
    query: Annotated[
        str | None, typer.Argument(help="An image file, an http(s) address, a key, or words for a CLIP.")
    ] = None,
    top: Annotated[int, typer.Option(min=1, help="Greatest number of samples.")] = 10,
    serve: Annotated[
        bool, typer.Option("--serve", help="Search on a page in the browser instead, until Ctrl-C.")
    ] = False,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port of the page; 0 picks a free one.")] = 0,
    device: Device = None,
    source: Source = None,
    json_output: Json = False,
) -> None:
    """List the samples of the run in DIR that are nearest to QUERY. Hashes and vectors are compared."""
    if (query is None) != serve:
        raise typer.BadParameter("name what to search for, or give --serve and no query")
    from dedupkit.workflows.search import Search

    found = Search(directory, device=device, source=source or None)
    if serve or query is None:
        from dedupkit.workflows.search_page import serve_search

        serve_search(
            found, top=top, port=port, tell=lambda url: say(f"search on this machine at {url}\nstop with Ctrl-C")
        )
        return
    answer = found.find(query, top)
    if json_output:
        say_json(answer.to_json())
    else:
        say(str(answer))
