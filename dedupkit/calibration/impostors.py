"""Impostor pairs: pairs of a run's own images that are no duplicates, and how close they come.

Random pairs of a data set's images are impostor pairs, but for the duplicates among them. Those would sit at the very
top and spoil the tail, so the closest pairs are verified by their pixels until hardly any is a duplicate. The
rule has no say in it: among images that it keeps, or of different groups, no pair comes closer than it allows, and a
tail cut off there would promise that none ever does.
"""

from __future__ import annotations

import importlib.util
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from dedupkit.calibration.closest import closest_pairs, rows_for
from dedupkit.calibration.tail import Closest
from dedupkit.clustering import components
from dedupkit.engine import cache_key
from dedupkit.runfolder.folder import RunFolder
from dedupkit.signals import find_signal
from dedupkit.signals.columns import Scanned
from dedupkit.signals.impostors import PairScorer
from dedupkit.sources.reread import Originals
from dedupkit.stages.verify_pairs import verify_pairs
from dedupkit.store import atomic_path

__all__ = ["Impostors", "measure_impostors", "read_impostors", "write_impostors"]

_LOOKED_AT = 200
_MOST_LOOKED_AT = 2_000
_FEW = 0.02
"""With a smaller share of duplicates among the pairs last looked at, those further down count as impostor pairs."""


@dataclass(frozen=True, slots=True)
class Impostors:
    """The closest impostor pairs under one signal.

    Attributes:
        closest: The pairs, rows of ``samples``.
        samples: (n,) int64, the images that were paired.
        looked_at: Number of closest pairs that were verified; 0 without OpenCV.
        hidden: Number of pairs that show the same image, directly or through duplicates in common.
    """

    closest: Closest
    samples: NDArray[np.int64]
    looked_at: int = 0
    hidden: int = 0


def measure_impostors(
    originals: Originals,
    folder: RunFolder,
    signals: Sequence[str],
    images: NDArray[np.int64],
    work: Path,
    *,
    key: str,
    seed: int,
    workers: int,
) -> dict[str, Impostors]:
    """Pair random images of a run and find the closest pairs under each signal.

    Args:
        originals: Images of the run, for looking at pairs again.
        folder: Folder of the run.
        signals: Names of hashes and embedders.
        images: (k,) int64 ascending, the samples to draw from, no two with the same bytes.
        work: Folder for what the tasks leave.
        key: Cache key of what the fingerprints depend on.
        seed: Seed for all random choices.
        workers: Number of processes.

    Raises:
        DedupkitError: The source is gone.
    """
    products = {signal: _products(folder, len(originals.shards), signal, images, seed) for signal in signals}
    duplicates, looked_at = np.zeros((0, 2), np.int64), dict.fromkeys(signals, 0)
    if importlib.util.find_spec("cv2") is not None:
        for signal, drawn in products.items():
            here = work / f"impostors-{signal}"
            duplicates, looked_at[signal] = _look_again(drawn, duplicates, originals, folder, here, key, workers)
    contents = _contents(duplicates, originals)
    found = {}
    for signal, drawn in products.items():
        closest = drawn.closest(contents)
        hidden = closest.images * (closest.images - 1) // 2 - closest.pairs
        found[signal] = Impostors(closest, drawn.samples, looked_at[signal], hidden)
    return found


@dataclass(frozen=True, slots=True)
class _Drawn:
    """Images drawn for one signal, and the scores of their pairs."""

    samples: NDArray[np.int64]
    scorer: PairScorer
    whole: bool
    least: float

    def closest(self, contents: NDArray[np.int32]) -> Closest:
        """The closest pairs of images with different contents, as far as is known."""
        return closest_pairs(self.scorer, contents[self.samples], whole=self.whole, least=self.least)


def _products(folder: RunFolder, shards: int, name: str, images: NDArray[np.int64], seed: int) -> _Drawn:
    signal = find_signal(name)
    most = rows_for(signal.pair_work)
    # Some have no fingerprint, so a few more are drawn.
    drawn = np.sort(np.random.default_rng([seed, 1]).permutation(len(images))[: 2 * most])
    present, rows = signal.rows(Scanned(folder, shards), images[drawn])
    chosen = np.sort(np.random.default_rng([seed, 2]).permutation(len(rows))[:most])
    places = drawn[present][chosen]
    # Nearly all captions may be equally unlike: millions of pairs that tie, and that no rule can ask for.
    least = signal.bounds[0] if signal.kind == "similarity" else -np.inf
    return _Drawn(images[places], signal.scorer(rows[chosen]), signal.whole, least)


