"""From what was measured, found and answered to ``calibration.json``."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dedupkit import __version__
from dedupkit.calibration.curves import Axis, holds, steps
from dedupkit.calibration.impostors import Strangers
from dedupkit.calibration.judged import Answers, Found, bands_of, read_answers
from dedupkit.calibration.propose import Proposal, from_answers, from_strangers
from dedupkit.calibration.result import FORMAT
from dedupkit.calibration.strata import Band, Estimate, interval, weighted
from dedupkit.calibration.synthetic import Copies
from dedupkit.calibration.tail import Expected, expected_pairs
from dedupkit.clustering.rules import Rule
from dedupkit.images.transformations import EDITS
from dedupkit.runfolder.folder import RunFolder
from dedupkit.signals import find_signal
from dedupkit.store import write_json

__all__ = ["Known", "write_findings"]


@dataclass(frozen=True, slots=True)
class Known:
    """What all parts of a calibration know of the run.

    Attributes:
        folder: of the run.
        shards: their number.
        rule: in force.
        models: of the embedders that the rule names, those that can embed new images; specifications by name.
        axes: the rule's alternatives that have a threshold.
        kept: (k,) int64, the samples that the run keeps.
        readable: samples of the run that could be read.
        seed: of every choice at random.
        workers: processes.
    """

    folder: RunFolder
    shards: int
    rule: Rule
    models: dict[str, str]
    axes: list[Axis]
    kept: NDArray[np.int64]
    readable: int
    seed: int
    workers: int


def write_findings(
    known: Known, copies: Copies, strangers: dict[str, Strangers], found: Sequence[Found], asked: int, wanted: float
) -> None:
    """Write ``calibration.json``.

    Args:
        known: the run.
        copies: planted, and what the signals say of them.
        strangers: the closest pairs by signal.
        found: the run's pairs along each axis.
        asked: how many images were to be copied.
        wanted: the precision that thresholds are proposed for.
    """
    answers = read_answers(known.folder.answers, known.folder, known.shards)
    in_force = [band for pairs in found for band in bands_of(pairs, steps(pairs.axis), answers, in_force=True)]
    overall = weighted(in_force)
    count = sum(band.same + band.different for band in in_force)
    write_json(
        known.folder.calibration,
        {
            "format": FORMAT,
            "dedupkit": __version__,
            "rule": str(known.rule),
            "seed": known.seed,
            "wanted": wanted,
            "samples": known.readable,
            "copies": _copies_facts(known, copies, asked),
            "precision": None if overall is None else {**_share(overall), "answers": count},
            "axes": [
                _axis_facts(known, pairs, copies, strangers[pairs.axis.atom.signal], answers, wanted) for pairs in found
            ],
        },
    )


def _copies_facts(known: Known, copies: Copies, asked: int) -> dict[str, Any]:
    found = holds(known.rule, copies.scores)
    edits = []
    for number, edit in enumerate(EDITS):
        mine = copies.edit == number
        share = interval(int(found[mine].sum()), int(mine.sum()))
        edits.append({
            "name": edit.name, "label": edit.label, "family": edit.family,
            "copies": int(mine.sum()), "found": int(found[mine].sum()), **_share(share, "recall"),
        })  # fmt: skip
    originals = len(np.unique(copies.original))
    return {
        "originals": originals,
        "asked": asked,
        "planted": len(found),
        "found": int(found.sum()),
        # Images were drawn, not copies: those of one image stand and fall together.
        **_share(interval(float(found.mean()) * originals, originals), "recall"),
        "unmeasured": [
            name for name in known.rule.signals if name not in copies.scores and find_signal(name).finds_pairs
        ],
        "edits": edits,
    }


def _axis_facts(
    known: Known, found: Found, copies: Copies, strangers: Strangers, answers: Answers, wanted: float
) -> dict[str, Any]:
    axis, closest = found.axis, strangers.closest
    size = int((known.folder.joined(axis.atom.signal) or {}).get("distinct", known.readable))
    shown, proposable = steps(axis), _proposable(axis)
    both = axis.closeness(np.concatenate([shown, proposable]))
    tail, expected = expected_pairs(closest, both, size, seed=known.seed)
    # The run knows its pairs as far as the floor; recall and strangers are known beyond.
    reach = int((axis.closeness(shown) >= axis.closeness(np.array([axis.floor]))).sum())
    bands = bands_of(found, shown, answers)[:reach]
    recall, by_edit = _recall(axis, copies, shown)
    return {
        "reason": axis.reason,
        "signal": axis.atom.signal,
        "similarity": axis.atom.similarity,
        "bound": axis.bound,
        "floor": axis.floor,
        "thresholds": [
            {
                "threshold": float(value),
                "recall": recall[t] if recall else None,
                "pairs": sum(band.pairs for band in bands[: t + 1]) if t < reach else None,
                "strangers": _expected(expected, t),
                "precision": _judged(bands[: t + 1]) if t < reach else None,
            }
            for t, value in enumerate(shown.tolist())
        ],
        "recall_by_edit": by_edit,
        "bands": [
            {"from": band.strict, "to": band.threshold, "pairs": band.pairs, "same": band.same,
             "different": band.different, **_share(band.precision, "precision")}
            for band in bands
        ],
        "strangers": None if tail is None else {
            "images": closest.images, "pairs": closest.pairs, "size": size, "looked_at": strangers.looked_at,
            "hidden": strangers.hidden, **{name: _number(value) for name, value in asdict(tail).items()},
        },
        "proposal": _proposal(found, bands, proposable, expected.after(len(shown)), wanted),
    }  # fmt: skip


def _recall(axis: Axis, copies: Copies, thresholds: NDArray[np.float64]) -> tuple[list[float], dict[str, list[float]]]:
    """Share of the copies at or within each threshold, of all and by edit; empty where there are no scores."""
    score = copies.scores.get(axis.atom.signal)
    if score is None:
        return [], {}
    with np.errstate(invalid="ignore"):  # no fingerprint, no copy found
        reached = axis.closeness(score)[:, None] >= axis.closeness(thresholds) - 1e-6
    by_edit = {edit.name: reached[copies.edit == number].mean(axis=0) for number, edit in enumerate(EDITS)}
    return np.round(reached.mean(axis=0), 6).tolist(), {
        name: np.round(shares, 6).tolist() for name, shares in by_edit.items()
    }


def _proposal(
    found: Found, bands: Sequence[Band], thresholds: NDArray[np.float64], expected: Expected, wanted: float
) -> dict[str, Any]:
    """By answers where there are any, else by strangers."""
    axis = found.axis
    proposal = from_answers(bands, wanted, floor=axis.floor)
    if proposal is None and len(axis.clause) > 1:
        others = " and ".join(map(str, axis.clause[1:]))
        proposal = Proposal(None, note=f"pairs must satisfy {others} too, which strangers say nothing of; judge pairs")
    if proposal is None:
        ordered = np.sort(-found.closeness)
        counts = np.searchsorted(ordered, 1e-6 - axis.closeness(thresholds), side="right").astype(np.int64)
        proposal = from_strangers(thresholds, counts, expected, wanted, floor=axis.floor)
    return {**asdict(proposal), "precision": _number(proposal.precision), "low": _number(proposal.low)}


def _proposable(axis: Axis) -> NDArray[np.float64]:
    """Thresholds that can be proposed by strangers, as far as the run's pairs reach."""
    return np.array(axis.signal.thresholds(axis.floor), np.float64)


def _judged(bands: Sequence[Band]) -> dict[str, Any] | None:
    estimate = weighted(bands)
    return None if estimate is None else {**_share(estimate), "answers": sum(b.same + b.different for b in bands)}


def _expected(expected: Expected, place: int) -> dict[str, float] | None:
    values = (expected.estimate[place], expected.low[place], expected.high[place])
    if not np.isfinite(values).all():
        return None
    return {name: float(f"{value:.6g}") for name, value in zip(("estimate", "low", "high"), values, strict=True)}


def _share(estimate: Estimate, name: str = "share") -> dict[str, Any]:
    return {name: _number(estimate.share), "low": _number(estimate.low), "high": _number(estimate.high)}


def _number(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else round(value, 6)
