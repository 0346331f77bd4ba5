"""Projections of vectors, learned from transformed copies: what edits change counts less than what tells images apart.

Copies of an image differ in few directions, images differ in the others. With D the differences between copies and
their originals, the within-copy covariance C = DᵀD/n is shrunk towards its trace, and vectors are multiplied by its
inverse root; a principal component analysis of what comes out keeps the directions in which images differ most. Both
are closed forms: no gradient, seconds of work. The whitening is that of Mikolajczyk and Matas ("Improving descriptors
for fast tree matching by optimal linear projection", ICCV 2007), who learn it from matching patches; Radenović, Tolias
and Chum (IEEE TPAMI 41, 2018, arXiv:1711.02512) take pairs of images for the same purpose. Pizzi et al. (SSCD, 2022,
arXiv:2202.10261) whiten a copy descriptor by principal components of a background alone.
"""

from __future__ import annotations

import hashlib
import math
import zipfile
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dedupkit.embedding.embedder import Vectors, unit_rows
from dedupkit.errors import DedupkitError
from dedupkit.store import atomic_path

__all__ = ["Projection", "fit_projection", "floor_of", "load_projection"]

_FORMAT = 1
_LEAST = 0.02  # of shrinking, so that an inverse root exists


@dataclass(frozen=True, slots=True, eq=False)
class Projection:
    """A linear map of the vectors of one model.

    Attributes:
        mean: (d,) float32, what is subtracted from a vector of unit length.
        matrix: (d, k) float32.
        model: Key of the embedder that it was fitted for; empty where vectors came without one.
        copies: (m,) float32 of float16's precision, ascending: cosines of copies and originals, projected by a fit
            that did not know these images. Their quantiles say which threshold keeps which share of the copies.
    """

    mean: NDArray[np.float32]
    matrix: NDArray[np.float32]
    model: str = ""
    copies: NDArray[np.float32] = field(default_factory=lambda: np.zeros(0, np.float32))

    def __call__(self, vectors: NDArray[np.floating]) -> Vectors:
        """Project vectors.

        Args:
            vectors: (n, d), of any length.

        Returns:
            (n, k) float32 of unit length; a row of zeros or with NaN, which stands for no vector, stays one.

        Raises:
            DedupkitError: Vectors of another dimension.
        """
        if vectors.ndim != 2 or vectors.shape[1] != len(self.mean):
            raise DedupkitError(
                f"the projection is for vectors of {len(self.mean)} values, these are {vectors.shape}: it was fitted "
                "for another model"
            )
        rows = unit_rows(np.asarray(vectors, np.float32))
        projected: Vectors = unit_rows(((rows - self.mean) @ self.matrix).astype(np.float32, copy=False))
        projected[~rows.any(axis=1)] = 0
        return projected

    @property
    def dim(self) -> int:
        """Number of values of a projected vector."""
        return int(self.matrix.shape[1])

    def digest(self) -> str:
        """A fingerprint of its values, 16 hexadecimal digits."""
        values = self.mean.tobytes() + np.ascontiguousarray(self.matrix).tobytes()
        return hashlib.sha256(values).hexdigest()[:16]

    def floor(self, recall: float) -> float:
        """The highest hundredth at or above which at least this share of the copies lie, in [-1, 1]."""
        return floor_of(self.copies, recall)

    def save(self, path: Path) -> None:
        """Write the projection as a ``.npz`` file; the same projection gives the same bytes."""
        arrays = {
            "format": np.array(_FORMAT),
            "mean": self.mean,
            "matrix": _short(self.matrix),
            "model": np.array(self.model),
            "copies": self.copies.astype(np.float16),
        }
        with atomic_path(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
            for name, array in arrays.items():
                with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w") as stream:  # no time of day
                    np.lib.format.write_array(stream, array, allow_pickle=False)


def load_projection(path: Path) -> Projection:
    """Read what :meth:`Projection.save` wrote.

    Raises:
        DedupkitError: There is no such file, or it holds no projection.
    """
    if not path.is_file():
        raise DedupkitError(f"no such file: {path}, named as a projection")
    try:
        with np.load(path, allow_pickle=False) as arrays:
            if int(arrays["format"]) > _FORMAT:
                raise DedupkitError(f"{path} was written by a later version of dedupkit; update dedupkit")
            mean, matrix, copies = (arrays[name].astype(np.float32) for name in ("mean", "matrix", "copies"))
            model = str(arrays["model"])
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise DedupkitError(f"{path} holds no projection that dedupkit has fitted") from error
    if mean.ndim != 1 or matrix.ndim != 2 or len(matrix) != len(mean) or not matrix.size or copies.ndim != 1:
        raise DedupkitError(f"{path} holds no projection that dedupkit has fitted")
    if not (np.isfinite(matrix).all() and np.isfinite(mean).all() and np.isfinite(copies).all()):
        raise DedupkitError(f"{path} is damaged: not all of its values are finite")
    return Projection(mean, matrix, model, copies)


def fit_projection(
    originals: NDArray[np.floating],
    copies: NDArray[np.floating],
    original: NDArray[np.integer],
    *,
    dims: int = 512,
    model: str = "",
) -> Projection:
    """Fit a projection to the vectors of images and of transformed copies of them.

    Args:
        originals: (n, d) vectors of different images.
        copies: (m, d) vectors of copies.
        original: (m,) place of each copy's original among them.
        dims: Number of values of a projected vector at most; there are no more than the vectors span.
        model: Key of the embedder, kept with the projection.

    Returns:
        The projection, without cosines of copies.

    Raises:
        DedupkitError: Fewer than two usable images, images that all have one vector, or no copies.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> images, edits = rng.normal(size=(200, 8)), rng.normal(size=(200, 8)) * ([5] * 4 + [0.1] * 4)
        >>> fitted = fit_projection(images, images + edits, np.arange(200), dims=4)
        >>> fitted.matrix.shape, bool(np.abs(fitted.matrix[4:]).mean() > 3 * np.abs(fitted.matrix[:4]).mean())
        ((8, 4), True)
    """
    ours, theirs = (unit_rows(np.asarray(rows, np.float32)).astype(np.float64) for rows in (originals, copies))
    good = _usable(ours)
    held = _usable(theirs) & good[original]
    if good.sum() < 2 or not held.any():
        raise DedupkitError(f"{int(good.sum())} images and {int(held.sum())} copies with a vector cannot be fitted")
    mean = ours[good].mean(axis=0)
    differences = theirs[held] - ours[original[held]]
    spread = np.concatenate([ours[good], theirs[held]]) - mean
    if not (spread**2).sum() > 1e-9 * len(spread):
        raise DedupkitError("all images have the same vector, so there is nothing that tells them apart")
    within = _shrunk(differences, original[held])
    values, vectors = np.linalg.eigh(within)
    root = vectors / np.sqrt(values) @ vectors.T
    whitened = spread @ root
    strength, directions = np.linalg.eigh(whitened.T @ whitened)
    rank = int((strength > 1e-9 * strength[-1]).sum())
    matrix = root @ directions[:, ::-1][:, : max(1, min(dims, rank))]
    return Projection(mean.astype(np.float32), _short(_signed(matrix)).astype(np.float32), model)


def _shrunk(differences: NDArray[np.float64], image: NDArray[np.integer]) -> NDArray[np.float64]:
    """The covariance of differences, shrunk towards a multiple of the identity of the same trace.

    By how much is Ledoit and Wolf's estimate ("A well-conditioned estimator for large-dimensional covariance matrices",
    Journal of Multivariate Analysis 88, 2004), with an image in place of an observation: its copies are no independent
    ones.

    Args:
        differences: (m, d) copies less their originals.
        image: (m,) the image that each belongs to.
    """
    covariance = differences.T @ differences / len(differences)
    level = np.trace(covariance) / len(covariance)
    if not level > 0:  # copies have the vectors of their originals: nothing is to be weighed down
        return np.eye(len(covariance))
    groups = np.split(differences[np.argsort(image, kind="stable")], np.flatnonzero(np.diff(np.sort(image))) + 1)
    size = (covariance**2).sum()
    error = 0.0  # of the mean of the images' own covariances
    for rows in groups:
        share = len(groups) / len(differences)
        error += share**2 * ((rows @ rows.T) ** 2).sum() - 2 * share * ((rows @ covariance) * rows).sum() + size
    distance = size - level**2 * len(covariance)
    amount = min(1.0, error / len(groups) ** 2 / distance) if distance > 0 else 1.0
    amount = max(amount, _LEAST)
    shrunk: NDArray[np.float64] = (1 - amount) * covariance + amount * level * np.eye(len(covariance))
    return shrunk


def floor_of(copies: NDArray[np.float32], recall: float) -> float:
    """The highest hundredth at or above which at least a share of some cosines lie."""
    if not len(copies):
        return -1.0
    ordered = np.sort(copies)
    lost = int(np.floor((1 - recall) * len(ordered) + 1e-9))
    return max(-1.0, math.floor(float(ordered[lost]) * 100 - 1e-4) / 100)


def _usable(rows: NDArray[np.float64]) -> NDArray[np.bool_]:
    return np.asarray(np.isfinite(rows).all(axis=1) & rows.any(axis=1), bool)


def _signed(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """Columns whose largest entry is positive: eigenvectors have no sign of their own."""
    largest = matrix[np.abs(matrix).argmax(axis=0), np.arange(matrix.shape[1])]
    return np.asarray(matrix * np.sign(largest))


def _short(matrix: NDArray[np.floating]) -> NDArray[np.float16]:
    """As float16, scaled to what that holds best: projected vectors get unit length anyway."""
    return np.asarray(matrix / np.abs(matrix).max(), np.float16)
