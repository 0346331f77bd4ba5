"""The verify stage: compares the images of candidate pairs again, and keeps the pairs that hold with their relation.

Copies become edges of the signal ``verified``, images of one template edges of ``template``.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import numpy as np

from dedupkit.engine import Engine, cache_key, local_engine
from dedupkit.engine.marker import write_marker
from dedupkit.engine.progress import LOGGER
from dedupkit.errors import require
from dedupkit.runfolder import RunConfig
from dedupkit.signals.columns import Scanned
from dedupkit.stages.candidates import Candidates
from dedupkit.stages.clauses import candidate_clauses, settled_clauses, verified_facts
from dedupkit.stages.plan import Job
from dedupkit.stages.planted import listed_share, plant
from dedupkit.stages.rounds import Seen, look_in_rounds
from dedupkit.stages.verify_pairs import PairVerifier, verdict_formats
from dedupkit.stages.whole import duplicates_outside
from dedupkit.store import remove_tree, write_table

__all__ = ["verify_candidates"]


def verify_candidates(job: Job, key: str, engine: Engine | None = None, config: RunConfig | None = None) -> None:
    """Verify every pair for which the rule's verdict depends on it; pairs that another clause settles are left out.

    Candidates of an alternative ``(embedder>=floor and verified)`` are each image's nearest neighbours. Where their
    lists are full, more images may reach the floor: then they are looked at in rounds, see
    :mod:`dedupkit.stages.rounds`.

    Args:
        job: What is computed.
        key: Digest of what the joins of the rule's signals depend on.
        engine: Where pairs are verified; processes of this machine by default.
        config: What was asked of a run that has references, which were joined before: rounds leave out the samples
            that duplicate one.

    Raises:
        MissingExtraError: OpenCV is not installed.
    """
    folder = job.folder
    tested, spared = candidate_clauses(job.rule), settled_clauses(job.rule)
    ranks = {name: folder.joined(name) or {} for name in job.ranked}
    full = {name for name, facts in ranks.items() if facts.get("ranks", {}).get("full")}
    asked: list[Any] = [key, verdict_formats(), [list(map(str, clause)) for clause in job.rule.clauses]]
    asked += [[name, facts.get("ranks"), facts.get("bound")] for name, facts in sorted(ranks.items())]
    settled = None
    if full:
        asked.append(str(job.policy))
        if config is not None and config.references:
            settled = duplicates_outside(folder, config, job.rule, job.policy)
            asked.append(np.flatnonzero(settled).tolist())
    key = cache_key(asked)
    parts = folder.parts("verified")
    before = folder.joined("verified") or {}
    tries = int(before.get("retry", before.get("unseen", 0)))  # of an earlier version, not apart
    if not tries and all(folder.joined(name, key) is not None for name in ("template", "verified")):
        remove_tree(parts)  # of a run that was killed after it had written its marker
        return
    require("cv2", "verify")
    for name in job.rule.signals:
        folder.ranked(name).unlink(missing_ok=True)
    candidates = Candidates.of(job, tested, spared)
    logging.getLogger(LOGGER).info(
        "verify: %s candidate pairs, %.1f for each of %s images", f"{len(candidates.a):,}",
        len(candidates.a) / max(candidates.images, 1), f"{candidates.images:,}",
    )  # fmt: skip
    engine = engine or local_engine(job.computing.threads)
    verifier = PairVerifier(folder, job.shards, parts=parts, out=parts, key=f"{key}-{tries}", engine=engine)
    with engine.lasting():
        seen = look_in_rounds(job, candidates, {name: ranks[name] for name in full}, verifier, settled)
    write_table(folder.edges("verified"), seen.table)
    write_table(folder.edges("template"), verifier.templates)
    for name, more in seen.found.items():
        write_table(folder.ranked(name), more)
    bounds = {name: float(ranks[name]["bound"]) for name in full}
    counts = {**seen.counts, "planted": _planted(job, ranks, seen)} if full else seen.counts
    result = verified_facts(job.rule, str(job.policy), bounds, counts, tries + 1 if verifier.lost else 0)
    write_marker(folder.marker("match", "template"), key, result, folder.path, [folder.edges("template")])
    outputs = [folder.edges("verified"), *(folder.ranked(name) for name in sorted(seen.found))]
    write_marker(folder.marker("match", "verified"), key, result, folder.path, outputs)
    remove_tree(parts)  # last: before the marker, a kill would leave tasks that are done and nothing to show for it


def _planted(job: Job, ranks: Mapping[str, Mapping[str, Any]], seen: Seen) -> dict[str, Any]:
    """By signal the share of planted copies that the lists would hold; nothing where there is no model."""
    found = {}
    for name, kept in seen.listed.items():
        planted = plant(job, name, kept) if len(kept) else None
        if planted is not None:
            floor, k = float(ranks[name]["ranks"]["floor"]), int(ranks[name]["ranks"]["k"])
            scanned = Scanned(job.folder, len(job.shards))
            found[name] = listed_share(planted, scanned, name, kept, floor, k)
    return found
