"""Audit: which of a model's generated images copy its training set, from the hashes and vectors of a finished run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from dedupkit.errors import DedupkitError
from dedupkit.images import ImageError
from dedupkit.memorization.guard import CopyCheck, CopyGuard
from dedupkit.neighbors.cosine.recall import wilson
from dedupkit.runfolder import RunFolder
from dedupkit.sources import find_shards
from dedupkit.sources.sample import Sample
from dedupkit.store import atomic_path, read_columns, write_json, write_table

__all__ = ["AuditResult", "audit"]

_SCHEMA = pa.schema(
    [
        ("key", pa.string()),
        ("source", pa.string()),
        ("prompt", pa.string()),
        ("error", pa.string()),
        ("copy", pa.bool_()),
        ("signal", pa.string()),
        ("score", pa.float32()),
        ("threshold", pa.float32()),
        ("train_key", pa.string()),
        ("kept_key", pa.string()),
        ("group", pa.int64()),
        ("group_size", pa.int32()),
    ]
)
_OVERLAP = 8  # bits of PDQ within which a held-out image is one of the training set


@dataclass(frozen=True, slots=True)
class AuditResult:
    """What an audit counts; shares have a 95 % Wilson interval.

    Attributes:
        run: The run over the training set.
        generated: Number of generated images that could be read.
        unreadable: Number of those that could not.
        copies: Number of generated images that copy a training image.
        share: ``copies`` of ``generated``, and the two ends of its interval.
        groups: Number of distinct groups (or single training images) that are copied.
        eidetic: For k = 1, 10 and 100, the number of these that have at most k training samples.
        real: Number of held-out real images; 0 without them.
        false_alarms: Number of them that were taken for copies.
        false_alarm_share: That share and the two ends of its interval; None without real images.
        takedown: Number of hashes in ``takedown.txt``.
        note: What could not be seen; None where nothing is missing.
    """

    run: str
    generated: int
    unreadable: int
    copies: int
    share: tuple[float, float, float]
    groups: int
    eidetic: Mapping[str, int]
    real: int
    false_alarms: int
    false_alarm_share: tuple[float, float, float] | None
    takedown: int
    note: str | None

    def to_json(self) -> dict[str, Any]:
        """The content of ``audit.json``."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> AuditResult:
        """Read what :meth:`to_json` gives."""
        floor = value["false_alarm_share"]
        shares = {"share": tuple(value["share"]), "false_alarm_share": None if floor is None else tuple(floor)}
        return cls(**{**value, **shares})

    def __str__(self) -> str:
        lines = [
            f"{self.copies:,} of {self.generated:,} generated images copy a training image ({_percent(self.share)})",
            f"{self.groups:,} groups of training images are copied; {self.takedown:,} hashes in takedown.txt",
        ]
        if self.unreadable:
            lines.append(f"{self.unreadable:,} generated images could not be read")
        if self.false_alarm_share is not None:
            alarms = _percent(self.false_alarm_share)
            lines.append(
                f"{self.false_alarms:,} of {self.real:,} held-out real images were taken for copies ({alarms})"
            )
        return "\n".join([*lines, *([f"note: {self.note}"] if self.note else [])])


