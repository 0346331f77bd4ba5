"""URL lists de-duplicated before anything is downloaded."""

from __future__ import annotations

import os
import shutil
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dedupkit.clustering.policy import Policy, parse_policy
from dedupkit.clustering.rules import Rule, parse_rule, reason_of
from dedupkit.errors import DedupkitError
from dedupkit.store import expand_braces, is_temporary, list_glob, read_json, sweep, write_json

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from dedupkit.metadata.keys import Keys, KeySettings
    from dedupkit.metadata.lists import Batch, UrlList
    from dedupkit.metadata.outcome import ListSummary, Verdicts

__all__ = ["clean_lists"]

_KEYS = "dedupkit-keys.tmp"  # what a killed call leaves of it is an earlier call's too
_FOLDER = "dedupkit"  # inside the output: what img2dataset does not take for a list
_POLICY = ("pixels", "width", "height", "clip_score", "sample")
_SHOWN = ("url", "hash", "caption")
_MOST_ROWS = 2**31 - 1


def clean_lists(
    files: str | Path | Sequence[str | Path],
    to: str | Path,
    *,
    rule: str | None = None,
    keep: str = "sample",
    settings: KeySettings | None = None,
    temporary: str | Path | None = None,
    workers: int | None = None,
) -> ListSummary:
    """Remove the duplicate rows of URL lists.

    Args:
        files: Parquet, TSV and CSV files with a column of URLs, or patterns of them.
        to: a new or empty folder for the cleaned lists, or one that an earlier call wrote. Each list keeps its name,
            its columns and the order of its rows; ``dedupkit/manifest.parquet`` has a verdict for each row.
        rule: identities joined by ``and`` and ``or``: ``url``, ``hash`` (a column ``sha256``, ``hash``,
            ``image_phash``, …), ``caption`` (equal after folding) and ``url_family`` (equal but for the size that a
            site offers). By default ``url or hash`` where a list has hashes, else ``url``.
        keep: keep policy over ``pixels``, ``width``, ``height``, ``clip_score`` and ``sample`` (the row).
        settings: how URLs and captions are normalised.
        temporary: folder for keys, 20 bytes a row and identity; inside ``to`` by default.
        workers: number of threads; all cores by default. The result does not depend on it.

    Returns:
        The counts, which are also in ``dedupkit/summary.json``.

    Raises:
        RuleError: the rule or policy cannot be read.
        DedupkitError: no such file, no column of URLs, a folder that holds something else, too little room on the disk.
        MissingExtraError: can_ada is not installed.
        OSError: something cannot be written.
    """
    from dedupkit.errors import require
    from dedupkit.metadata.keys import IDENTITIES, KeySettings
    from dedupkit.metadata.lists import open_list
    from dedupkit.metadata.outcome import write_manifest

    lists = [open_list(path) for path in _expand(files)]
    known = {role for one in lists for role in one.columns}
    parsed = parse_rule(rule or ("url or hash" if "hash" in known else "url"), dict.fromkeys(IDENTITIES, "identity"))
    _check_columns(parsed, known)
    policy = _policy(keep)
    settings = settings or KeySettings()
    if settings.urls.standard:
        require("can_ada", "metadata")
    target = Path(to)
    names = _claim(target, lists)
    kinds = [tuple(atom.signal for atom in clause) for clause in parsed.clauses]
    kinds += [(name,) for name in _SHOWN if name in known and (name,) not in kinds]
    room = Path(temporary or target) / _KEYS
    _check_room(lists, len(kinds), room.parent, target)
    workers = workers or os.cpu_count() or 1
    try:
        grouped = _group(lists, kinds, len(parsed.clauses), settings, policy, room, workers)
    finally:
        shutil.rmtree(room, ignore_errors=True)
    verdicts = _decide(grouped, policy)
    reasons = [reason_of(clause) for clause in parsed.clauses]
    manifest = target / _FOLDER / "manifest.parquet"
    write_manifest(manifest, [str(one.path) for one in lists], grouped.ends, verdicts, reasons)
    _write_lists(lists, grouped.ends, verdicts, [target / name for name in names], workers)
    summary = _summarize(lists, grouped, verdicts, kinds, parsed, policy, settings)
    write_json(target / _FOLDER / "summary.json", {**summary.to_json(), "lists": names})
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


