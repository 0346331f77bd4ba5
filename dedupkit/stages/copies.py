"""Transformed copies of a run's own images, embedded."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dedupkit.embedding import Embedder
from dedupkit.embedding.load import shared_embedder
from dedupkit.embedding.pixels import decode_rgb
from dedupkit.embedding.spec import parse_spec
from dedupkit.images.transformations import Transformation
from dedupkit.neighbors import dihedral_pairs
from dedupkit.runfolder.index import RowIndex
from dedupkit.signals import find_signal
from dedupkit.signals.columns import Scanned
from dedupkit.signals.matches import leading
from dedupkit.sources.reread import places_of, read_images
from dedupkit.stages.plan import Job

__all__ = ["different_images", "embedded_copies", "model_for"]

_SIDE = 512
"""Copies have about the web's sizes: at most twice as many pixels on the longer side."""
_SAME = 31  # bits of PDQ, in any orientation: images that are copies of one another already
_LEAST_SIDE = 32
"""Shorter sides are not transformed: of a crop or a rotated copy nothing would be left."""


def model_for(job: Job, name: str) -> Embedder | None:
    """The model of one of the embedders; None where its vectors come from somewhere else."""
    given: Any = job.given.get(name)
    if isinstance(given, Embedder):
        return given
    spec = job.embedders.get(name, "")
    if not spec or parse_spec(spec).given:
        return None
    return shared_embedder(spec, job.computing.device)


def different_images(job: Job, most: int) -> NDArray[np.int64]:
    """At most so many images of the run, drawn by its seed, of which no two have almost the same hash; ascending."""
    scanned = Scanned(job.folder, len(job.shards))
    images = leading(find_signal("exact").labels(scanned))
    images = images[scanned.readable()[images]]
    drawn: NDArray[np.int64] = np.sort(np.random.default_rng([job.computing.seed, 2]).permutation(images)[:most])
    hashed, hashes = find_signal("pdq").rows(scanned, drawn)
    keep = np.ones(len(drawn), bool)
    if len(hashes) > 1:
        keep[np.flatnonzero(hashed)[dihedral_pairs(hashes, _SAME).b]] = False
    return drawn[keep]


def embedded_copies(
    job: Job, model: Embedder, samples: NDArray[np.int64], changes: Callable[[int], Sequence[Transformation]]
) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """Vectors of some images and of copies of them.

    Images that cannot be read again, are too small to be transformed, or that the model fails on are left out.

    Args:
        job: What is computed.
        model: The embedder.
        samples: (n,) ascending, the images.
        changes: The transformations by place among the samples.

    Yields:
        A sample, and the vectors of it and of its copies, (1 + number of copies, d) float32.
    """
    index, place_of = RowIndex(job.folder, len(job.shards)), {int(s): place for place, s in enumerate(samples)}
    for number, here in index.by_shard(samples):
        places = places_of(job.folder.samples(number), number, int(index.starts[number]), here.tolist())
        for place, data in read_images({number: job.shards[number]}, places, failed=lambda _place, _error: None):
            vectors = _encoded(model, data, changes(place_of[place.sample]))
            if vectors is not None:
                yield place.sample, vectors


def _encoded(model: Embedder, data: bytes, changes: Sequence[Transformation]) -> NDArray[np.float32] | None:
    """The vectors of an image and of its copies; None where there are none."""
    try:
        image = decode_rgb(data, _SIDE)
        if min(image.size) < _LEAST_SIDE:
            return None
        image.thumbnail((2 * _SIDE, 2 * _SIDE))
        files = [data, *(change.file(image) for change in changes)]
        pixels = [model.preprocess(decode_rgb(file, model.min_side)) for file in files]
        return model.encode(np.stack(pixels))
    except Exception:  # as in the embed stage, an image that asks for too much, or that a model fails on, costs no run
        return None
