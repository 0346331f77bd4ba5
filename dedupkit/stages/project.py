"""The stage that fits projections to a run's own images, and says from which cosine on their copies lie."""

from __future__ import annotations

import filecmp
import logging
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dedupkit.embedding.fitted import fitted_specs
from dedupkit.embedding.keys import embedder_key, projection_file
from dedupkit.embedding.precomputed import load_precomputed
from dedupkit.embedding.projection import fit_projection, floor_of, load_projection
from dedupkit.embedding.separation import held_out, separation
from dedupkit.embedding.spec import LEAST_IMAGES, parse_spec
from dedupkit.engine import Progress, cache_key
from dedupkit.engine.marker import read_marker, write_marker
from dedupkit.engine.progress import LOGGER
from dedupkit.errors import DedupkitError
from dedupkit.hashing.pdq import one_math_thread
from dedupkit.images.transformations import TRANSFORMATIONS, Transformation
from dedupkit.runfolder import RunFolder
from dedupkit.stages.copies import different_images, embedded_copies, model_for
from dedupkit.stages.plan import Job
from dedupkit.store import atomic_path, remove_tree

__all__ = ["COPIES", "fit_projections"]

_RECALL = 0.99
"""Share of the copies that thresholds keep where nobody asked for another."""
COPIES = 8
"""Copies of an image: the transformations take turns, so that all of them are in the sample."""
_FORMAT = 1  # raise it when the same sample gives another projection


def fit_projections(job: Job, scanned: Sequence[str], recall: float | None) -> tuple[dict[str, str], dict[str, float]]:
    """Fit what the embedders ask for; what is there already stays.

    Args:
        job: What is to be computed; its samples are scanned.
        scanned: Digests of what was scanned.
        recall: Share of the copies that candidates for verification shall hold; None where none was asked for.

    Returns:
        The specifications by name, projections named by their files; and by name the cosine from which on
        candidates for verification lie, where a fit says so.

    Raises:
        DedupkitError: ``project=copies`` for vectors that have no model.
    """
    floors: dict[str, float] = {}
    for name, text in job.embedders.items():
        spec = parse_spec(text)
        if spec.scheme == "precomputed" and spec.fits:
            load_precomputed(text)  # says what is needed instead
        if spec.projection is not None:
            _keep(job.folder, name, projection_file(spec))
            if recall is not None:
                floors[name] = load_projection(projection_file(spec)).floor(recall)
        elif spec.fits or recall is not None:
            floor = _fit(replace(job, embedders={name: spec.projected(None)}), name, text, scanned, recall or _RECALL)
            if floor is not None:
                floors[name] = floor
    return fitted_specs(job.folder, job.embedders), floors


def _keep(folder: RunFolder, name: str, file: Path) -> None:
    """Keep a projection that was named, so that the run can be used where its file is gone."""
    own = folder.projection(name)
    if not own.is_file() or not filecmp.cmp(file, own, shallow=False):
        with atomic_path(own) as temporary:
            shutil.copyfile(file, temporary)
        folder.push([own])


def _fit(job: Job, name: str, text: str, scanned: Sequence[str], recall: float) -> float | None:
    """Fit one embedder's projection, or its floor alone; returns the floor."""
    spec, folder = parse_spec(text), job.folder
    asked = [spec.fits, spec.dims, spec.sample, job.computing.seed, recall, [kind.name for kind in TRANSFORMATIONS]]
    key = cache_key([_FORMAT, embedder_key(job.embedders[name]), list(scanned), *asked])
    path, marker = folder.projection(name), folder.projection_marker(name)
    done = read_marker(marker)
    if done is None or done.key != key or not done.holds(folder.path):
        model = model_for(job, name)
        if model is None:
            return None
        remove_tree(marker)
        remove_tree(path)
        facts: dict[str, Any] = {"fitted": False, "recall": recall, "sample": spec.sample, "seed": job.computing.seed}
        copies = _Copies.of(job, model, name, spec.sample)
        facts |= {"images": len(copies.originals), "copies": len(copies.copies), "left_out": copies.left_out}
        try:
            with one_math_thread():
                facts |= copies.measured(recall) if not spec.fits else copies.fitted(recall, spec.dims, model, path)
        except DedupkitError as error:
            facts["reason"] = str(error)
            instead = "no projection" if spec.fits else "the floor that the descriptor states"
            logging.getLogger(LOGGER).warning("%s takes %s: %s", name, instead, error)
        written = [path] if facts["fitted"] else []
        write_marker(marker, key, facts, folder.path, written)
        folder.push([*written, marker])  # other machines embed with it
        done = read_marker(marker)
    return None if done is None else done.result.get("floor")


@dataclass(frozen=True, slots=True, eq=False)
class _Copies:
    """Vectors of images and of copies of them.

    Attributes:
        originals: (n, d) float32.
        copies: (m, d) float32.
        original: (m,) int64, place of each copy's original.
        left_out: Number of images of the sample that could not be transformed or embedded.
    """

    originals: NDArray[np.float32]
    copies: NDArray[np.float32]
    original: NDArray[np.int64]
    left_out: int

    @classmethod
    def of(cls, job: Job, model: Any, name: str, most: int) -> _Copies:
        """Draw images by the run's seed, transform and embed them."""
        samples = different_images(job, most)
        originals: list[NDArray[np.float32]] = []
        copies, original = [np.zeros((0, model.dim), np.float32)], [np.zeros(0, np.int64)]
        with Progress(f"copies for {name}", len(samples), "img", path=job.folder.progress) as progress:
            for _, rows in embedded_copies(job, model, samples, _changes):
                usable = np.asarray(np.isfinite(rows).all(axis=1) & rows.any(axis=1))
                if usable[0] and usable[1:].any():
                    copies.append(rows[1:][usable[1:]])
                    original.append(np.full(len(copies[-1]), len(originals)))
                    originals.append(rows[0])
                progress.advance(1)
        stacked = np.stack(originals) if originals else copies[0]
        return cls(stacked, np.concatenate(copies), np.concatenate(original), len(samples) - len(originals))

    def measured(self, recall: float) -> dict[str, Any]:
        """How well the vectors tell copies from other images, and the floor.

        Raises:
            DedupkitError: Too few images.
        """
        self._check()
        own = np.einsum("ij,ij->i", self.copies, self.originals[self.original])
        before = separation(self.originals, self.copies, self.original, recall=recall)
        return {"before": before.to_json(), "floor": floor_of(own, recall)}

    def fitted(self, recall: float, dims: int, model: Any, path: Any) -> dict[str, Any]:
        """Fit and write a projection; what it gains, and the floor.

        Raises:
            DedupkitError: Too few images, or images that all have one vector.
        """
        self._check()
        arrays = (self.originals, self.copies, self.original)
        before, after, own = held_out(*arrays, dims=dims, recall=recall)
        kept = own.astype(np.float16).astype(np.float32)  # as the file holds them
        projection = replace(fit_projection(*arrays, dims=dims, model=model.key), copies=kept)
        projection.save(path)
        sides = {"before": before.to_json(), "after": after.to_json()}
        return {"fitted": True, "dims": [model.dim, projection.dim], "floor": projection.floor(recall), **sides}

    def _check(self) -> None:
        if len(self.originals) < LEAST_IMAGES:
            raise DedupkitError(
                f"a fit needs {LEAST_IMAGES} different images that can be transformed, and there are "
                f"{len(self.originals)}"
            )


def _changes(place: int) -> list[Transformation]:
    """The transformations of one image of the sample."""
    return [TRANSFORMATIONS[(COPIES * place + turn) % len(TRANSFORMATIONS)] for turn in range(COPIES)]
