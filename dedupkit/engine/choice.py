"""Which engine a run uses, as a user names it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dedupkit.engine.engine import Engine
from dedupkit.engine.local import local_engine
from dedupkit.errors import DedupkitError

if TYPE_CHECKING:
    from dedupkit.engine.helper import Helper

__all__ = ["ENGINES", "Where", "make_engine", "only_helps"]

ENGINES = ("local", "ray", "rank")
"""Names of engines."""


@dataclass(frozen=True, slots=True)
class Where:
    """Where the tasks of a run are executed.

    Attributes:
        engine: ``local``: processes of this machine. ``ray``: a Ray cluster. ``rank``: the processes that were started
            with the same command and ``RANK`` and ``WORLD_SIZE``, or by SLURM's ``srun``.
        workers: Number of worker processes of each machine; with ``local``, 0 does all work in this process; with
            ``ray``, the number of cores of an actor that embeds.
        address: Address of the Ray cluster; None for ``RAY_ADDRESS``, and without one for a Ray on this machine.
    """

    engine: str = "local"
    workers: int = 1
    address: str | None = None


def make_engine(where: Where, out: Path) -> Engine | Helper:
    """Make the engine of a run, or what takes its place where this process only helps another one.

    Args:
        where: What the user named.
        out: The run folder.

    Raises:
        DedupkitError: There is no such engine, or what it needs from the environment is missing.
        MissingExtraError: Ray is not installed.
    """
    if where.address is not None and where.engine != "ray":
        raise DedupkitError(f"an address is for engine 'ray'; {where.engine!r} has none")
    if where.engine == "local":
        return local_engine(where.workers)
    if where.engine == "rank":
        from dedupkit.engine.helper import Helper
        from dedupkit.engine.place import place_of, timing_of
        from dedupkit.engine.rank import Ranks

        place = place_of(os.environ)
        return (Helper if place.rank else Ranks)(out, place, max(1, where.workers), timing_of(os.environ))
    if where.engine == "ray":
        from dedupkit.engine.ray_tasks import RayCluster

        return RayCluster(where.address, max(1, where.workers))
    raise DedupkitError(f"unknown engine {where.engine!r}; known: {', '.join(ENGINES)}")


def only_helps(engine: str) -> bool:
    """Whether this process only helps another one, which alone writes into the run folder.

    Raises:
        DedupkitError: It is one of several processes, and does not know which.
    """
    from dedupkit.engine.place import place_of

    return engine == "rank" and place_of(os.environ).rank > 0
