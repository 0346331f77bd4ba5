"""URL lists de-duplicated before anything is downloaded."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from dedupkit.clustering.policy import META, Policy, parse_policy
from dedupkit.clustering.rules import Rule
from dedupkit.errors import DedupkitError
from dedupkit.metadata.conditions import Classes, classes_of, equal_kinds, is_near, parse_list_rule, reason_of
from dedupkit.startup.cores import worker_count
from dedupkit.store import expand_braces, list_glob, staged, write_json

if TYPE_CHECKING:
    from dedupkit.metadata.grouped import GroupedRows
    from dedupkit.metadata.keys import KeySettings
    from dedupkit.metadata.lists import UrlList
    from dedupkit.metadata.outcome import ListSummary, Verdicts

__all__ = ["clean_lists"]

_POLICY = ("pixels", "width", "height", "clip_score", "sample")
_SHOWN = ("url", "hash", "caption")
_NEAR_MEMORY = 4_000_000_000


def clean_lists(
    files: str | Path | Sequence[str | Path],
    to: str | Path,
    *,
    rule: str | None = None,
    keep: str = "sample",
    settings: KeySettings | None = None,
    temporary: str | Path | None = None,
    workers: int | None = None,
    memory: int = _NEAR_MEMORY,
) -> ListSummary:
    """Remove the duplicate rows of URL lists.

    Args:
        files: Parquet, TSV and CSV files with a column of URLs, or patterns of them.
        to: New or empty folder for the cleaned lists, or one that an earlier call wrote, or its URL in an object store.
            Each list keeps its name, its columns and the order of its rows; ``dedupkit/manifest.parquet`` has a verdict
            for each row.
        rule: Conditions joined by ``and`` and ``or``: ``url``; ``hash`` (the first of the columns ``sha256``, ``hash``,
            ``image_phash``, ``md5``, ``sha512``), or one of these by its name; ``caption`` (equal after folding);
            ``url_family`` (equal but for the size that a site offers); ``caption>=0.8`` (Jaccard similarity of the
            words); ``image_phash<=4`` (bits that differ; also ``phash`` and ``hash``, of 16 hexadecimal digits). By
            default ``url or hash`` where a list has hashes, else ``url``.
        keep: Keep policy over ``pixels``, ``width``, ``height``, ``clip_score``, ``sample`` (the row), and
            ``meta:NAME``, a column of the lists' own.
        settings: Normalisation of URLs and captions.
        temporary: Folder for keys, 20 bytes a row and identity; inside ``to`` by default.
        workers: Number of threads, at least 1; by default one for each core that this process may use. The result does
            not depend on it.
        memory: Bytes that near conditions (``caption>=``, ``image_phash<=``) may take.

    Returns:
        The counts, which are also in ``dedupkit/summary.json``.

    Raises:
        RuleError: The rule or policy cannot be read.
        DedupkitError: No such file, no column of URLs, a folder that holds something else or is in use, too little
            room on the disk, more rows, words or pairs than near conditions have memory for.
        MissingExtraError: can_ada is not installed.
        OSError: Something cannot be written.
    """
    from dedupkit.errors import require
    from dedupkit.metadata.grouped import group_rows
    from dedupkit.metadata.keys import KeySettings
    from dedupkit.metadata.lists import open_list
    from dedupkit.metadata.near import NearJoin
    from dedupkit.metadata.outcome import write_manifest
    from dedupkit.metadata.room import Room
    from dedupkit.metadata.target import FOLDER, check_room, claimed, remove_earlier, room_for_keys

    workers = worker_count(workers, least=1)
    policy = parse_policy(keep, _POLICY)
    lists = [open_list(path, policy.meta) for path in _expand(files)]
    known = {role for one in lists for role in one.columns}
    parsed = parse_list_rule(rule or ("url or hash" if "hash" in known else "url"))
    _check_columns(parsed, policy, lists)
    settings = settings or KeySettings()
    if settings.urls.standard:
        require("can_ada", "metadata")
    with staged(to) as target, claimed(target, lists, str(to)) as names:
        needed = equal_kinds(parsed)
        kinds = needed + [(name,) for name in _SHOWN if name in known and (name,) not in needed]
        room = room_for_keys(temporary, target)
        check_room(lists, len(kinds), room.parent, target)
        try:
            grouped = group_rows(lists, kinds, len(needed), settings, policy, room, workers)
        finally:
            shutil.rmtree(room, ignore_errors=True)
        classes = Classes(grouped.labels)
        if any(map(is_near, parsed.clauses)):
            classes = classes_of(
                parsed, needed, classes.labels, NearJoin(lists, settings.captions, Room(memory), workers)
            )
        verdicts = _decide(grouped, classes, policy)
        remove_earlier(target, names)
        reasons = [reason_of(clause) for clause in parsed.clauses]
        manifest = target / FOLDER / "manifest.parquet"
        write_manifest(manifest, [str(one.path) for one in lists], grouped.ends, verdicts, reasons)
        _write_lists(lists, grouped.ends, verdicts, [target / name for name in names], workers)
        summary = replace(
            _summarize(lists, grouped, verdicts, kinds, parsed, policy, settings), odd_hashes=classes.odd_hashes
        )
        write_json(target / FOLDER / "summary.json", {**summary.to_json(), "lists": names})
        return summary


def _expand(files: str | Path | Sequence[str | Path]) -> list[str]:
    listed = [files] if isinstance(files, str | Path) else list(files)
    found: dict[str, None] = {}
    for pattern in listed:
        for name in expand_braces(str(pattern)):
            matches = list_glob(name) if any(mark in name for mark in "*?[") and not Path(name).exists() else [name]
            if not matches:
                raise DedupkitError(f"no such file: {name}")
            found |= dict.fromkeys(matches)
    if not found:
        raise DedupkitError("no list given: name Parquet, TSV or CSV files with a column of URLs")
    return list(found)


def _check_columns(rule: Rule, policy: Policy, lists: Sequence[UrlList]) -> None:
    from dedupkit.metadata.columns import ROLES
    from dedupkit.metadata.near import check_hashes

    names = dict.fromkeys(name for one in lists for name in one.names)
    for name in policy.meta:
        if not any(META + name in one.columns for one in lists):
            raise DedupkitError(
                f"the keep policy names {META}{name}, but no list has a column {name!r} of numbers; "
                f"there are: {', '.join(names)}"
            )
    for name in rule.signals:
        role = "url" if name == "url_family" else name
        if not any(role in one.columns for one in lists):
            raise DedupkitError(
                f"the rule names {name}, but no list has such a column (looked for {', '.join(ROLES[role])}); "
                f"there are: {', '.join(names)}"
            )
    for name in {atom.signal for clause in rule.clauses for atom in clause if atom.bound is not None} - {"caption"}:
        check_hashes(lists, name)


def _decide(grouped: GroupedRows, classes: Classes, policy: Policy) -> Verdicts:
    import numpy as np

    from dedupkit.clustering.classes import class_components, keep_first_of_classes
    from dedupkit.metadata.outcome import Verdicts

    labels, edges = classes.labels, classes.edges
    order = None
    if policy.needs:
        values = {name: np.concatenate(parts) for name, parts in grouped.values.items()}
        readable = labels.shape[1] > sum(end - begin for begin, end, _ in grouped.unreadable)
        for name in policy.meta:
            if readable and np.isnan(values[META + name]).all():
                raise DedupkitError(
                    f"the keep policy names {META}{name}, but no row has a number in the column {name!r}"
                )
        if "pixels" in policy.needs:
            values["pixels"] = values["width"] * values["height"]
        order = policy.order(values, labels.shape[1])
    elif str(policy) == "-sample":
        order = np.arange(labels.shape[1])[::-1].copy()
    witness, kind = keep_first_of_classes(labels, order, edges)
    return Verdicts(witness, kind, class_components(labels, edges), grouped.unreadable)


def _write_lists(
    lists: Sequence[UrlList], ends: Sequence[int], verdicts: Verdicts, paths: Sequence[Path], workers: int
) -> None:
    kept = verdicts.kept()
    starts = [0, *ends]
    with ThreadPoolExecutor(workers) as pool:
        writing = [
            pool.submit(one.write, kept[starts[number] : ends[number]], path)
            for number, (one, path) in enumerate(zip(lists, paths, strict=True))
        ]
        for one in writing:
            one.result()


def _summarize(
    lists: Sequence[UrlList],
    grouped: GroupedRows,
    verdicts: Verdicts,
    kinds: list[tuple[str, ...]],
    rule: Rule,
    policy: Policy,
    settings: KeySettings,
) -> ListSummary:
    import numpy as np

    from dedupkit.clustering.classes import group_sizes
    from dedupkit.metadata.outcome import ListSummary

    rows = grouped.ends[-1]
    unreadable = sum(end - begin for begin, end, _ in grouped.unreadable)
    removed = int((verdicts.witness >= 0).sum())
    single = {kind[0]: number for number, kind in enumerate(kinds) if len(kind) == 1 and kind[0] in _SHOWN}
    counts = np.bincount(verdicts.kind[verdicts.kind >= 0], minlength=len(rule.clauses)).tolist()
    sizes = group_sizes(verdicts.group)
    return ListSummary(
        files=len(lists),
        rows=rows,
        keep=rows - removed - unreadable,
        remove=removed,
        unreadable=unreadable,
        odd_urls=grouped.odd if ("url",) in kinds else 0,
        unique={name: grouped.distinct[number] for name, number in single.items()},
        present={name: grouped.present[number] for name, number in single.items()},
        reasons={reason_of(clause): count for clause, count in zip(rule.clauses, counts, strict=True) if count},
        groups=int((sizes > 1).sum()),
        largest_group=int(sizes.max(initial=1)),
        rule=str(rule),
        keep_policy=str(policy),
        steps={"url": str(settings.urls), "caption": str(settings.captions)},
    )
