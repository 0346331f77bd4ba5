"""Which images an audit takes for copies: generated and real ones by the same conditions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from dedupkit.clustering.grammar import parse_rule
from dedupkit.memorization.again import Again, Seen
from dedupkit.memorization.audited import AtLeast, Floor, Threshold, share_of
from dedupkit.memorization.floor import choose_threshold
from dedupkit.memorization.guard import SSCD_COPY, is_sscd, published_bound, rule_bound
from dedupkit.memorization.nearest import Nearest
from dedupkit.memorization.neighbours import Neighbours
from dedupkit.runfolder import RunConfig
from dedupkit.signals import known_signals

__all__ = [
    "CANDIDATE", "Conditions", "calibrated_threshold", "candidate_bound", "first_in", "floor_of", "overlap",
    "sscd_shares", "stated_threshold",
]  # fmt: skip

CANDIDATE = 0.5
"""Least cosine of a candidate where the rule states none."""

_SSCD_COSINES = (0.5, SSCD_COPY)  # of potential memorization (arXiv 2403.03206), of 90 % precision (arXiv 2202.10261)
_OVERLAP = 8  # bits of PDQ within which a held-out image is one of the training set
_LOOKED_AT = 50  # held-out images nearest to the training set


@dataclass(frozen=True, slots=True)
class Conditions:
    """What makes an image a copy: its hash, its vector, or a candidate that verification confirms.

    Attributes:
        cosine: Least cosine of a copy; None where no vector is enough.
        candidate: Least cosine of a candidate that is verified; None where none is.
    """

    cosine: float | None
    candidate: float | None = None

    def decide(self, images: Nearest, again: Again) -> tuple[NDArray[np.bool_], dict[tuple[int, int], Seen]]:
        """Which images are copies, (n,) bool, and the pairs that were looked at for it."""
        near = np.nan_to_num(images.cosine, nan=-2.0)
        copy = (images.hash_sample >= 0) | (near >= (3.0 if self.cosine is None else self.cosine))
        seen: dict[tuple[int, int], Seen] = {}
        if self.candidate is not None:
            rows = np.flatnonzero(~copy & (near >= self.candidate))
            seen = again.look([(row, int(images.vector_sample[row])) for row in rows.tolist()])
            copy[[row for (row, _), pair in seen.items() if pair.verified]] = True
        return copy, seen


def stated_threshold(config: RunConfig, name: str, samples: int) -> Threshold | None:
    """The least cosine of a copy among so many samples that the rule, or a publication, states; None for none."""
    stated = rule_bound(config, name)
    if stated is not None:
        return Threshold(stated, "as the rule of the run states")
    published, words = published_bound(config, name, samples)
    return None if published is None else Threshold(published, words)


def calibrated_threshold(real: Nearest, rate: float) -> Threshold:
    """A threshold from every other real image; the others are left to say how often it is wrong."""
    cosines = real.cosine[real.readable & ~np.isnan(real.cosine)][::2]
    bound = choose_threshold(cosines, rate)
    if bound > 1:
        return Threshold(
            bound,
            f"because more than {100 * rate:g} % of {len(cosines):,} real images have a cosine of 1 with a training "
            "image, as blank images have with each other",
        )
    return Threshold(bound, f"which at most {100 * rate:g} % of {len(cosines):,} real images reach")


def sscd_shares(config: RunConfig, name: str | None, images: Nearest) -> tuple[AtLeast, ...]:
    """The shares above the published cosines, where the embedder is SSCD, for which they were published."""
    if name is None or not is_sscd(config, name):
        return ()
    near = np.nan_to_num(images.cosine, nan=-2.0)
    of = int(images.readable.sum())
    return tuple(AtLeast(bound, share_of(int((near >= bound).sum()), of)) for bound in _SSCD_COSINES)


def candidate_bound(config: RunConfig, name: str) -> float:
    """The cosine from which the rule of a run verifies pairs, 0.5 where it verifies none or goes by other scores."""
    known = known_signals(config.embedders)
    if not known[name].ranks:  # scores that a background normalises are no cosines
        return CANDIDATE
    bounds = [
        atom.bound
        for clause in parse_rule(config.rule_expanded, known).clauses
        if any(known[atom.signal].stage == "verify" for atom in clause)
        for atom in clause
        if atom.signal == name and atom.bound is not None
    ]
    return min(bounds, default=CANDIDATE)


def floor_of(real: Nearest, alarms: NDArray[np.bool_], calibrated: bool) -> Floor:
    """What the search says of real images; those that chose the threshold are not counted again."""
    counted = real.readable.copy()
    used = np.flatnonzero(real.readable & ~np.isnan(real.cosine))[::2] if calibrated else np.zeros(0, np.int64)
    counted[used] = False
    known = real.cosine[~np.isnan(real.cosine)]
    return Floor(
        images=int(real.readable.sum()),
        unreadable=int((~real.readable).sum()),
        calibrated_on=len(used),
        false_alarms=share_of(int((alarms & counted).sum()), int(counted.sum())),
        highest_cosine=float(known.max()) if len(known) else None,
    )


def overlap(real: Nearest, near: Neighbours, again: Again) -> dict[int, int]:
    """The real images that are in the training set, with the sample that each is.

    By equal bytes, by a PDQ distance of at most 8 bits, and, among the 50 real images that are nearest to the training
    set, by verification.

    Args:
        real: The real images.
        near: The training set.
        again: What reads both.
    """
    trained = near.stored(["sha256"])["sha256"]
    bytes_at = np.where(real.readable, first_in(real.images["sha256"], trained), -1)
    same = ((real.bits <= _OVERLAP) | (bytes_at >= 0)) & real.readable
    at = np.where(bytes_at >= 0, bytes_at, real.sample)
    found = {row: int(at[row]) for row in np.flatnonzero(same).tolist()}
    rest = np.flatnonzero(real.readable & ~same & (real.sample >= 0))
    nearness = np.where(real.hash_sample >= 0, 2.0 - real.bits / 256, np.nan_to_num(real.cosine, nan=-2.0))
    nearest = rest[np.argsort(-nearness[rest], kind="stable")[:_LOOKED_AT]].tolist()
    seen = again.look([(row, int(real.sample[row])) for row in nearest])
    return found | {row: sample for (row, sample), pair in seen.items() if pair.verified}


def first_in(values: pa.ChunkedArray, texts: pa.ChunkedArray) -> NDArray[np.int64]:
    """Where each value occurs first in a column of any size, (n,) int64; -1 where it does not.

    Piece by piece, because one array of texts holds at most 2 GiB.
    """
    found, start = np.full(len(values), -1, np.int64), 0
    for part in texts.chunks:
        at = pc.index_in(values, part).fill_null(-1).to_numpy().astype(np.int64)
        found = np.where((found < 0) & (at >= 0), at + start, found)
        start += len(part)
    return found
