"""Which of how many processes this is, and how long they wait for one another."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, replace

from dedupkit.errors import DedupkitError

__all__ = ["Place", "Timing", "place_of", "timing_of"]


@dataclass(frozen=True, slots=True)
class Place:
    """Which of how many processes this is.

    Attributes:
        rank: Number of this process, from 0.
        world: Number of processes.
        job: What the scheduler calls the job; empty where it gives no name.
        life: What tells this process from an earlier one of the same rank.
    """

    rank: int
    world: int
    job: str = ""
    life: str = ""

    @property
    def who(self) -> str:
        """Name of this process in claims and reports."""
        return f"{self.rank}-{self.life}"


def place_of(environ: Mapping[str, str]) -> Place:
    """Read this process's place from ``RANK`` and ``WORLD_SIZE``, or from SLURM's variables.

    Raises:
        DedupkitError: They are not there, or state no place.

    >>> place_of({"RANK": "1", "WORLD_SIZE": "4"}).rank
    1
    """
    for rank, world in (("RANK", "WORLD_SIZE"), ("SLURM_PROCID", "SLURM_NTASKS")):
        if rank in environ and world in environ:
            job = [environ.get(f"SLURM_{name}", "") for name in ("JOB_ID", "STEP_ID", "RESTART_COUNT")]
            named = environ.get("DEDUPKIT_JOB", ".".join(job) if job[0] else "")
            try:
                place = Place(int(environ[rank]), int(environ[world]), named, secrets.token_hex(4))
            except ValueError:
                place = Place(0, 0)
            if not 0 <= place.rank < place.world:
                raise DedupkitError(
                    f"{rank}={environ[rank]} and {world}={environ[world]} state no place: {rank} counts from 0 to "
                    f"{world} - 1"
                )
            return place
    raise DedupkitError(
        "--engine rank needs RANK and WORLD_SIZE (or SLURM_PROCID and SLURM_NTASKS, which srun sets) in the "
        "environment of each process"
    )


@dataclass(frozen=True, slots=True)
class Timing:
    """How long ranks wait for one another, in seconds.

    Attributes:
        timeout: Time without a sign of life after which a rank counts as dead.
        patience: Time that a rank waits for rank 0 to begin.
        late: Time that a rank waits for a new session where it finds only one that has ended.
        poll: Time between two looks into the folder.
    """

    timeout: float = 120.0
    patience: float = 900.0
    late: float = 30.0
    poll: float = 0.5

    def beat(self, usual: float) -> float:
        """Seconds between two signs of life, so that some of them may be late."""
        return min(usual, self.timeout / 5)


def timing_of(environ: Mapping[str, str]) -> Timing:
    """The usual times; ``DEDUPKIT_RANK_TIMEOUT`` and ``DEDUPKIT_RANK_PATIENCE`` state others, in seconds.

    Raises:
        DedupkitError: One of them is no positive number.
    """
    given = {}
    for name in ("timeout", "patience"):
        text = environ.get(f"DEDUPKIT_RANK_{name.upper()}")
        if text is not None:
            try:
                given[name] = float(text)
            except ValueError:
                given[name] = 0.0
            if not given[name] > 0:
                raise DedupkitError(f"DEDUPKIT_RANK_{name.upper()}={text} is no number of seconds above 0")
    usual = Timing()
    patience = given.get("patience", usual.patience)
    return replace(
        usual, timeout=given.get("timeout", usual.timeout), patience=patience, late=min(usual.late, patience)
    )
