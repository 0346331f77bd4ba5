"""The command line: ``dedupkit run``, ``apply``, ``report``, ``calibrate``, ``demo``.

Exit codes: 0 done, 1 the run failed (one line says why, and what to do), 2 wrong usage.
"""

from __future__ import annotations

import gc
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dedupkit.cli.prompts import prompts
from dedupkit.cli.terminal import say
from dedupkit.errors import DedupkitError, RuleError

if TYPE_CHECKING:
    from dedupkit.workflows.run import Run

app = typer.Typer(
    help="De-duplicate image-caption shards before training.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

_INTERRUPTED = 130  # how typer exits on Ctrl-C

Json = Annotated[bool, typer.Option("--json", help="Print the summary as one JSON object on standard output.")]

Source = Annotated[
    list[str] | None,
    typer.Option("--source", help="Where the data lies now, if it moved since the run (repeatable)."),
]


def _version(value: bool) -> None:
    if value:
        from dedupkit import __version__

        typer.echo(f"dedupkit {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    del version


@app.command()
def run(
    source: Annotated[
        list[str],
        typer.Argument(
            help="Tars, Parquet files or folders; braces ({00000..00099}) and globs; local or s3://, hf://, …"
        ),
    ],
    out: Annotated[Path, typer.Option(help="The run folder. The same command goes on where it was interrupted.")],
    rule: Annotated[
        str, typer.Option(help="Preset (copies, exact, crops, thorough, …) or a rule such as 'exact or pdq<=20'.")
    ] = "copies",
    embed: Annotated[
        list[str] | None,
        typer.Option(
            help="Embedder: lite, openclip:MODEL/TAG, torchscript:PATH, onnx:PATH, precomputed:PATH (repeatable)."
        ),
    ] = None,
    keep: Annotated[
        str, typer.Option(help="Which duplicate is kept: columns from first to last, - for the larger.")
    ] = "-pixels, -nbytes, sample",
    hashes: Annotated[
        list[str] | None,
        typer.Option("--hash", help="Compute a further hash now: pixels, phash, dhash, … (repeatable)."),
    ] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes; all cores by default.")] = None,
    engine: Annotated[str, typer.Option(help="Where tasks run: local.")] = "local",
    seed: Annotated[int, typer.Option(help="Of everything that samples.")] = 0,
    device: Annotated[str | None, typer.Option(help="For torch: cpu, cuda, …; a GPU where there is one.")] = None,
    json_output: Json = False,
) -> None:
    """Find duplicates in SOURCE and decide what to keep; the verdicts go to OUT/manifest.parquet."""
    if engine != "local":
        raise typer.BadParameter(f"{engine!r} is not available in this version; use local", param_hint="--engine")
    from dedupkit.store import leave_pandas_out
    from dedupkit.workflows.dedup import dedup

    leave_pandas_out()
    options: dict[str, Any] = {"hashes": hashes or (), "workers": workers, "seed": seed, "device": device}
    _print_run(dedup(source, out, rule=rule, embed=embed or (), keep=keep, **options), json_output)


@app.command()
def apply(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="A finished run folder.")],
    to: Annotated[Path, typer.Option(help="Where the cleaned data goes.")],
    format: Annotated[str, typer.Option(help="webdataset, parquet, urls, datacomp or keys.")] = "webdataset",
    shard_size: Annotated[
        int | None, typer.Option(min=1, help="Samples per cleaned shard; about the source's size by default.")
    ] = None,
    shards: Annotated[int | None, typer.Option(min=1, help="Number of cleaned shards, instead of their size.")] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes; all cores by default.")] = None,
    source: Source = None,
    json_output: Json = False,
) -> None:
    """Write what the run in DIR keeps."""
    from dedupkit.manifest.export import FORMATS
    from dedupkit.workflows.run import Run

    if format not in FORMATS:
        raise typer.BadParameter(f"{format!r}; choose one of {', '.join(FORMATS)}", param_hint="--format")
    if shard_size is not None and shards is not None:
        raise typer.BadParameter("give --shard-size or --shards, not both", param_hint="--shards")
    options: dict[str, Any] = {"shard_size": shard_size, "shards": shards, "source": source or None}
    written = Run(directory).apply(to, format=format, workers=workers, **options)
    if json_output:
        typer.echo(json.dumps(written))
    else:
        say(f"wrote {written['samples']:,} samples to {to} ({written['files']:,} files, {format})")


