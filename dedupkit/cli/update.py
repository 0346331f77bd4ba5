"""``dedupkit update``."""

from __future__ import annotations

from typing import Annotated

import typer

from dedupkit.cli.options import (
    Address,
    AgainstRule,
    ComputeMissing,
    Device,
    Engine,
    Json,
    Workers,
    check_engine,
)
from dedupkit.cli.run import show_run

__all__ = ["update"]


def update(
    directory: Annotated[str, typer.Argument(metavar="RUN", help="A finished run folder; nothing in it changes.")],
    source: Annotated[list[str], typer.Argument(help="The new tars, Parquet files or folders, as for run.")],
    out: Annotated[str, typer.Option(help="Run folder for the new part.")],
    rule: Annotated[str | None, typer.Option(help="Preset or rule; that of RUN by default.")] = None,
    embed: Annotated[
        list[str] | None, typer.Option(help="Embedder, as for run (repeatable); those of RUN by default.")
    ] = None,
    keep: Annotated[str | None, typer.Option(help="Keep policy among new samples; that of RUN by default.")] = None,
    captions: Annotated[str | None, typer.Option(help="As for run; as in RUN by default.")] = None,
    against: Annotated[
        list[str] | None,
        typer.Option(help="Samples that duplicate this are blocked (repeatable), as for run; as in RUN by default."),
    ] = None,
    no_against: Annotated[
        bool, typer.Option("--no-against", help="Compare with no reference set, whatever RUN was compared with.")
    ] = False,
    against_rule: AgainstRule = None,
    compute_missing: ComputeMissing = False,
    workers: Workers = None,
    engine: Engine = "local",
    address: Address = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed for all random choices.")] = 0,
    device: Device = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Exit with status 3 if a shard could not be read to its end.")
    ] = False,
    json_output: Json = False,
) -> None:
    """De-duplicate new shards against a finished run. Its images are not read again."""
    check_engine(engine, address)
    if no_against and (against or against_rule):
        raise typer.BadParameter("it goes without --against and --against-rule", param_hint="--no-against")
    from dedupkit.startup.no_pandas import leave_pandas_out
    from dedupkit.workflows.update import update as update_run

    leave_pandas_out()
    finished = update_run(
        directory,
        source,
        out,
        rule=rule,
        embed=embed or None,
        keep=keep,
        captions=captions,
        against=() if no_against else against or None,
        against_rule=against_rule,
        compute_missing=compute_missing,
        workers=workers,
        engine=engine,
        address=address,
        seed=seed,
        device=device,
    )
    show_run(finished, json_output=json_output, strict=strict)