def audit(
    generated: str | Path,
    against: str | Path,
    out: str | Path,
    *,
    real: str | Path | None = None,
    min_cosine: float | None = None,
    device: str | None = None,
) -> AuditResult:
    """Say which generated images copy a training image, and write ``audit.parquet``, ``audit.json``, ``takedown.txt``.

    Each image is put through :class:`dedupkit.CopyGuard`; no training image is read.

    Args:
        generated: A folder or shards of generated images, with their prompts as captions where there are any.
        against: A finished run over the training set.
        out: The folder to write into.
        real: Real images that were not trained on; the share of them that is taken for copies is the false-alarm rate.
        min_cosine: Least cosine of a copy, as for the guard.
        device: Device for torch.

    Raises:
        DedupkitError: No image in ``generated`` can be read, or ``real`` holds images of the training set.
    """
    folder = RunFolder(against)
    embedders = folder.read_finished().embedders
    given = any(spec.startswith(("precomputed:", "python:")) for spec in embedders.values())
    guard = CopyGuard(against, min_cosine=min_cosine, device=device, embedder=False if given else None)
    alarms, count = (0, 0) if real is None else _floor(guard, real)
    rows: list[dict[str, Any]] = []
    note = None
    copied: dict[tuple[str, int], tuple[int, int]] = {}
    for source, sample, check, error in _checked(guard, generated):
        row: dict[str, Any] = {
            "key": sample.key,
            "source": source,
            "prompt": sample.caption,
            "error": error,
            "copy": False,
        }
        if check is not None:
            row |= {"copy": check.copy, "threshold": check.threshold}
            note = note or check.note
            if check.nearest is not None:
                near = check.nearest
                row |= {name: getattr(near, name) for name in ("signal", "score", "kept_key", "group", "group_size")}
                row["train_key"] = near.key
                if check.copy:
                    name = ("sample", near.sample) if near.group is None else ("group", near.group)
                    copied[name] = (near.sample, near.group_size)
        rows.append(row)
    readable = sum(row["error"] is None for row in rows)
    if not readable:
        first = rows[0]["error"] if rows else "there is none"
        raise DedupkitError(f"no image of {generated} can be read: {first}")
    home = Path(out)
    home.mkdir(parents=True, exist_ok=True)
    write_table(home / "audit.parquet", pa.Table.from_pylist(rows, schema=_SCHEMA))
    hashes = _hashes(folder, copied)
    with atomic_path(home / "takedown.txt") as temporary:
        temporary.write_text("".join(f"{code}\n" for code in hashes))
    copies = sum(row["copy"] for row in rows)
    sizes = [size for _, size in copied.values()]
    result = AuditResult(
        run=str(folder.path),
        generated=readable,
        unreadable=len(rows) - readable,
        copies=copies,
        share=_share(copies, readable),
        groups=len(copied),
        eidetic={str(k): sum(size <= k for size in sizes) for k in (1, 10, 100)},
        real=count,
        false_alarms=alarms,
        false_alarm_share=_share(alarms, count) if count else None,
        takedown=len(hashes),
        note=note,
    )
    write_json(home / "audit.json", result.to_json())
    return result


def _checked(guard: CopyGuard, images: str | Path) -> Iterator[tuple[str, Sample, CopyCheck | None, str | None]]:
    """Each image with what the guard says, or why it cannot be read."""
    for shard in find_shards(images):
        for sample in shard.read():
            if sample.image is None:
                yield shard.source, sample, None, sample.error or "no image"
                continue
            try:
                yield shard.source, sample, guard.check(sample.image), None
            except ImageError as error:
                yield shard.source, sample, None, str(error)


def _floor(guard: CopyGuard, real: str | Path) -> tuple[int, int]:
    """How many of some real images are taken for copies, and how many there are."""
    checks = [(sample.key, check) for _, sample, check, _ in _checked(guard, real) if check is not None]
    if not checks:
        raise DedupkitError(f"no image of {real} can be read, so it gives no false-alarm rate")
    same = [
        (key, check.nearest.key)
        for key, check in checks
        if check.nearest is not None and check.nearest.signal == "pdq" and check.nearest.score <= _OVERLAP
    ]
    if same:
        raise DedupkitError(
            f"{len(same):,} of {len(checks):,} images of {real} are in the training set ({same[0][0]} is {same[0][1]} "
            "there), so they give no false-alarm rate; take images that were not trained on"
        )
    return sum(check.copy for _, check in checks), len(checks)


def _hashes(folder: RunFolder, copied: Mapping[tuple[str, int], tuple[int, int]]) -> list[str]:
    """PDQ hashes of all samples in the copied groups, in hex, each once."""
    table = read_columns(folder.manifest, ["sample", "group", "pdq"])
    groups = [number for kind, number in copied if kind == "group"]
    singles = [number for kind, number in copied if kind == "sample"]
    group = table["group"].fill_null(-1).to_numpy()
    chosen = np.isin(group, groups) | np.isin(table["sample"].to_numpy(), singles)
    codes = table["pdq"].filter(pa.array(chosen)).drop_null().to_pylist()
    return sorted({code.hex() if isinstance(code, bytes) else str(code) for code in codes})


def _share(part: int, whole: int) -> tuple[float, float, float]:
    low, high = wilson(part / whole, whole, 1.96)
    return part / whole, float(low), float(high)


def _percent(share: tuple[float, float, float]) -> str:
    value, low, high = (100 * each for each in share)
    return f"{value:.2f} %, 95 % interval {low:.2f} to {high:.2f} %"
