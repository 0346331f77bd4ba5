"""``dedupkit audit``."""

from __future__ import annotations

from typing import Annotated

import typer

from dedupkit.cli.options import Device, Json, Source, Workers
from dedupkit.cli.terminal import say, say_json

__all__ = ["audit"]


def audit(
    generated: Annotated[list[str], typer.Argument(help="Folders or shards of generated images.")],
    against: Annotated[str, typer.Option(help="A finished run over the training set.")],
    out: Annotated[str, typer.Option(help="Folder to write into, or its URL in an object store.")],
    real: Annotated[
        list[str] | None,
        typer.Option(help="Real images that were not trained on, for threshold and false-alarm rate (repeatable)."),
    ] = None,
    min_cosine: Annotated[
        float | None, typer.Option(min=-1, max=1, help="Least cosine of the vectors of a copy.")
    ] = None,
    false_alarms: Annotated[
        float, typer.Option(help="Greatest share of real images that reach the calibrated cosine.")
    ] = 0.001,
    verify: Annotated[
        bool,
        typer.Option("--verify", help="Let local features decide about candidates, whose training images are read."),
    ] = False,
    show: Annotated[int, typer.Option(min=0, help="Greatest number of pairs on the page.")] = 60,
    tiles: Annotated[
        int, typer.Option(help="Tiles by which generations of one prompt are compared: 1, 4, 16, … up to 256.")
    ] = 16,
    clique: Annotated[int, typer.Option(help="Least number of near-copies among the generations of a prompt.")] = 10,
    delta: Annotated[float, typer.Option(help="Largest tile distance of near-copies, 0 to 1.")] = 0.15,
    adaptive: Annotated[
        bool, typer.Option("--adaptive", help="Compare small images with every kept training image.")
    ] = False,
    embed: Annotated[
        str | None, typer.Option(help="The model behind vectors that were given to the run, as for dedupkit run.")
    ] = None,
    device: Device = None,
    workers: Workers = None,
    source: Source = None,
    json_output: Json = False,
) -> None:
    """Say which generated images copy a training image. Writes a page, tables, and a list of hashes for a take-down."""
    from dedupkit.memorization.extraction import Filter
    from dedupkit.store import join
    from dedupkit.workflows.audit import AuditOptions
    from dedupkit.workflows.audit import audit as measure

    found = measure(
        generated,
        against,
        out,
        real=real or None,
        options=AuditOptions(min_cosine, false_alarms, verify, show, Filter(tiles, clique, delta), adaptive),
        embed=embed,
        device=device,
        workers=workers,
        source=source or None,
    )
    if json_output:
        say_json(found.to_json())
    else:
        say(f"{found}\nlook at {join(out, 'audit.html')}")
