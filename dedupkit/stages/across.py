"""The stage that joins a run's samples with earlier runs and reference sets: new with old, never old with old."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from math import inf
from typing import Any

from dedupkit.clustering.rules import Rule
from dedupkit.engine import Progress, Task, ThisProcess, cache_key
from dedupkit.engine.marker import read_marker
from dedupkit.runfolder import RunFolder
from dedupkit.runfolder.scanned import scanned_samples
from dedupkit.signals import JoinSettings, Signal, known_signals
from dedupkit.signals.columns import Scanned, write_edges
from dedupkit.signals.matches import leading
from dedupkit.stages.addresses import ADDRESSES
from dedupkit.stages.outside import across_files, write_labels
from dedupkit.stages.plan import Job, loosest_unranked, ranked_conditions
from dedupkit.stages.references import Opened, gone_shards
from dedupkit.store import remove_tree

__all__ = ["join_references"]

_FORMAT = 3  # raise it when what these tasks write changes
_VERIFIED = "verified"


def join_references(job: Job, own_keys: Mapping[str, str], opened: Sequence[Opened], rules: Sequence[Rule]) -> None:
    """Join the samples with each reference under each signal of its rule; what is there already stays.

    Args:
        job: What is computed.
        own_keys: Digests of the samples and vectors, as :func:`dedupkit.stages.run.run_stages` returns them.
        opened: The references.
        rules: For each the rule by which it is compared.
    """
    _remove_others(job.folder, [(number, name) for number, rule in enumerate(rules) for name in rule.signals])
    with Progress("match references", sum(len(rule.signals) for rule in rules)) as progress:
        for number, (reference, rule) in enumerate(zip(opened, rules, strict=True)):
            keys: dict[str, str] = {}
            for name in sorted(rule.signals, key=lambda name: name == _VERIFIED):
                keys[name] = _join(job, number, reference, rule, name, own_keys, keys)
                progress.advance()


def _join(
    job: Job,
    number: int,
    opened: Opened,
    rule: Rule,
    name: str,
    own_keys: Mapping[str, str],
    done: Mapping[str, str],
) -> str:
    """Join under one signal; returns the key of what was made."""
    how = job.computing
    signal = ADDRESSES.get(name) or known_signals(job.embedders)[name]
    bound, floor = _reach(rule, signal)
    settings = JoinSettings(bound, how.threads, how.target_recall, how.seed, how.device, floor)
    own_key = own_keys.get(name, "") + own_keys["scan"]
    key = cache_key([_FORMAT, own_key, opened.keys[name], signal.join_key(settings), str(bound), floor])
    own = Scanned(job.folder, len(job.shards))
    if floor is not None:
        from dedupkit.stages.known_copies import known_copies

        pairs = float(scanned_samples(job.folder, len(job.shards))) * int(opened.active.sum())
        settings = replace(settings, known=known_copies(job, name, own_keys[name], pairs))
    if name == _VERIFIED:
        from dedupkit.stages.verify_pairs import verdict_formats

        key = cache_key([key, verdict_formats(), sorted(done.items()), str(rule)])
        if not _is_done(job.folder, number, key, opened):
            from dedupkit.stages.verify_across import verify_across

            verify_across(job, number, opened, rule, key)
        return key
    call = partial(_write_join, job.folder, number, signal, own, opened, settings)
    outputs = (str(job.folder.across(number, name)),)
    task = Task("across", f"{number:03d}-{name}", call, key, f"{name} of {opened.reference.name}", outputs)
    ThisProcess().run([task], job.folder.path)
    return key


def _write_join(
    folder: RunFolder, number: int, signal: Signal, own: Scanned, opened: Opened, settings: JoinSettings
) -> dict[str, Any]:
    found = signal.across(own, opened.rows, opened.active, settings)
    files = across_files(folder, number, signal.name)
    edges = write_edges(files.pairs, found.blocks, across=True).edges
    write_labels(files, found)
    return {
        "bound": settings.bound, "edges": edges, "distinct": len(leading(found.other)),
        "rows": int(opened.active.sum()), **found.facts,
    }  # fmt: skip


def _reach(rule: Rule, signal: Signal) -> tuple[float, float | None]:
    """Out to which score all pairs are joined, and down to which nearest rows are."""
    ranked = ranked_conditions(rule, {signal.name} if signal.ranks else ())
    atom, nearest = loosest_unranked(rule, signal.name, ranked), ranked.get(signal.name)
    return inf if atom is None else atom.bound or 0.0, None if nearest is None else nearest.bound


def _is_done(folder: RunFolder, number: int, key: str, opened: Opened) -> bool:
    """Whether the pairs were looked at, and no image may be there now that was not there then."""
    marker = read_marker(folder.across_marker(number, _VERIFIED))
    if marker is None or marker.key != key or marker.result.get("retry") or not marker.holds(folder.path):
        return False
    return not marker.result["unseen"] or marker.result.get("gone") == gone_shards(opened.find_shards())


def _remove_others(folder: RunFolder, wanted: Sequence[tuple[int, str]]) -> None:
    """Remove joins that nothing asks for any more, so that nobody takes them for what is there now."""
    keep = {folder.across_marker(number, name) for number, name in wanted}
    home = folder.across_marker(0, "any").parent
    for marker in sorted(home.glob("*.json")) if home.exists() else []:
        if marker not in keep:
            number, _, name = marker.stem.partition("-")
            remove_tree(marker)
            remove_tree(folder.across(int(number), name))
