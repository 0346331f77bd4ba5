"""``dedupkit metadata``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dedupkit.cli.options import Json
from dedupkit.cli.terminal import say, say_json, say_rows

__all__ = ["metadata"]


def metadata(
    files: Annotated[
        list[str], typer.Argument(help="URL lists: Parquet, TSV or CSV with a column of URLs; braces and globs.")
    ],
    to: Annotated[
        str,
        typer.Option(
            help="Folder for the cleaned lists, which keep their names and columns, or its URL in an object store."
        ),
    ],
    rule: Annotated[
        str | None,
        typer.Option(
            help="Conditions joined by 'and' and 'or': url, hash, caption, url_family, caption>=0.8, image_phash<=4. "
            "By default 'url or hash' where there are hashes, else 'url'."
        ),
    ] = None,
    keep: Annotated[
        str,
        typer.Option(
            help="Which duplicate to keep: pixels, width, height, clip_score, sample (the row), meta:NAME (a column)."
        ),
    ] = "sample",
    url_steps: Annotated[str, typer.Option(help="Steps applied to URLs before they are compared.")] = (
        "standard,fragment,trackers"
    ),
    caption_steps: Annotated[str, typer.Option(help="Steps applied to captions before they are compared.")] = (
        "entities,nfkc,casefold,spaces"
    ),
    temporary: Annotated[
        Path | None, typer.Option(help="Folder for 20 bytes a row and identity; inside TO by default.")
    ] = None,
    memory: Annotated[
        float, typer.Option(min=0.001, help="Memory that near conditions may take, in GB (caption>=, image_phash<=).")
    ] = 4,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Number of threads; by default one a core that it may use.")
    ] = None,
    json_output: Json = False,
) -> None:
    """Remove duplicate rows from URL lists. No image has to be there."""
    from dedupkit.captions.folding import Folding
    from dedupkit.metadata.keys import KeySettings
    from dedupkit.metadata.urls import UrlSteps
    from dedupkit.startup.no_pandas import leave_pandas_out
    from dedupkit.store import join
    from dedupkit.workflows.metadata import clean_lists

    leave_pandas_out()
    try:
        settings = KeySettings(UrlSteps.parse(url_steps), Folding.parse(caption_steps))
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    summary = clean_lists(
        files,
        to,
        rule=rule,
        keep=keep,
        settings=settings,
        temporary=temporary,
        workers=workers,
        memory=int(memory * 1e9),
    )
    if json_output:
        say_json(summary.to_json())
        return
    say_rows([*summary.rows_of_table(), ("manifest", join(to, "dedupkit", "manifest.parquet"))])
    say(f"\nnext: img2dataset --url_list {to} --input_format … --url_col …")
