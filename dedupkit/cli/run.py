"""``dedupkit run``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from dedupkit.cli.options import (
    Address,
    Against,
    AgainstRule,
    ComputeMissing,
    Device,
    Engine,
    Json,
    Workers,
    check_engine,
)
from dedupkit.cli.terminal import say, say_json, say_rows
from dedupkit.store import join

if TYPE_CHECKING:
    from dedupkit.workflows.run import Run

__all__ = ["run", "show_run"]

_LOST_SHARDS = 3


def run(
    source: Annotated[
        list[str],
        typer.Argument(
            help="Tars, Parquet files or folders; braces ({00000..00099}) and globs; local or s3://, hf://, …"
        ),
    ],
    out: Annotated[str, typer.Option(help="Run folder. After an interruption the same command continues there.")],
    rule: Annotated[
        str, typer.Option(help="Preset (copies, exact, crops, thorough, …) or a rule such as 'exact or pdq<=20'.")
    ] = "copies",
    embed: Annotated[
        list[str] | None,
        typer.Option(
            help="Embedder: copy, lite, openclip:MODEL/TAG, torchscript:PATH, onnx:PATH, precomputed:PATH (repeatable)."
        ),
    ] = None,
    keep: Annotated[
        str,
        typer.Option(
            help="Which duplicate to keep: columns in order of importance, with - where larger is better; meta:NAME is "
            "a column of your data."
        ),
    ] = "-pixels, -nbytes, sample",
    hashes: Annotated[
        list[str] | None,
        typer.Option("--hash", help="Further hash to compute now: pixels, phash, dhash, … (repeatable)."),
    ] = None,
    captions: Annotated[
        str,
        typer.Option(help="Captions beside images: ignore, pair, merge, template; see docs/captions.md."),
    ] = "ignore",
    templates: Annotated[
        str,
        typer.Option(help="Families of one template (needs a rule that verifies): keep, or cap:M for at most M each."),
    ] = "keep",
    against: Against = None,
    against_rule: AgainstRule = None,
    compute_missing: ComputeMissing = False,
    workers: Workers = None,
    engine: Engine = "local",
    address: Address = None,
    plan: Annotated[
        bool,
        typer.Option("--plan", help="Only say what the run would take: tasks, bytes, time, memory; write nothing."),
    ] = False,
    seed: Annotated[int, typer.Option(min=0, help="Seed for all random choices.")] = 0,
    device: Device = None,
    target_recall: Annotated[
        float | None,
        typer.Option(
            help="Recall to reach in searches that are clustered because exact ones would take long, 0.99 by default; "
            "candidates for verification of a preset then begin where it keeps so many transformed copies."
        ),
    ] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Exit with status 3 if a shard could not be read to its end.")
    ] = False,
    json_output: Json = False,
) -> None:
    """Find duplicates in SOURCE and decide what to keep. The verdicts go to OUT/manifest.parquet."""
    check_engine(engine, address)
    if target_recall is not None and not 0 < target_recall <= 1:
        raise typer.BadParameter(f"{target_recall} is no share between 0 and 1", param_hint="--target-recall")
    from dedupkit.startup.no_pandas import leave_pandas_out
    from dedupkit.workflows.dedup import dedup

    leave_pandas_out()
    options: dict[str, Any] = {
        "hashes": hashes or (),
        "workers": workers,
        "seed": seed,
        "device": device,
        "captions": captions,
        "templates": templates,
        "against": against or (),
        "against_rule": against_rule,
        "compute_missing": compute_missing,
        "target_recall": target_recall,
        "engine": engine,
        "address": address,
    }
    if plan:
        from dedupkit.workflows.plan import plan_run

        without = ("seed", "compute_missing", "address")  # which change nothing that a plan states
        given = {name: value for name, value in options.items() if name not in without}
        planned = plan_run(source, rule=rule, embed=embed or (), keep=keep, **given)
        if json_output:
            say_json(planned.to_json())
        else:
            say_rows(planned.rows())
        return
    finished = dedup(source, out, rule=rule, embed=embed or (), keep=keep, **options)
    show_run(finished, json_output=json_output, strict=strict)


def show_run(finished: Run, *, json_output: bool, strict: bool) -> None:
    """Print what a run found, and what can follow.

    Args:
        finished: The run.
        json_output: Whether to print the summary as one JSON object.
        strict: Whether a shard, also of a reference set, that could not be read to its end is a failure.
    """
    if json_output:
        say_json(finished.summary)
    else:
        from dedupkit.runfolder import Layout

        say_rows([*finished.rows(), ("manifest", join(finished.shown, Layout(finished.path).manifest.name))])
        say(f"\nnext: dedupkit report {finished.shown}   or   dedupkit apply {finished.shown} --to CLEAN")
    if strict and any(read["shard_problems"] for read in (finished.summary, *finished.summary["references"])):
        raise typer.Exit(_LOST_SHARDS)