@app.command()
def report(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="A finished run folder.")],
    source: Source = None,
    json_output: Json = False,
) -> None:
    """Write report.html, report.json and DATASET_CARD.md into DIR."""
    from dedupkit.workflows.run import Run

    path = Run(directory).report(source=source or None)
    if json_output:
        typer.echo(json.dumps({"report": str(path)}))
    else:
        say(f"wrote {path}")


@app.command()
def calibrate(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="A finished run folder.")],
    sample: Annotated[int, typer.Option(min=1, help="Images of which edited copies are planted.")] = 300,
    precision: Annotated[float, typer.Option(help="Propose the loosest threshold with this precision.")] = 0.99,
    judge: Annotated[bool, typer.Option("--judge", help="Judge found pairs on a local page, by keyboard.")] = False,
    per_band: Annotated[int, typer.Option(min=1, help="Pairs to judge of each band of score.")] = 20,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Of the local page; 0 takes a free one.")] = 0,
    seed: Annotated[int, typer.Option(min=0, help="Of everything that is drawn at random.")] = 0,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes; all cores by default.")] = None,
    device: Annotated[str | None, typer.Option(help="For torch: cpu, cuda, …; a GPU where there is one.")] = None,
    keep_copies: Annotated[bool, typer.Option("--keep-copies", help="Leave the planted files in DIR.")] = False,
    source: Source = None,
    json_output: Json = False,
) -> None:
    """Measure the rule of the run in DIR on copies of its own images, and propose thresholds."""
    if not 0 < precision < 1:
        raise typer.BadParameter(f"{precision} is no share between 0 and 1", param_hint="--precision")
    from dedupkit.workflows.calibrate import calibrate as measure

    options: dict[str, Any] = {"seed": seed, "workers": workers, "device": device, "keep_copies": keep_copies}
    options["source"] = source or None
    done = measure(
        directory,
        sample=sample,
        precision=precision,
        judge=judge,
        per_band=per_band,
        port=port,
        tell=_invite,
        **options,
    )
    if json_output:
        typer.echo(json.dumps(done.facts))
        return
    say(done)
    answered = done.facts["precision"] is not None
    say(f"\nnext: dedupkit {'report' if answered else 'calibrate'} {directory}{'' if answered else ' --judge'}")


def _invite(url: str) -> None:
    say(f"judge here: {url}\nCtrl-C stops; what is answered is kept", err=True)


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Where the demo's files go.")] = Path("demo"),
    json_output: Json = False,
) -> None:
    """Build a small web of real photos and copies, download it with img2dataset, clean it, check the outcome."""
    from dedupkit.demo import run_demo

    succeeded = run_demo(out, json_output=json_output)
    if not succeeded:
        raise typer.Exit(1)


app.command()(prompts)


def _print_run(finished: Run, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(finished.summary))
        return
    rows: list[tuple[str, Any]] = finished.rows()
    width = max(len(label) for label, _ in rows)
    for label, value in rows:
        say(f"{label:<{width}}  {value}")
    say(f"{'manifest':<{width}}  {finished.path / 'manifest.parquet'}")
    say(f"\nnext: dedupkit report {finished.path}   or   dedupkit apply {finished.path} --to CLEAN")


def main() -> None:
    """Entry point: errors of ours become one line and an exit code."""
    try:
        app()
    except RuleError as error:
        say(f"dedupkit: {error}", err=True)
        sys.exit(2)
    except (DedupkitError, OSError) as error:
        say(f"dedupkit: {_explain(error)}", err=True)
        sys.exit(1)
    except SystemExit as ending:
        if ending.code != _INTERRUPTED:
            raise
        say("dedupkit: stopped; run the same command again to go on from here", err=True)
        sys.exit(1)
    finally:
        gc.freeze()  # or the interpreter walks through all that was loaded once more before it ends


def _explain(error: Exception) -> str:
    if isinstance(error, OSError) and error.errno is not None and not isinstance(error, DedupkitError):
        where = f": {error.filename}" if error.filename else ""
        return f"{error.strerror}{where}; what was done is kept, run the same command again to go on"
    return " ".join(str(error).split("\n")) if not isinstance(error, RuleError) else str(error)


if __name__ == "__main__":
    main()
