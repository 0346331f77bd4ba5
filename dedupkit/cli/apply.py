"""``dedupkit apply``."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from dedupkit.cli.options import Address, Engine, Json, RunDirectory, Source, Workers, check_engine
from dedupkit.cli.terminal import say, say_json

__all__ = ["apply"]


def apply(
    directory: RunDirectory,
    to: Annotated[str, typer.Option(help="Folder for the cleaned data.")],
    format: Annotated[str, typer.Option(help="webdataset, parquet, urls, datacomp or keys.")] = "webdataset",
    shard_size: Annotated[
        int | None, typer.Option(min=1, help="Samples per cleaned shard; about the source's size by default.")
    ] = None,
    shards: Annotated[int | None, typer.Option(min=1, help="Number of cleaned shards, instead of their size.")] = None,
    caption_seed: Annotated[
        int | None,
        typer.Option(
            min=0, help="Seed for drawing one of the captions that a kept sample carries (run --captions merge)."
        ),
    ] = None,
    workers: Workers = None,
    engine: Engine = "local",
    address: Address = None,
    source: Source = None,
    json_output: Json = False,
) -> None:
    """Write the samples that the run in DIR keeps."""
    check_engine(engine, address)
    from dedupkit.manifest.export import FORMATS
    from dedupkit.manifest.export import apply as write_kept

    if format not in FORMATS:
        raise typer.BadParameter(f"{format!r}; choose one of {', '.join(FORMATS)}", param_hint="--format")
    if shard_size is not None and shards is not None:
        raise typer.BadParameter("give --shard-size or --shards, not both", param_hint="--shards")
    options: dict[str, Any] = {
        "shard_size": shard_size,
        "shards": shards,
        "source": source or None,
        "caption_seed": caption_seed,
        "engine": engine,
        "address": address,
    }
    written = write_kept(directory, to, format=format, workers=workers, **options)
    if json_output:
        say_json(written)
    elif "tasks" in written:
        say(f"did {written['tasks']:,} of rank 0's tasks")
    else:
        files = f"{written['files']:,} file" + "s" * (written["files"] != 1)
        say(f"wrote {written['samples']:,} samples to {to} ({files}, {format})")
