"""Hashes of one image and of a folder, as imagededup takes them."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dedupkit.engine import Task, run_tasks
from dedupkit.hashing import pdq, perceptual_hash
from dedupkit.interop.imagededup.arguments import Method, check_method, existing_folder, progress_bar, workers

__all__ = ["Code", "encode_files", "encode_folder", "encode_image", "encode_images"]

Code = tuple[str, int]
"""A hash in hex, and its quality from 0 to 100; only PDQ knows less than 100."""

_FORMATS = ("JPEG", "PNG", "BMP", "MPO", "PPM", "TIFF", "GIF", "WEBP")  # those that imagededup opens
_FILES_PER_TASK = 64

_log = logging.getLogger("dedupkit.interop.imagededup")


def encode_images(
    image_dir: str | Path | None = None,
    recursive: bool = False,
    num_enc_workers: int | None = None,
    *,
    method: Method = "pdq",
    verbose: bool = True,
) -> dict[str, str]:
    """Hash every image of a folder.

    Args:
        image_dir: Folder of images.
        recursive: Also look into its subfolders.
        num_enc_workers: Number of processes; by default one for each core that this process may use, 0 or 1 for the
            calling process alone.
        method: ``pdq``, ``phash``, ``dhash``, ``ahash`` or ``whash``.
        verbose: Show a progress bar, in a terminal or a notebook.

    Returns:
        File name, relative to ``image_dir``, to the hash in hex: 64 digits for ``pdq``, else 16; in the order of the
        names. Files that are no image are left out with a warning in the log, hidden files without one.

    Raises:
        ValueError: No such folder, or an unknown method.
        WorkerDied: A process was killed twice over the same files.
    """
    codes = encode_folder(image_dir, recursive, num_enc_workers, method, verbose)
    return {name: code for name, (code, _) in codes.items()}


def encode_image(
    image_file: str | Path | None = None, image_array: NDArray[Any] | None = None, *, method: Method = "pdq"
) -> str | None:
    """Hash one image.

    Args:
        image_file: Path of the image. Where there is no such file, ``image_array`` is taken.
        image_array: Pixels, (h, w) or (h, w, 3). Numbers other than uint8 are cast to it as imagededup casts them,
            with a RuntimeWarning where that changes a value.
        method: As for :func:`encode_images`.

    Returns:
        The hash in hex; None, with a warning in the log, where the file is no image.

    Raises:
        ValueError: Neither a file nor an array, an array of another shape or without numbers, or an unknown method.

    >>> import numpy as np
    >>> encode_image(image_array=np.tile(np.arange(64, dtype=np.uint8), (64, 1)), method="dhash")
    'ffffffffffffffff'
    """
    check_method(method)
    if image_file is not None and Path(image_file).exists():
        code = _encode_file(Path(image_file), method)
        if isinstance(code, str):
            _warn(Path(image_file), code)
            return None
        return code[0]
    if image_array is None:
        raise ValueError("give image_file or image_array" if image_file is None else f"{image_file} does not exist")
    return _encode(Image.fromarray(_as_uint8(image_array)), method)[0]


def encode_folder(
    image_dir: str | Path | None, recursive: bool, num_enc_workers: int | None, method: Method, verbose: bool
) -> dict[str, Code]:
    """As :func:`encode_images`, with the quality of each hash."""
    check_method(method)
    folder = existing_folder(image_dir)
    found = (path for path in folder.glob("**/*" if recursive else "*") if not path.name.startswith("."))
    names = sorted(str(path.relative_to(folder)) for path in found if path.is_file())
    tasks: list[Task] = []
    for start in range(0, len(names), _FILES_PER_TASK):
        batch = names[start : start + _FILES_PER_TASK]
        call = partial(encode_files, str(folder), batch, method)
        tasks.append(Task("encode", f"{len(tasks):06d}", call, key="", label=f"{batch[0]} and after"))
    with TemporaryDirectory() as out, progress_bar("hashing", len(names), verbose) as bar:
        done = run_tasks(
            tasks,
            Path(out),
            workers=workers(num_enc_workers),
            on_done=lambda _, result: bar.update(len(result["codes"])),
        )
    codes: dict[str, Code] = {}
    for name, code in zip(names, chain.from_iterable(result["codes"] for result in done), strict=True):
        if isinstance(code, str):
            _warn(folder / name, code)
        else:
            codes[name] = code
    return codes


def encode_files(folder: str, names: Sequence[str], method: Method) -> dict[str, list[Code | str]]:
    """Hash some files of a folder; a task of the engine.

    Returns:
        ``codes``: for each file its hash and quality, or why it has none.
    """
    return {"codes": [_encode_file(Path(folder, name), method) for name in names]}


def _encode_file(path: Path, method: Method) -> Code | str:
    """A hash and its quality, or why the file has none."""
    try:
        if method == "pdq":
            return _encode(path.read_bytes(), method)
        with Image.open(path) as image:
            if image.format not in _FORMATS:
                return f"imagededup opens no {image.format}"
            return _encode(image, method)
    except Exception as error:  # decoders raise almost anything on hostile bytes
        return f"{type(error).__name__}: {error}".encode("utf-8", "backslashreplace").decode()


def _encode(image: bytes | Image.Image, method: Method) -> Code:
    if method == "pdq" or isinstance(image, bytes):  # the other methods need Pillow's view of the file
        code, quality = pdq(image)
        return code.tobytes().hex(), quality
    return perceptual_hash(image, f"{method}_imagededup").tobytes().hex(), 100


def _as_uint8(array: object) -> NDArray[np.uint8]:
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "buif" or array.size == 0:
        raise ValueError("image_array must be a NumPy array of numbers, not empty")
    if array.ndim != 2 and not (array.ndim == 3 and array.shape[2] == 3):
        raise ValueError(f"image_array must be (h, w) or (h, w, 3), not {array.shape}")
    with np.errstate(invalid="ignore"):
        cast = array.astype(np.uint8)
    if array.dtype != np.uint8 and not np.array_equal(cast, array):
        warnings.warn(
            f"image_array holds {array.dtype} values that uint8 does not; scale them to whole numbers from 0 to 255",
            RuntimeWarning,
            stacklevel=3,
        )
    return cast


def _warn(path: Path, reason: str) -> None:
    _log.warning("%s is left out: %s", path, reason)
