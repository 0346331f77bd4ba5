"""``dedupkit prompts``."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from dedupkit.cli.options import RunDirectory
from dedupkit.cli.terminal import say, say_json

__all__ = ["prompts"]


def prompts(
    directory: RunDirectory,
    top: Annotated[int, typer.Option(min=1, help="Number of duplicate groups, the largest first.")] = 350_000,
    to: Annotated[
        str | None, typer.Option(help="File to write: .txt, .jsonl or .parquet; standard output by default.")
    ] = None,
    json_output: Annotated[bool, typer.Option("--json", help="Print JSON lines instead of captions.")] = False,
) -> None:
    """List the captions of the most frequent images in DIR. There is one for each duplicate group."""
    from dedupkit.workflows.prompts import most_duplicated, write_prompts

    if to is not None:
        count = write_prompts(directory, to, top)
        if json_output:
            say_json({"prompts": count, "to": to})
        else:
            say(f"wrote {count:,} captions to {to}")
        return
    for row in most_duplicated(directory, top).to_pylist():
        say(json.dumps(row) if json_output else " ".join(row["prompt"].split()))
