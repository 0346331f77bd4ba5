"""A query image as hash and vector."""

from __future__ import annotations

import threading
from os import PathLike, fspath
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dedupkit.embedding import Embedder, load_embedder
from dedupkit.embedding.fitted import refuse_other_model
from dedupkit.embedding.pixels import decode_rgb
from dedupkit.embedding.spec import parse_spec
from dedupkit.errors import DedupkitError
from dedupkit.hashing import pdq
from dedupkit.images import ImageError, ImageLike, checked_image
from dedupkit.images.orientation import UPRIGHT, turn_of
from dedupkit.memorization.neighbours import Neighbours
from dedupkit.runfolder import RunConfig
from dedupkit.signals.pdq import MIN_PDQ_QUALITY
from dedupkit.sources.memory import file_of

__all__ = [
    "FLAT", "NO_VECTOR", "QueryLike", "embed_one", "first_model", "hash_of", "model_of", "opened",
]  # fmt: skip

QueryLike = ImageLike | str | PathLike[str]

FLAT = "the image is too flat for a perceptual hash (a single colour, a gradient)"
NO_VECTOR = "the model gives the image no vector that can be compared (all zeros, or not finite)"

_one_at_a_time = threading.Lock()  # the limit of the math libraries' threads belongs to the whole process


def opened(image: QueryLike) -> bytes | Image.Image:
    """An image as it was given, pixels as a PIL image, and a file that a path names as its bytes.

    Raises:
        ImageError: An array of another shape or dtype, or an image without pixels.
        DedupkitError: The file cannot be read.
        TypeError: It is neither an image nor a path.
    """
    if isinstance(image, str | PathLike):
        try:
            return Path(image).read_bytes()
        except (OSError, ValueError) as error:
            why = error.strerror if isinstance(error, OSError) else error
            raise DedupkitError(f"{fspath(image)} cannot be read: {why}") from error
    try:
        return checked_image(image)
    except TypeError:
        raise TypeError(
            f"an image is a path, the bytes of a file, a PIL image or an array of uint8, not {type(image).__name__}"
        ) from None


def hash_of(image: ImageLike) -> NDArray[np.uint8] | None:
    """The PDQ hash, (32,) uint8; None for an image that is too flat to have one that says something.

    Raises:
        ImageError: It is no image that can be used.
    """
    try:
        with _one_at_a_time:
            code, quality = pdq(image)
    except (TypeError, ValueError, KeyError, IndexError, OSError) as error:
        raise error if isinstance(error, ImageError) else ImageError(f"no image that can be hashed: {error}") from error
    return code if quality >= MIN_PDQ_QUALITY else None


def embed_one(model: Embedder, image: ImageLike) -> NDArray[np.float32] | None:
    """The vector of one image, (dim,) float32 of unit length; None where the model gives zeros or what is not finite.

    Raises:
        ImageError: It is no image that can be used.
    """
    image = checked_image(image)
    if isinstance(image, Image.Image):
        if image.mode != "RGB" or "transparency" in image.info or turn_of(image) != UPRIGHT:
            # as a file would be read: turned upright, transparency over white, 16 bits to 8
            image = decode_rgb(_stored(image), model.min_side)
    else:
        image = decode_rgb(image, model.min_side)
    vector: NDArray[np.float32] = model.encode(model.preprocess(image)[None])[0]
    return vector if np.isfinite(vector).all() and vector.any() else None


def _stored(image: Image.Image) -> bytes:
    try:
        data: bytes = file_of(image, 0)["bytes"]
    except Exception as error:  # Pillow raises almost anything for an image that breaks off
        raise ImageError(f"no image that can be used: {error or type(error).__name__}") from error
    return data


def first_model(config: RunConfig) -> str | None:
    """The first embedder of a run whose model is known, by name; None where all vectors were given to the run."""
    return next((name for name, spec in config.embedders.items() if not parse_spec(spec).given), None)


def model_of(near: Neighbours, name: str, device: str | None = None) -> Embedder:
    """The model that made the vectors of a run.

    Raises:
        DedupkitError: It was not dedupkit that computed them, the model is another one by now, or it cannot be loaded.
        MissingExtraError: A package is missing.
    """
    spec = near.config.embedders[name]
    if parse_spec(spec).given:
        raise DedupkitError(
            f"the vectors of {name} were given to the run ({spec}), so the model behind them is not known; give it as "
            "embedder="
        )
    refuse_other_model(near.folder, near.config, name)
    return load_embedder(spec, device=device)