def _check_columns(rule: Rule, known: set[str]) -> None:
    from dedupkit.metadata.lists import ROLES

    for name in rule.signals:
        role = "url" if name == "url_family" else name
        if role not in known:
            raise DedupkitError(
                f"the rule names {name}, but no list has such a column (looked for {', '.join(ROLES[role])}); "
                f"there are: {', '.join(sorted(known))}"
            )


def _policy(text: str) -> Policy:
    policy = parse_policy(text)
    unknown = [name for name, _ in policy.columns if name not in _POLICY]
    if unknown:
        raise DedupkitError(f"URL lists cannot be ordered by {unknown[0]}; known: {', '.join(_POLICY)}")
    return policy


def _claim(target: Path, lists: Sequence[UrlList]) -> list[str]:
    """Check that the folder is new or an earlier call's, remove what that call wrote; returns the lists' names."""
    names = [one.path.name for one in lists]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise DedupkitError(f"two lists are called {twice}; clean them into folders of their own")
    for one in lists:
        folder = one.path.resolve().parent
        if target.resolve() == folder or folder / one.path.name == target.resolve():
            raise DedupkitError(f"{target} holds the list {one.path}; choose another --to")
    if target.exists() and not target.is_dir():
        raise DedupkitError(f"{target} is a file; --to takes a folder")
    earlier = read_json(target / _FOLDER / "summary.json") if target.exists() else None
    present = [entry.name for entry in target.iterdir() if not is_temporary(entry.name)] if target.exists() else []
    mine = {_FOLDER, _KEYS, *(earlier.get("lists", []) if isinstance(earlier, dict) else [])}
    if set(present) - mine or (present and not isinstance(earlier, dict) and present != [_FOLDER]):
        raise DedupkitError(f"{target} is not empty and was not written by this command; choose another --to")
    target.mkdir(parents=True, exist_ok=True)
    sweep(target)
    sweep(target / _FOLDER)
    if isinstance(earlier, dict):
        for name in earlier.get("lists", []):
            (target / name).unlink(missing_ok=True)
        (target / _FOLDER / "manifest.parquet").unlink(missing_ok=True)
    else:
        write_json(target / _FOLDER / "summary.json", {"lists": names})
    return names


def _check_room(lists: Sequence[UrlList], kinds: int, keys: Path, target: Path) -> None:
    from dedupkit.metadata.grouping import KEY_BYTES

    sizes = sum(one.path.stat().st_size for one in lists)
    need = {keys: sum(_rows(one) for one in lists) * kinds * KEY_BYTES, target: sizes}
    if keys.resolve() == target.resolve():
        need = {target: sum(need.values())}
    for folder, wanted in need.items():
        folder.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(folder).free
        if wanted > free:
            raise DedupkitError(
                f"about {wanted / 1e9:.1f} GB are needed in {folder}, and {free / 1e9:.1f} GB are free; "
                "name another folder with --temporary or --to"
            )


def _rows(one: UrlList) -> int:
    """Rows of a list, or an estimate."""
    known = getattr(one, "rows", None)
    return known if known is not None else one.path.stat().st_size // 60 + 1


class _Grouped:
    """What the lists hold: labels by kind of key, values for the policy, and counts."""

    def __init__(self, kinds: int) -> None:
        self.ends: list[int] = []
        self.labels: Any = None
        self.distinct = [0] * kinds
        self.present = [0] * kinds
        self.odd = 0
        self.unreadable: list[tuple[int, int, str]] = []
        self.values: dict[str, list[NDArray[np.float64]]] = {}


