"""Duplicates within a folder or a map of hashes, and the files to remove."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dedupkit.clustering import keep_set
from dedupkit.interop.imagededup.arguments import Method, check_method, progress_bar, workers
from dedupkit.interop.imagededup.encoding import encode_folder
from dedupkit.neighbors.hamming.dihedral import dihedral_pairs
from dedupkit.neighbors.hamming.join import Pairs, hamming_pairs
from dedupkit.signals.pdq import MIN_PDQ_QUALITY

__all__ = ["find_duplicates", "find_duplicates_to_remove"]


def find_duplicates(
    image_dir: str | Path | None = None,
    encoding_map: Mapping[str, str] | None = None,
    max_distance_threshold: int | None = None,
    scores: bool = False,
    outfile: str | Path | bool | None = None,
    search_method: str | None = None,
    recursive: bool = False,
    num_enc_workers: int | None = None,
    num_dist_workers: int | None = None,
    *,
    method: Method = "pdq",
    verbose: bool = True,
) -> dict[str, list[str]] | dict[str, list[tuple[str, int]]]:
    """Find the duplicates of every image of a folder, or of a map of hashes.

    Args:
        image_dir: Folder of images; or
        encoding_map: File name to hash, from :func:`encode_images` with the same method.
        max_distance_threshold: Largest Hamming distance of duplicates, in bits; by default 31 for ``pdq``, else 10.
        scores: Return each duplicate with its distance.
        outfile: JSON file for the result, sorted by name; none where it is false.
        search_method: Ignored.
        recursive: Also look into subfolders of ``image_dir``.
        num_enc_workers: Number of hashing processes, as for :func:`encode_images`.
        num_dist_workers: Number of comparing threads; by default one for each core that this process may use.
        method: As for :func:`encode_images`.
        verbose: Show progress bars, in a terminal or a notebook.

    Returns:
        Every file name to its duplicates, the nearest first: names, or (name, distance) where ``scores`` is true. An
        image without duplicates has an empty list, and if a has b, then b has a.

    Raises:
        TypeError: A threshold that is no int.
        ValueError: Both or neither of ``image_dir`` and ``encoding_map``, no such folder, a threshold out of range, an
            unknown method, or a hash that is not of the method's length.

    Warns:
        SyntaxWarning: ``recursive`` with an ``encoding_map``.
        RuntimeWarning: ``num_enc_workers`` with an ``encoding_map``, or a ``search_method``.

    >>> find_duplicates(encoding_map={"a.jpg": "0" * 16, "b.jpg": "0" * 15 + "7"}, scores=True, method="phash")
    {'a.jpg': [('b.jpg', 3)], 'b.jpg': [('a.jpg', 3)]}
    """
    if search_method is not None:
        warnings.warn("search_method has no effect: one exact search serves all", RuntimeWarning, stacklevel=2)
    folder = _Images(image_dir, encoding_map, recursive, num_enc_workers, verbose)
    folder.warn_of_ignored()
    names, pairs = folder.pairs(max_distance_threshold, num_dist_workers, method)
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
    outfile: str | Path | bool | None = None,
    recursive: bool = False,
    num_enc_workers: int | None = None,
    num_dist_workers: int | None = None,
    *,
    method: Method = "pdq",
    verbose: bool = True,
) -> list[str]:
    """List the files to remove, so that no two duplicates stay and each file that goes has a duplicate that stays.

    The files are walked in order, by name in a folder and as listed in a map, and one is kept unless it duplicates
    one kept before it (:func:`dedupkit.clustering.keep_set`). So nothing goes because of a chain: where a and b are
    duplicates, and b and c, but not a and c, only b goes. imagededup's loop comes to the same set for the same order,
    and returns it in no order.

    Args:
        image_dir: Folder of images, as for :func:`find_duplicates`; or
        encoding_map: File name to hash.
        max_distance_threshold: Largest Hamming distance of duplicates, in bits.
        outfile: JSON file for the list; none where it is false.
        recursive: Also look into subfolders.
        num_enc_workers: Number of hashing processes.
        num_dist_workers: Number of comparing threads.
        method: As for :func:`encode_images`.
        verbose: Show progress bars.

    Returns:
        Names of files to remove, in that order. Nothing is removed from disk.

    Raises:
        TypeError: As for :func:`find_duplicates`.
        ValueError: As for :func:`find_duplicates`.

    Warns:
        SyntaxWarning: As for :func:`find_duplicates`.
        RuntimeWarning: As for :func:`find_duplicates`.

    >>> find_duplicates_to_remove(encoding_map={"a.jpg": "0" * 16, "b.jpg": "0" * 15 + "7"}, method="phash")
    ['b.jpg']
    """
    folder = _Images(image_dir, encoding_map, recursive, num_enc_workers, verbose)
    folder.warn_of_ignored()
    names, pairs = folder.pairs(max_distance_threshold, num_dist_workers, method)
    kept, _ = keep_set(pairs.a, pairs.b, np.arange(len(names)))
    removed = [names[row] for row in np.flatnonzero(~kept)]
    _write_json(removed, outfile)
    return removed


@dataclass(frozen=True, slots=True)
class _Images:
    """A folder or a map of hashes, as both functions take them."""

    image_dir: str | Path | None
    encoding_map: Mapping[str, str] | None
    recursive: bool
    num_enc_workers: int | None
    verbose: bool

    def warn_of_ignored(self) -> None:
        """Warn, in imagededup's words, of arguments without effect; points at the caller of the public function."""
        if self.encoding_map is None:
            return
        if self.recursive:
            warnings.warn("recursive parameter is irrelevant when using encodings.", SyntaxWarning, stacklevel=3)
        if self.num_enc_workers is not None:
            text = "Parameter num_enc_workers has no effect since encodings are already provided"
            warnings.warn(text, RuntimeWarning, stacklevel=3)

    def pairs(self, threshold: int | None, num_dist_workers: int | None, method: Method) -> tuple[list[str], Pairs]:
        """The names, and the pairs of their positions that are duplicates, sorted by (a, b)."""
        bits = 8 * check_method(method)
        radius = (31 if method == "pdq" else 10) if threshold is None else threshold
        if not isinstance(radius, int):
            raise TypeError(f"max_distance_threshold must be an int, not {radius!r}")
        if not 0 <= radius <= bits:
            raise ValueError(f"max_distance_threshold must be from 0 to {bits} for method {method!r}, not {radius}")
        if (self.image_dir is None) == (self.encoding_map is None):
            raise ValueError("give either image_dir or encoding_map")
        if self.encoding_map is None:
            codes = encode_folder(self.image_dir, self.recursive, self.num_enc_workers, method, self.verbose)
        else:
            codes = {name: (code, 100) for name, code in self.encoding_map.items()}
        hashes = np.frombuffer(b"".join(_parse(name, code, method) for name, (code, _) in codes.items()), np.uint8)
        rows = np.flatnonzero([quality >= MIN_PDQ_QUALITY for _, quality in codes.values()])
        join = dihedral_pairs if method == "pdq" else hamming_pairs
        with progress_bar("comparing", len(rows), self.verbose) as bar:
            found = join(hashes.reshape(-1, bits // 8)[rows], radius, workers=workers(num_dist_workers))
            bar.update(len(rows))
        return list(codes), Pairs(rows[found.a], rows[found.b], found.distance)


def _parse(name: str, code: str, method: Method) -> bytes:
    length = check_method(method)
    try:
        parsed = bytes.fromhex(code)
    except (TypeError, ValueError):
        parsed = b""
    if len(parsed) != length:
        raise ValueError(f"a hash of method {method!r} has {2 * length} hex digits, but {name!r} has {code!r}")
    return parsed


def _write_json(result: object, outfile: str | Path | bool | None) -> None:
    if outfile is True:
        raise ValueError("outfile must be a path, or false for no file")
    if outfile:
        Path(outfile).write_text(json.dumps(result, indent=2, sort_keys=True), "utf-8")
