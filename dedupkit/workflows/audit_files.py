"""The files of an audit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pyarrow import csv

from dedupkit.memorization.audited import AuditResult
from dedupkit.memorization.guard import MAX_DISTANCE
from dedupkit.memorization.nearest import Nearest
from dedupkit.memorization.neighbours import Neighbours, TrainingImages
from dedupkit.report.audit import PAIR_SIDE, Side, pairs_of, write_audit_page
from dedupkit.report.thumbnails import Thumbnails
from dedupkit.sources.again import Moved
from dedupkit.store import atomic_path, write_json, write_table
from dedupkit.workflows.audit_table import Decided, audit_table, prompt_table

__all__ = ["AuditFiles", "pairs_to_show"]

_CLIQUES = 24  # on the page


@dataclass(frozen=True, slots=True)
class AuditFiles:
    """Where an audit is written, and what it is of.

    Attributes:
        home: The folder.
        near: The training set.
        moved: Where the training data lies now, if it moved since the run.
    """

    home: Path
    near: Neighbours
    moved: Moved | None

    def write(
        self, result: AuditResult, found: Decided, shown: Sequence[tuple[int, int]], hashes: Sequence[str]
    ) -> None:
        """Write every file, each whole or not at all; ``audit.json`` comes last.

        Args:
            result: The counts.
            found: What is known of the images.
            shown: The pairs on the page.
            hashes: The lines of ``takedown.txt``; a comment takes their place where there are none.
        """
        table = audit_table(self.near, found, MAX_DISTANCE, result.embedder)
        write_table(self.home / "audit.parquet", table)
        with atomic_path(self.home / "audit.csv") as temporary:
            csv.write_csv(table, temporary)
        (self.home / "prompts.parquet").unlink(missing_ok=True)  # of an earlier audit
        if found.prompted.prompts:
            write_table(self.home / "prompts.parquet", prompt_table(self.near, found.made, found.prompted))
        with atomic_path(self.home / "takedown.txt") as temporary:
            lines = hashes or ["# no training image is copied"]
            temporary.write_text("".join(f"{line}\n" for line in lines), "utf-8")
        of = 0 if result.floor is None else result.floor.images
        cliques = found.prompted.cliques[:_CLIQUES]
        middles = pairs_of(table, [(each.middle, each.sample) for each in cliques], cliques, of)
        sides = (
            Side(Thumbnails(self.home / "generated", PAIR_SIDE), found.made.images["key"]),
            Side(Thumbnails(TrainingImages(self.near, self.moved), PAIR_SIDE), self.near.column("key")),
        )
        write_audit_page(self.home / "audit.html", result, (pairs_of(table, shown, [], of), middles), sides)
        write_json(self.home / "audit.json", result.to_json())


def pairs_to_show(made: Nearest, copy: NDArray[np.bool_], most: int) -> list[tuple[int, int]]:
    """Pairs for the page: one copy of each training image, the nearest first, then what is nearest and no copy."""
    nearness = np.where(made.hash_sample >= 0, 2 - made.bits / 256, np.nan_to_num(made.cosine, nan=-2.0))
    order = np.argsort(-nearness, kind="stable")
    order = order[(made.sample[order] >= 0) & made.readable[order]]
    _, first = np.unique(made.sample[order], return_index=True)
    new = np.zeros(len(order), bool)
    new[first] = True
    rank = np.where(copy[order], np.where(new, 0, 1), 2)
    chosen = order[np.argsort(rank, kind="stable")][:most]
    return [(int(row), int(made.sample[row])) for row in chosen]
