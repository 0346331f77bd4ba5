"""``dedupkit audit``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dedupkit.cli.options import Device, Json
from dedupkit.cli.terminal import say, say_json

__all__ = ["audit"]


def audit(
    generated: Annotated[str, typer.Argument(help="A folder or shards of generated images.")],
    against: Annotated[Path, typer.Option(help="A finished run over the training set.")],
    out: Annotated[Path, typer.Option(help="Folder to write into.")],
    real: Annotated[
        str | None, typer.Option(help="Real images that were not trained on, for the false-alarm rate.")
    ] = None,
    min_cosine: Annotated[
        float | None, typer.Option(min=-1, max=1, help="Least cosine of the vectors of a copy.")
    ] = None,
    device: Device = None,
    json_output: Json = False,
) -> None:
    """Say which generated images copy a training image: audit.parquet, audit.json and takedown.txt."""
    from dedupkit.workflows.audit import audit as measure

    found = measure(generated, against, out, real=real, min_cosine=min_cosine, device=device)
    if json_output:
        say_json(found.to_json())
    else:
        say(str(found))
