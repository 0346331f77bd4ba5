"""``dedupkit demo``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dedupkit.cli.options import Json

__all__ = ["demo"]


def demo(
    out: Annotated[Path, typer.Option(help="Folder for the demo's files.")] = Path("demo"),
    json_output: Json = False,
) -> None:
    """Build a small web of real photos and copies, and clean it. The outcome is checked."""
    from dedupkit.demo import run_demo

    if not run_demo(out, json_output=json_output):
        raise typer.Exit(1)
