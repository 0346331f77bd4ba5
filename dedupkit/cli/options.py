"""Options that several commands share."""

from __future__ import annotations

from typing import Annotated

import typer

from dedupkit.engine.choice import ENGINES

__all__ = [
    "Address",
    "Against",
    "AgainstRule",
    "ComputeMissing",
    "Device",
    "Engine",
    "Json",
    "RunDirectory",
    "Source",
    "Workers",
    "check_engine",
]

RunDirectory = Annotated[str, typer.Argument(metavar="DIR", help="A finished run folder.")]
Json = Annotated[bool, typer.Option("--json", help="Print the summary as one JSON object on standard output.")]
Workers = Annotated[int | None, typer.Option(min=1, help="Number of processes; by default one a core that it may use.")]
Device = Annotated[
    str | None, typer.Option(help="Device for torch: cpu, cuda, …; by default a GPU if there is one, else the CPU.")
]
Engine = Annotated[
    str,
    typer.Option(help="Where tasks run: local, ray, or rank (one of several processes); see docs/running-at-scale.md."),
]
Address = Annotated[
    str | None, typer.Option(help="Address of the Ray cluster; RAY_ADDRESS or a Ray on this machine by default.")
]
Against = Annotated[
    list[str] | None,
    typer.Option(
        help="Samples that duplicate this are blocked: a run folder, images, or a list of hashes, URLs or domains "
        "(repeatable); see docs/updates.md."
    ),
]
AgainstRule = Annotated[
    str | None,
    typer.Option(help="What duplicates a reference: a rule, datacomp, dinov2 or finevision; the run's own by default."),
]
ComputeMissing = Annotated[
    bool, typer.Option("--compute-missing", help="Compute what an earlier run lacks from its images.")
]
Source = Annotated[
    list[str] | None,
    typer.Option("--source", help="Where the data lies now, if it has moved since the run (repeatable)."),
]


def check_engine(engine: str, address: str | None) -> None:
    """Refuse an engine that there is not, and an address for one that has none.

    Raises:
        typer.BadParameter: One of the two.
    """
    if engine not in ENGINES:
        raise typer.BadParameter(f"{engine!r} is none of {', '.join(ENGINES)}", param_hint="--engine")
    if address is not None and engine != "ray":
        raise typer.BadParameter("an address is for --engine ray", param_hint="--address")
