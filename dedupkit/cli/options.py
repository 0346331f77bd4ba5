"""Options that several commands share."""

from __future__ import annotations

from typing import Annotated

import typer

__all__ = ["Against", "AgainstRule", "ComputeMissing", "Device", "Json", "RunDirectory", "Source", "Workers"]

RunDirectory = Annotated[str, typer.Argument(metavar="DIR", help="A finished run folder.")]
Json = Annotated[bool, typer.Option("--json", help="Print the summary as one JSON object on standard output.")]
Workers = Annotated[int | None, typer.Option(min=1, help="Number of processes; all cores by default.")]
Device = Annotated[
    str | None, typer.Option(help="Device for torch: cpu, cuda, …; by default a GPU if there is one, else the CPU.")
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