def _look_again(
    drawn: _Drawn,
    duplicates: NDArray[np.int64],
    originals: Originals,
    folder: RunFolder,
    work: Path,
    key: str,
    workers: int,
) -> tuple[NDArray[np.int64], int]:
    """Verify the closest pairs, a few hundred at a time, until hardly any is a duplicate.

    Duplicates of a duplicate are duplicates: an image that occurs a hundred times costs a hundred pairs, not 5,000.

    Returns:
        All pairs of duplicates known then, (m, 2), and the number of pairs that were looked at.
    """
    seen: set[tuple[int, int]] = set()
    known = contents = _contents(duplicates, originals)
    closest = drawn.closest(known)
    while len(seen) < _MOST_LOOKED_AT:
        chosen = _nearest(closest, drawn.samples, contents, seen)
        if len(chosen) < _LOOKED_AT and known is not contents:  # duplicates took the room of what comes next
            known, closest = contents, drawn.closest(contents)
            chosen = _nearest(closest, drawn.samples, contents, seen)
        if not chosen:
            break
        left, right = np.array(chosen, np.int64).T
        originals.places([*left.tolist(), *right.tolist()])  # says so if the source is gone
        here, these = work / f"{len(seen):05d}", cache_key([key, chosen])
        table, _ = verify_pairs(left, right, folder, originals.shards, parts=here, out=here, key=these, workers=workers)
        duplicates = np.concatenate([duplicates, np.column_stack([table["a"].to_numpy(), table["b"].to_numpy()])])
        seen.update(chosen)
        if table.num_rows <= _FEW * len(chosen):
            break
        contents = _contents(duplicates, originals)
    return duplicates, len(seen)


def _nearest(
    closest: Closest, samples: NDArray[np.int64], contents: NDArray[np.int32], seen: set[tuple[int, int]]
) -> list[tuple[int, int]]:
    """The closest pairs with different contents that were not looked at, a batch of them."""
    order = np.lexsort((closest.j, closest.i, -closest.score))
    a, b = samples[closest.i[order]], samples[closest.j[order]]
    apart = contents[a] != contents[b]
    pairs = zip(a[apart].tolist(), b[apart].tolist(), strict=True)
    return list(islice((pair for pair in pairs if pair not in seen), _LOOKED_AT))


def _contents(duplicates: NDArray[np.int64], originals: Originals) -> NDArray[np.int32]:
    """For each sample of the run the smallest that shows the same image, by the pairs known so far."""
    return components(duplicates[:, 0], duplicates[:, 1], int(originals.starts[-1]))


def write_impostors(path: Path, found: Mapping[str, Impostors], key: str) -> None:
    """Keep what was measured, for the next call."""
    arrays: dict[str, Any] = {"key": key, "signals": list(found)}
    for signal, impostors in found.items():
        closest = impostors.closest
        arrays |= {f"{signal}.{name}": getattr(closest, name) for name in ("i", "j", "score")}
        arrays[f"{signal}.samples"] = impostors.samples
        facts = (closest.start, closest.images, closest.pairs, closest.whole, impostors.looked_at, impostors.hidden)
        arrays[f"{signal}.facts"] = np.array(facts, np.float64)
    with atomic_path(path) as temporary, temporary.open("wb") as stream:
        np.savez_compressed(stream, **arrays)


def read_impostors(path: Path, key: str) -> dict[str, Impostors] | None:
    """What an earlier call measured; None where it is not there or was of something else."""
    try:
        with np.load(path) as arrays:
            if str(arrays["key"]) != key:
                return None
            found = {}
            for signal in arrays["signals"].tolist():
                start, images, pairs, whole, looked_at, hidden = arrays[f"{signal}.facts"].tolist()
                i, j, score = (arrays[f"{signal}.{name}"] for name in ("i", "j", "score"))
                closest = Closest(i, j, score, start, int(images), int(pairs), bool(whole))
                found[signal] = Impostors(closest, arrays[f"{signal}.samples"], int(looked_at), int(hidden))
    except (OSError, EOFError, ValueError, KeyError, BadZipFile, zlib.error):  # missing, damaged, of another layout
        return None
    return found
