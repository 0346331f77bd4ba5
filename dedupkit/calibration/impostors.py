"""Pairs of different pictures from a run's own images: how close they come, with the copies among them taken out.

Random pairs of a data set's images are strangers, but for the duplicates among them. Those would sit at the very top
and spoil the tail, so the closest pairs are looked at again, pixel by pixel, until hardly any of them is a copy. The
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
from dedupkit.stages.verify import verify_pairs
from dedupkit.store import atomic_path

__all__ = ["Strangers", "measure_strangers", "read_strangers", "write_strangers"]

_LOOKED_AT = 200
_MOST_LOOKED_AT = 2_000
_FEW = 0.02
"""Of the pairs last looked at: with fewer copies among them, those further down can be taken for strangers."""


@dataclass(frozen=True, slots=True)
class Strangers:
    """The closest pairs of different pictures under one signal.

    Attributes:
        closest: the pairs, rows of ``samples``.
        samples: (n,) int64, the images that were paired.
        looked_at: closest pairs that were verified; 0 without OpenCV.
        hidden: pairs that show the same picture, by these and by copies in common; they are no strangers.
    """

    closest: Closest
    samples: NDArray[np.int64]
    looked_at: int = 0
    hidden: int = 0


def measure_strangers(
    originals: Originals,
    folder: RunFolder,
    signals: Sequence[str],
    images: NDArray[np.int64],
    work: Path,
    *,
    seed: int,
    workers: int,
) -> dict[str, Strangers]:
    """Pair random images of a run and find the closest pairs under each signal.

    Args:
        originals: of the run, for looking at pairs again.
        folder: of the run.
        signals: hashes and embedders.
        images: (k,) int64 ascending, the samples to draw from, no two of the same bytes.
        work: a folder for what the tasks leave.
        seed: of the choice.
        workers: processes.

    Raises:
        DedupkitError: the source is gone.
    """
    products = {signal: _products(folder, len(originals.shards), signal, images, seed) for signal in signals}
    copies, looked_at = np.zeros((0, 2), np.int64), dict.fromkeys(signals, 0)
    if importlib.util.find_spec("cv2") is not None:
        for signal, drawn in products.items():
            here = work / f"strangers-{signal}"
            copies, looked_at[signal] = _look_again(drawn, copies, originals, folder, here, workers)
    pictures = _pictures(copies, originals)
    found = {}
    for signal, drawn in products.items():
        closest = drawn.closest(pictures)
        hidden = closest.images * (closest.images - 1) // 2 - closest.pairs
        found[signal] = Strangers(closest, drawn.samples, looked_at[signal], hidden)
    return found


@dataclass(frozen=True, slots=True)
class _Drawn:
    """Images drawn for one signal, and the scores of their pairs."""

    samples: NDArray[np.int64]
    scorer: PairScorer
    whole: bool

    def closest(self, pictures: NDArray[np.int32]) -> Closest:
        """The closest pairs of images that show different pictures, as far as is known."""
        return closest_pairs(self.scorer, pictures[self.samples], whole=self.whole)


def _products(folder: RunFolder, shards: int, name: str, images: NDArray[np.int64], seed: int) -> _Drawn:
    signal = find_signal(name)
    most = rows_for(signal.pair_work)
    # Some have no cache_key, so a few more are drawn.
    drawn = np.sort(np.random.default_rng([seed, 1]).permutation(len(images))[: 2 * most])
    present, rows = signal.rows(Scanned(folder, shards), images[drawn])
    chosen = np.sort(np.random.default_rng([seed, 2]).permutation(len(rows))[:most])
    places = drawn[present][chosen]
    return _Drawn(images[places], signal.scorer(rows[chosen]), signal.whole)


def _look_again(
    drawn: _Drawn, copies: NDArray[np.int64], originals: Originals, folder: RunFolder, work: Path, workers: int
) -> tuple[NDArray[np.int64], int]:
    """Verify the closest pairs, a few hundred at a time, until they are no copies.

    Copies of a copy are copies: of a picture that occurs a hundred times a hundred pairs are looked at, not 5,000.

    Returns:
        All pairs of copies known then, (m, 2), and how many pairs were looked at.
    """
    seen: set[tuple[int, int]] = set()
    known = pictures = _pictures(copies, originals)
    closest = drawn.closest(known)
    while len(seen) < _MOST_LOOKED_AT:
        chosen = _nearest(closest, drawn.samples, pictures, seen)
        if len(chosen) < _LOOKED_AT and known is not pictures:  # copies took the room of what comes next
            known, closest = pictures, drawn.closest(pictures)
            chosen = _nearest(closest, drawn.samples, pictures, seen)
        if not chosen:
            break
        left, right = np.array(chosen, np.int64).T
        originals.places([*left.tolist(), *right.tolist()])  # says so if the source is gone
        here = work / f"{len(seen):05d}"
        key = cache_key(chosen)
        table, _ = verify_pairs(left, right, folder, originals.shards, parts=here, out=here, key=key, workers=workers)
        copies = np.concatenate([copies, np.column_stack([table["a"].to_numpy(), table["b"].to_numpy()])])
        seen.update(chosen)
        if table.num_rows <= _FEW * len(chosen):
            break
        pictures = _pictures(copies, originals)
    return copies, len(seen)


def _nearest(
    closest: Closest, samples: NDArray[np.int64], pictures: NDArray[np.int32], seen: set[tuple[int, int]]
) -> list[tuple[int, int]]:
    """The closest pairs of different pictures that were not looked at, a batch of them."""
    order = np.lexsort((closest.j, closest.i, -closest.score))
    a, b = samples[closest.i[order]], samples[closest.j[order]]
    apart = pictures[a] != pictures[b]
    pairs = zip(a[apart].tolist(), b[apart].tolist(), strict=True)
    return list(islice((pair for pair in pairs if pair not in seen), _LOOKED_AT))


def _pictures(copies: NDArray[np.int64], originals: Originals) -> NDArray[np.int32]:
    """For each sample of the run the smallest that shows the same picture, by the pairs known to, and theirs."""
    return components(copies[:, 0], copies[:, 1], int(originals.starts[-1]))


def write_strangers(path: Path, found: Mapping[str, Strangers], key: str) -> None:
    """Keep what was measured, for the next call."""
    arrays: dict[str, Any] = {"key": key, "signals": list(found)}
    for signal, strangers in found.items():
        closest = strangers.closest
        arrays |= {f"{signal}.{name}": getattr(closest, name) for name in ("i", "j", "score")}
        arrays[f"{signal}.samples"] = strangers.samples
        facts = (closest.start, closest.images, closest.pairs, closest.whole, strangers.looked_at, strangers.hidden)
        arrays[f"{signal}.facts"] = np.array(facts, np.float64)
    with atomic_path(path) as temporary, temporary.open("wb") as stream:
        np.savez_compressed(stream, **arrays)


def read_strangers(path: Path, key: str) -> dict[str, Strangers] | None:
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
                found[signal] = Strangers(closest, arrays[f"{signal}.samples"], int(looked_at), int(hidden))
    except (OSError, EOFError, ValueError, KeyError, BadZipFile, zlib.error):  # missing, damaged, or of another layout
        return None
    return found