def _group(
    lists: Sequence[UrlList],
    kinds: list[tuple[str, ...]],
    alternatives: int,
    settings: KeySettings,
    policy: Policy,
    room: Path,
    workers: int,
) -> _Grouped:
    """Read the lists once; label each row by the first with the same key, for the alternatives of the rule.

    The kinds of keys that follow them are counted alone.
    """
    import numpy as np

    from dedupkit.metadata.grouping import KeyParts

    grouped, total = _Grouped(len(kinds)), 0
    rows = sum(_rows(one) for one in lists)
    with ExitStack() as stack:
        parts = [stack.enter_context(KeyParts(room / str(number), rows)) for number in range(len(kinds))]
        pool = stack.enter_context(ThreadPoolExecutor(workers))
        for batch, keys in _keyed(lists, kinds, settings, policy, pool, 2 * workers, grouped):
            for number, (part, one) in enumerate(zip(parts, keys, strict=True)):
                part.add(one.hashes, one.state, total)
                grouped.present[number] += int(one.state.sum())
                grouped.odd += one.odd
            if batch.problem is not None:
                grouped.unreadable.append((total, total + batch.rows, batch.problem))
            total += batch.rows
            if total > _MOST_ROWS:
                raise DedupkitError(f"more than {_MOST_ROWS:,} rows; clean the lists in several calls")
        grouped.labels = np.full((alternatives, total), -1, np.int32)
        for number, part in enumerate(parts):
            labels = grouped.labels[number] if number < alternatives else np.empty(total, np.int32)
            grouped.distinct[number] = part.label(labels)
    return grouped


def _keyed(
    lists: Sequence[UrlList],
    kinds: list[tuple[str, ...]],
    settings: KeySettings,
    policy: Policy,
    pool: ThreadPoolExecutor,
    ahead: int,
    grouped: _Grouped,
) -> Iterator[tuple[Batch, list[Keys]]]:
    """The batches of all lists in order with their keys, of which a few are made ahead."""
    from dedupkit.metadata.keys import batch_keys

    needed = ["width", "height"] if "pixels" in policy.needs else []
    needed += [name for name in policy.needs if name != "pixels"]
    roles = sorted({*needed, *("url" if name == "url_family" else name for kind in kinds for name in kind)})
    waiting: deque[tuple[Batch, Future[list[Keys]]]] = deque()
    total = 0
    for one in lists:
        for batch in one.batches(roles):
            total += batch.rows
            for name in needed:
                grouped.values.setdefault(name, []).append(_numbers(batch.columns.get(name), batch.rows))
            waiting.append((batch, pool.submit(batch_keys, batch.columns, batch.rows, kinds, settings)))
            if len(waiting) > ahead:
                first, keys = waiting.popleft()
                yield first, keys.result()
        grouped.ends.append(total)
    while waiting:
        first, keys = waiting.popleft()
        yield first, keys.result()


def _numbers(column: Any, rows: int) -> NDArray[np.float64]:
    import numpy as np
    import pyarrow as pa

    if column is None:
        return np.full(rows, np.nan)
    try:
        values: NDArray[np.float64] = column.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
    except pa.ArrowException:
        return np.full(rows, np.nan)
    return values.astype(np.float64)


def _decide(grouped: _Grouped, policy: Policy) -> Verdicts:
    import numpy as np

    from dedupkit.clustering.classes import class_components, keep_first_of_classes
    from dedupkit.metadata.outcome import Verdicts

    labels = grouped.labels
    order = None
    if policy.needs:
        values = {name: np.concatenate(parts) for name, parts in grouped.values.items()}
        if "pixels" in policy.needs:
            values["pixels"] = values["width"] * values["height"]
        order = policy.order(values, labels.shape[1])
    elif str(policy) == "-sample":
        order = np.arange(labels.shape[1])[::-1].copy()
    witness, kind = keep_first_of_classes(labels, order)
    return Verdicts(witness, kind, class_components(labels), grouped.unreadable)


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
    grouped: _Grouped,
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
