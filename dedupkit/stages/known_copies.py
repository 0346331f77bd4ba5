"""Copies of some images of a run, by which a search for nearest neighbours in cells is planned.

What a run seeks are copies, and these are nearer to their originals than most neighbours are. Cells in which the wanted
share of copies meets their originals are cheaper by far than cells in which as many of all neighbours meet.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from dedupkit.engine import Task, ThisProcess
from dedupkit.engine.marker import read_marker
from dedupkit.runfolder import RunFolder
from dedupkit.signals import find_signal
from dedupkit.signals.columns import Scanned
from dedupkit.signals.vector_join import KNOWN_FROM
from dedupkit.stages.copies import different_images
from dedupkit.stages.plan import Job
from dedupkit.stages.planted import plant_each
from dedupkit.store import atomic_path

__all__ = ["known_copies", "stored_copies"]

_IMAGES = 512
"""Images that are transformed: half of their copies choose the cells, the others measure."""


def known_copies(job: Job, name: str, key: str, pairs: float) -> str | None:
    """The file of these copies, which is made where it is missing; None where an exact search is affordable.

    Args:
        job: What is computed; the vectors are there.
        name: The embedder.
        key: Digest of its vectors.
        pairs: Number of pairs that an exact search compares.
    """
    if pairs <= KNOWN_FROM or job.computing.target_recall >= 1:
        return None
    path = str(job.folder.known_copies(name))
    call = partial(_write, job, name)
    ThisProcess().run([Task("copies", name, call, key, f"copies for {name}", (path,))], job.folder.path)
    return path


def stored_copies(folder: RunFolder, name: str) -> str | None:
    """The file of these copies, if the join needed one."""
    return None if read_marker(folder.marker("copies", name)) is None else str(folder.known_copies(name))


def _write(job: Job, name: str) -> dict[str, Any]:
    """Transform and embed images, and write the vectors; no pair where there is no model."""
    scanned = Scanned(job.folder, len(job.shards))
    drawn = different_images(job, _IMAGES)
    usable, left = find_signal(name).rows(scanned, drawn)
    samples = drawn[usable]
    planted = plant_each(job, name, samples)
    right = np.zeros((0, left.shape[1]), np.float32) if planted is None else planted.vectors
    of = np.searchsorted(samples, np.zeros(0, np.int64) if planted is None else planted.original)
    with atomic_path(job.folder.known_copies(name)) as temporary, temporary.open("wb") as stream:
        np.savez(stream, left=left, right=right, of=of)
    return {"copies": len(right)}
