"""Verification of a run's samples against the rows of a reference: each image's nearest, until one of them holds.

Rows of a reference stay, so no list loses members: an image looks at its nearest row, unless that pair holds at the
next, then at two more, at four, to the end of its list. Where no list is full every pair above the floor is looked at,
whatever holds already, so that another rule can be decided by what was seen.
"""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from dedupkit.clustering.rules import Rule
from dedupkit.engine import cache_key, local_engine
from dedupkit.engine.marker import write_marker
from dedupkit.engine.progress import LOGGER
from dedupkit.errors import require
from dedupkit.runfolder import RunFolder
from dedupkit.signals import JoinSettings, known_signals
from dedupkit.signals.columns import Scanned
from dedupkit.signals.matches import leading
from dedupkit.stages.clauses import verified_facts
from dedupkit.stages.crossing import Crossing
from dedupkit.stages.outside import across_files, write_labels
from dedupkit.stages.plan import Job
from dedupkit.stages.references import Opened, gone_shards
from dedupkit.stages.verify_pairs import NO_COPIES, PairVerifier
from dedupkit.store import remove_tree, write_table

__all__ = ["verify_across"]

_VERIFIED = "verified"


def verify_across(job: Job, number: int, opened: Opened, rule: Rule, key: str) -> None:
    """Look again at the images of the pairs on which the verdict depends; equal bytes need no second look.

    Args:
        job: What is computed; the other signals of the rule are joined with the reference.
        number: Number of the reference.
        opened: The reference.
        rule: What makes a sample duplicate it.
        key: Digest of all that the pairs depend on.

    Raises:
        MissingExtraError: OpenCV is not installed.
    """
    require("cv2", "verify")
    folder, own = job.folder, Scanned(job.folder, len(job.shards))
    exact = known_signals()["exact"].across(own, opened.rows, opened.active, JoinSettings(0.0))
    joined = {name: folder.joined_across(number, name) or {} for name in rule.signals if name != _VERIFIED}
    full = {name: facts for name, facts in joined.items() if facts.get("ranks", {}).get("full")}
    crossing = Crossing.of(folder, number, rule, exact, full)
    images = len(leading(exact.own))
    logging.getLogger(LOGGER).info(
        "verify: %s candidate pairs with %s, %.1f for each of %s images", f"{len(crossing.pairs):,}",
        opened.reference.name, len(crossing.pairs) / max(images, 1), f"{images:,}",
    )  # fmt: skip
    parts = folder.across(number, _VERIFIED) / "parts"
    again = opened.find_shards()
    both, shards = _SideBySide(folder, len(job.shards), opened.rows), [*job.shards, *again]
    gone, tries = gone_shards(again), int((folder.joined_across(number, _VERIFIED) or {}).get("retry", 0))
    engine = local_engine(job.computing.threads)
    verifier = PairVerifier(both, shards, parts=parts, out=parts, key=cache_key([key, gone, tries]), engine=engine)
    looking = _Looking(crossing, len(exact.own), verifier)
    with engine.lasting():
        if full:
            looking.look_in_rounds()
        else:
            looking.look(np.ones(len(crossing.pairs), bool))
    files = across_files(folder, number, _VERIFIED)
    write_table(files.pairs, looking.table())
    write_labels(files, exact)
    bounds = {name: float(facts["bound"]) for name, facts in full.items()}
    facts = verified_facts(rule, None, bounds, looking.counts(), tries + 1 if verifier.lost else 0)
    result = {**facts, "gone": gone, "rows": int(opened.active.sum())}
    write_marker(folder.across_marker(number, _VERIFIED), key, result, folder.path, list(files))
    remove_tree(parts)  # last: before the marker, a kill would leave tasks that are done and nothing to show for it


class _SideBySide(RunFolder):
    """The samples of a run, and after them the rows of a reference, as one run.

    Args:
        folder: Folder of the run.
        shards: Number of its shards.
        rows: The rows of the reference.
    """

    def __init__(self, folder: RunFolder, shards: int, rows: Scanned) -> None:
        super().__init__(folder.path)
        self._own, self._shards, self._rows = folder, shards, rows

    def samples(self, shard: int) -> Path:
        """Samples of a shard of the run or, behind these, of the reference."""
        return self._own.samples(shard) if shard < self._shards else self._rows.folder.samples(shard - self._shards)


class _Looking:
    """Which candidates were looked at, and what that gave."""

    def __init__(self, crossing: Crossing, count: int, verifier: PairVerifier) -> None:
        self._crossing, self._count, self._verifier = crossing, count, verifier
        self._looked = np.zeros(len(crossing.pairs), bool)
        self.held = NO_COPIES
        self.unseen = self._rounds = 0

    def look(self, chosen: NDArray[np.bool_]) -> None:
        """Look at some candidates."""
        pairs = self._crossing.pairs[chosen]
        table, unseen = self._verifier.verify(pairs // self._crossing.rows, pairs % self._crossing.rows + self._count)
        self._looked |= chosen
        self.held = pa.concat_tables([self.held, table])
        self.unseen += unseen
        self._rounds += 1

    def look_in_rounds(self) -> None:
        """Look at what is looked at in any case and at the best of each image, then further down its list."""
        crossing, width = self._crossing, 1
        self.look((crossing.priority == np.inf) | self._best(crossing.open(self._duplicates()), width))
        while (left := crossing.open(self._duplicates()) & ~self._looked).any():
            self.look(self._best(left, width))
            width *= 2

    def _best(self, some: NDArray[np.bool_], width: int) -> NDArray[np.bool_]:
        """Of some candidates the best of each image, at most ``width``."""
        at = np.flatnonzero(some)
        image, priority = self._crossing.pairs[at] // self._crossing.rows, self._crossing.priority[at]
        at = at[np.lexsort((at, -priority, image))]
        _, first, counts = np.unique(image, return_index=True, return_counts=True)
        rank = np.arange(len(at)) - np.repeat(first, counts)
        chosen = np.zeros(len(some), bool)
        chosen[at[rank < width]] = True
        return chosen

    def _duplicates(self) -> NDArray[np.bool_]:
        a, b = (self.held[end].to_numpy() for end in ("a", "b"))
        return self._crossing.duplicates(a * self._crossing.rows + b - self._count)

    def counts(self) -> dict[str, int]:
        """As :class:`dedupkit.stages.rounds.Seen` has them; ``capped``: images behind whose full list more may lie."""
        return {
            "candidates": len(self._looked),
            "looked_at": int(self._looked.sum()),
            "verified": self.held.num_rows,
            "unseen": self.unseen,
            "capped": int((self._crossing.full & ~self._duplicates()).sum()),
            "rounds": self._rounds,
        }

    def table(self) -> pa.Table:
        """The pairs of a sample and a row that hold, those of equal bytes first."""
        equal, rows = self._crossing.equal, self._crossing.rows
        table = self.held.sort_by([("a", "ascending"), ("b", "ascending")])
        words = {side: [None] * len(equal) + table[side].to_pylist() for side in ("a_is", "b_is")}
        return pa.table(
            {
                "a": np.concatenate([equal // max(rows, 1), table["a"].to_numpy()]),
                "b": np.concatenate([equal % max(rows, 1), table["b"].to_numpy() - self._count]),
                "score": np.concatenate([np.zeros(len(equal), np.float32), table["score"].to_numpy()]),
                **{side: pa.array(text, pa.string()) for side, text in words.items()},
            }
        )
