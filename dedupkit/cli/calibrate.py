"""``dedupkit calibrate``."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from dedupkit.cli.options import Device, Json, RunDirectory, Source, Workers
from dedupkit.cli.terminal import say, say_json

__all__ = ["calibrate"]


def calibrate(
    directory: RunDirectory,
    sample: Annotated[int, typer.Option(min=1, help="Number of images to make transformed copies of.")] = 300,
    precision: Annotated[float, typer.Option(help="Precision for which thresholds are proposed.")] = 0.99,
    judge: Annotated[bool, typer.Option("--judge", help="Judge pairs on a local page, by keyboard.")] = False,
    per_band: Annotated[int, typer.Option(min=1, help="Number of pairs to judge in each stratum of scores.")] = 20,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port of the judging page; 0 picks a free one.")] = 0,
    seed: Annotated[int, typer.Option(min=0, help="Seed for all random choices.")] = 0,
    workers: Workers = None,
    device: Device = None,
    keep_copies: Annotated[bool, typer.Option("--keep-copies", help="Keep the transformed copies in DIR.")] = False,
    source: Source = None,
    json_output: Json = False,
) -> None:
    """Measure the rule of a run on copies of its own images. Thresholds are proposed."""
    if not 0 < precision < 1:
        raise typer.BadParameter(f"{precision} is not between 0 and 1", param_hint="--precision")
    from dedupkit.workflows.calibrate import calibrate as measure

    options: dict[str, Any] = {"sample": sample, "precision": precision, "seed": seed, "per_band": per_band}
    options |= {"judge": judge, "port": port, "tell": _invite, "keep_copies": keep_copies}
    done = measure(directory, workers=workers, device=device, source=source or None, **options)
    if json_output:
        say_json(done.facts.to_json())
        return
    say(str(done))
    answered = done.facts.precision is not None
    say(f"\nnext: dedupkit {'report' if answered else 'calibrate'} {directory}{'' if answered else ' --judge'}")


def _invite(url: str) -> None:
    say(f"judge here: {url}\nCtrl-C stops; answers so far are kept", err=True)
