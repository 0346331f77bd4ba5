"""For those who come from imagededup: its function and argument names, its return values, this library's engines.

``PHash().find_duplicates(image_dir=...)`` becomes ``find_duplicates(image_dir=..., method="phash")``. With the
64-bit methods (``phash``, ``dhash``, ``ahash``, ``whash``) hashes and duplicates are those of imagededup 0.3.3, bit
for bit: an image is opened as it opens it, so without its EXIF orientation, and in the same formats. What differs:

* The default method is ``pdq``: 256 bits, compared in all eight orientations of the image. An image too flat for
  it (PDQ quality below 50) duplicates nothing. A map of hashes no longer tells which images those are, so this
  holds for ``image_dir`` only; find_duplicates of an ``encoding_map`` compares all that it is given.
* Files are taken in the order of their names, imagededup takes them as the file system lists them. What
  ``find_duplicates_to_remove`` keeps follows from that order, so here it is the same on every machine.
* There is no ``search_method``, for one exact join serves all sizes, and no ``verbose``.
* Those who compare are threads, those who hash are processes, and a few dozen files are hashed in this one.
* ``plot_duplicates`` with ``outfile`` writes the figure and does not show it, and wrong arguments are ValueErrors.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dedupkit.clustering import keep_set
from dedupkit.engine import Progress, Task, run_tasks
from dedupkit.errors import import_optional
from dedupkit.hashing import pdq, perceptual_hash
from dedupkit.images import luma_of, open_image
from dedupkit.neighbors.hamming.dihedral import dihedral_pairs
from dedupkit.neighbors.hamming.join import Pairs, hamming_pairs
from dedupkit.signals.pdq import MIN_PDQ_QUALITY

__all__ = ["encode_image", "encode_images", "find_duplicates", "find_duplicates_to_remove", "plot_duplicates"]

Method = Literal["pdq", "phash", "dhash", "ahash", "whash"]
Code = tuple[str, int]
"""A hash in hex, and its quality, 0 to 100; only PDQ knows less than 100."""

_FORMATS = ("JPEG", "PNG", "BMP", "MPO", "PPM", "TIFF", "GIF", "WEBP")  # those that imagededup opens
_FILES_PER_TASK = 64
_COLUMNS = 4
_MOST_PLOTTED = 40
_PLOTTED_SIDE = 512

_log = logging.getLogger(__name__)


def encode_images(
    image_dir: str | Path | None = None,
    recursive: bool = False,
    num_enc_workers: int | None = None,
    *,
    method: Method = "pdq",
) -> dict[str, str]:
    """Hash every image of a folder.

    Args:
        image_dir: the folder.
        recursive: also look into its subfolders.
        num_enc_workers: processes; as many as there are cores by default, 0 or 1 for this one alone.
        method: ``pdq``, ``phash``, ``dhash``, ``ahash`` or ``whash``.

    Returns:
        File name, relative to ``image_dir``, to the hash in hex: 64 digits for ``pdq``, else 16; in the order of the
        names. Files that are no image are left out, with a warning in the log; hidden files without one.

    Raises:
        ValueError: no such folder, or an unknown method.
        WorkerDied: a process was killed twice over the same files.
    """
    codes = _encode_folder(image_dir, recursive, num_enc_workers, method)
    return {name: code for name, (code, _) in codes.items()}


def encode_image(
    image_file: str | Path | None = None, image_array: NDArray[np.uint8] | None = None, *, method: Method = "pdq"
) -> str | None:
    """Hash one image.

    Args:
        image_file: its path, or
        image_array: its pixels, (h, w) or (h, w, 3) uint8.
        method: as for :func:`encode_images`.

    Returns:
        The hash in hex; None, with a warning in the log, where the file is no image.

    Raises:
        ValueError: neither of the two, no such file, an array of another shape or dtype, or an unknown method.
    """
    _check_method(method)
    if image_file is not None:
        if not Path(image_file).exists():
            raise ValueError(f"image_file {image_file} does not exist")
        code = _encode_file(Path(image_file), method)
        if isinstance(code, str):
            _warn(Path(image_file), code)
            return None
        return code[0]
    if image_array is None:
        raise ValueError("give image_file or image_array")
    if not _is_picture(image_array):
        raise ValueError("image_array must be (h, w) or (h, w, 3) uint8, not empty")
    return _encode(Image.fromarray(image_array), method)[0]


def find_duplicates(
    image_dir: str | Path | None = None,
    encoding_map: Mapping[str, str] | None = None,
    max_distance_threshold: int | None = None,
    scores: bool = False,
    outfile: str | Path | None = None,
    *,
    recursive: bool = False,
    num_enc_workers: int | None = None,
    num_dist_workers: int | None = None,
    method: Method = "pdq",
) -> dict[str, list[str]] | dict[str, list[tuple[str, int]]]:
    """Find the duplicates of every image of a folder, or of a map of hashes.

    Args:
        image_dir: the folder, or
        encoding_map: file name to hash, from :func:`encode_images` with the same method.
        max_distance_threshold: the largest Hamming distance of duplicates, in bits; 31 for ``pdq``, else 10 by
            default.
        scores: return each duplicate with its distance.
        outfile: a JSON file to write the result to, sorted by name.
        recursive: also look into subfolders of ``image_dir``.
        num_enc_workers: processes that hash, as for :func:`encode_images`.
        num_dist_workers: threads that compare; as many as there are cores by default.
        method: as for :func:`encode_images`.

    Returns:
        Every file name to its duplicates, the nearest first: names, or (name, distance) where ``scores`` is true. An
        image without duplicates has an empty list, and if a has b, then b has a.

    Raises:
        TypeError: a threshold that is no int.
        ValueError: not one of ``image_dir`` and ``encoding_map``, no such folder, a threshold out of range, an unknown
            method, or a hash that is not of the method's length.
    """
    names, pairs = _find_pairs(
        image_dir, encoding_map, max_distance_threshold, recursive, num_enc_workers, num_dist_workers, method
    )
    nearest_first = np.argsort(pairs.distance, kind="stable")
    scored: dict[str, list[tuple[str, int]]] = {name: [] for name in names}
    columns = (column[nearest_first].tolist() for column in (pairs.a, pairs.b, pairs.distance))
    for a, b, distance in zip(*columns, strict=True):
        scored[names[a]].append((names[b], distance))
        scored[names[b]].append((names[a], distance))
    found = scored if scores else {name: [other for other, _ in others] for name, others in scored.items()}
    _write_json(found, outfile)
    return found


def find_duplicates_to_remove(
    image_dir: str | Path | None = None,
    encoding_map: Mapping[str, str] | None = None,
    max_distance_threshold: int | None = None,
    outfile: str | Path | None = None,
    recursive: bool = False,
    num_enc_workers: int | None = None,
    num_dist_workers: int | None = None,
    *,
    method: Method = "pdq",
) -> list[str]:
    """List the files to remove, so that no two duplicates stay and each file that goes has a duplicate that stays.

    The files are walked in order, by name in a folder and as listed in a map, and one is kept unless it duplicates
    one kept before it (:func:`dedupkit.clustering.keep_set`). So nothing goes because of a chain: where a and b are
    duplicates, and b and c, but not a and c, only b goes. imagededup's loop comes to the same set for the same order,
    and returns it in no order.

    Args:
        image_dir: as for :func:`find_duplicates`, like all the others.
        encoding_map: file name to hash.
        max_distance_threshold: in bits.
        outfile: a JSON file to write the list to.
        recursive: also look into subfolders.
        num_enc_workers: processes that hash.
        num_dist_workers: threads that compare.
        method: of hashing.

    Returns:
        Names of files to remove, in that order. Nothing is removed from disk.

    Raises:
        TypeError: as for :func:`find_duplicates`.
        ValueError: as for :func:`find_duplicates`.
    """
    names, pairs = _find_pairs(
        image_dir, encoding_map, max_distance_threshold, recursive, num_enc_workers, num_dist_workers, method
    )
    kept, _ = keep_set(pairs.a, pairs.b, np.arange(len(names)))
    removed = [names[row] for row in np.flatnonzero(~kept)]
    _write_json(removed, outfile)
    return removed


def plot_duplicates(
    image_dir: str | Path, duplicate_map: Mapping[str, Sequence[Any]], filename: str, outfile: str | Path | None = None
) -> None:
    """Plot an image above its duplicates, the nearest first, each with its score where the map has scores.

    Args:
        image_dir: the folder that the map's names are relative to.
        duplicate_map: from :func:`find_duplicates`, with or without scores, also as read back from its ``outfile``.
        filename: the key of ``duplicate_map`` to plot. Of very many duplicates the first 40 are shown.
        outfile: an image file to write the figure to; without it the figure is shown, as matplotlib is set up.

    Raises:
        MissingExtraError: matplotlib is not installed.
        ValueError: no such folder, a map that is no mapping, a name that is not in it or has no duplicates, or a file
            that is no longer an image.
        OSError: a file that cannot be read.
    """
    folder = _existing_folder(image_dir)
    if not isinstance(duplicate_map, Mapping):
        raise ValueError("duplicate_map must be what find_duplicates returns: a dict of file names")
    if filename not in duplicate_map:
        raise ValueError(f"{filename!r} is no key of duplicate_map")
    duplicates = duplicate_map[filename]
    if not duplicates:
        raise ValueError(f"{filename!r} has no duplicates to plot")
    plt = import_optional("matplotlib.pyplot", extra="notebook")

    shown = duplicates[:_MOST_PLOTTED]
    count = f"{len(duplicates)} duplicate" + ("" if len(duplicates) == 1 else "s")
    count += f", {len(shown)} shown" if len(shown) < len(duplicates) else ""
    rows = -(-len(shown) // _COLUMNS)
    figure = plt.figure(figsize=(10, 4 + 2.7 * rows), layout="constrained")
    try:
        grid = figure.add_gridspec(rows + 1, _COLUMNS, height_ratios=[1.5, *[1.0] * rows])
        _draw(figure.add_subplot(grid[0, 1:3]), folder / filename, f"{filename}\n{count}", size=10)
        for place, entry in enumerate(shown):
            name, score = (entry, None) if isinstance(entry, str) else entry
            title = name if score is None else f"{name}\ndistance {score:.3g}"
            _draw(figure.add_subplot(grid[1 + place // _COLUMNS, place % _COLUMNS]), folder / name, title, size=7)
        if outfile is None:
            plt.show()
        else:
            figure.savefig(outfile)
    finally:
        plt.close(figure)


def _draw(axes: Any, path: Path, title: str, size: int) -> None:
    image = open_image(path.read_bytes())
    if image.mode.startswith(("I", "F")):  # more than 8 bits a value
        image = Image.fromarray(luma_of(image).plane)
    image = image.convert("RGBA")
    image.thumbnail((_PLOTTED_SIDE, _PLOTTED_SIDE))
    axes.imshow(np.asarray(image))
    axes.set_title(title, fontsize=size, wrap=True, parse_math=False)
    axes.axis("off")


def _find_pairs(
    image_dir: str | Path | None,
    encoding_map: Mapping[str, str] | None,
    threshold: int | None,
    recursive: bool,
    num_enc_workers: int | None,
    num_dist_workers: int | None,
    method: Method,
) -> tuple[list[str], Pairs]:
    """The names, and the pairs of their positions that are duplicates, sorted by (a, b)."""
    bits = 8 * _check_method(method)
    radius = (31 if method == "pdq" else 10) if threshold is None else threshold
    if not isinstance(radius, int):
        raise TypeError(f"max_distance_threshold must be an int, not {radius!r}")
    if not 0 <= radius <= bits:
        raise ValueError(f"max_distance_threshold must be from 0 to {bits} for method {method!r}, not {radius}")
    if (image_dir is None) == (encoding_map is None):
        raise ValueError("give either image_dir or encoding_map")
    if encoding_map is None:
        codes = _encode_folder(image_dir, recursive, num_enc_workers, method)
    else:
        codes = {name: (code, 100) for name, code in encoding_map.items()}

    hashes = np.frombuffer(b"".join(_parse(name, code, method) for name, (code, _) in codes.items()), np.uint8)
    rows = np.flatnonzero([quality >= MIN_PDQ_QUALITY for _, quality in codes.values()])
    join = dihedral_pairs if method == "pdq" else hamming_pairs
    pairs = join(hashes.reshape(-1, bits // 8)[rows], radius, workers=_workers(num_dist_workers))
    return list(codes), Pairs(rows[pairs.a], rows[pairs.b], pairs.distance)


def _parse(name: str, code: str, method: Method) -> bytes:
    length = _check_method(method)
    try:
        parsed = bytes.fromhex(code)
    except (TypeError, ValueError):
        parsed = b""
    if len(parsed) != length:
        raise ValueError(f"a hash of method {method!r} has {2 * length} hex digits, but {name!r} has {code!r}")
    return parsed


def _encode_folder(
    image_dir: str | Path | None, recursive: bool, num_enc_workers: int | None, method: Method
) -> dict[str, Code]:
    _check_method(method)
    folder = _existing_folder(image_dir)
    found = (path for path in folder.glob("**/*" if recursive else "*") if not path.name.startswith("."))
    names = sorted(str(path.relative_to(folder)) for path in found if path.is_file())
    batches = [names[start : start + _FILES_PER_TASK] for start in range(0, len(names), _FILES_PER_TASK)]
    tasks = []
    for number, batch in enumerate(batches):
        call = partial(encode_files, str(folder), batch, method)
        tasks.append(Task("encode", f"{number:06d}", call, key="", label=f"{batch[0]} and after"))
    with TemporaryDirectory() as out, Progress("encode", len(tasks), "img") as progress:
        results = run_tasks(
            tasks,
            Path(out),
            workers=_workers(num_enc_workers),
            on_done=lambda _, result: progress.advance(len(result["codes"])),
        )
    codes: dict[str, Code] = {}
    for name, code in zip(names, chain.from_iterable(result["codes"] for result in results), strict=True):
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


def _warn(path: Path, reason: str) -> None:
    _log.warning("%s is left out: %s", path, reason)


def _check_method(method: str) -> int:
    """The length of the method's hashes in bytes."""
    if method not in get_args(Method):
        raise ValueError(f"unknown method {method!r}; known: {', '.join(get_args(Method))}")
    return 32 if method == "pdq" else 8


def _existing_folder(image_dir: str | Path | None) -> Path:
    if image_dir is None or not Path(image_dir).is_dir():
        raise ValueError(f"image_dir must be an existing folder, but is {image_dir}")
    return Path(image_dir)


def _is_picture(array: object) -> bool:
    if not isinstance(array, np.ndarray) or array.dtype != np.uint8 or array.size == 0:
        return False
    return array.ndim == 2 or (array.ndim == 3 and array.shape[2] == 3)


def _workers(count: int | None) -> int:
    return (os.cpu_count() or 1) if count is None else max(1, count)


def _write_json(result: object, outfile: str | Path | None) -> None:
    if outfile is not None:
        Path(outfile).write_text(json.dumps(result, indent=2, sort_keys=True), "utf-8")
