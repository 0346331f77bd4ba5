"""A finished run, for Python and notebooks: look at it, decide again, write the cleaned data."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any, overload

import pyarrow as pa

from dedupkit.calibration.result import Calibration, read_calibration
from dedupkit.clustering.policy import parse_policy
from dedupkit.clustering.rules import Rule, parse_rule
from dedupkit.errors import DedupkitError
from dedupkit.manifest.filter import KeepFilter, keep_filter
from dedupkit.runfolder.folder import RunFolder
from dedupkit.signals import known_signals
from dedupkit.sources.again import Moved
from dedupkit.store import read_columns, read_json, write_json

__all__ = ["Group", "Groups", "Run"]


class Run:
    """A run folder whose job is done.

    Args:
        path: the folder given as ``out``.

    Raises:
        DedupkitError: there is no finished run.

    Attributes:
        path: the folder.
        config: the content of ``run.json``.
        summary: counts and settings, JSON-ready.
        calibration: what ``calibrate`` said of this run, None if it was not called.
    """

    def __init__(self, path: str | Path) -> None:
        self._folder = RunFolder(path)
        self.path = self._folder.path
        self.config = self._folder.read_finished()
        summary = read_json(self._folder.decision)
        self.summary: dict[str, Any] = {
            "out": str(self.path),
            "rule": self.config["rule_expanded"],
            **summary,
            "shards": len(self.config["shards"]),
            "shard_problems": self._folder.shard_problems(),
            "passed_over": self._folder.passed_over(),
            "without_vector": self._folder.without_vector(),
            "recall": self._recalls(),
        }
        self.calibration = read_calibration(self.path, self.config["rule_expanded"])
        if self.calibration is not None:
            self.summary["calibration"] = self.calibration.digest()

    @property
    def manifest(self) -> pa.Table:
        """The manifest: one row per input sample."""
        return read_columns(self._folder.manifest)

    @property
    def groups(self) -> Groups:
        """The duplicate groups, the largest first."""
        return Groups(self._folder)

    def rethreshold(self, rule: str, *, keep: str | None = None) -> Run:
        """Decide again with another rule or policy; nothing is read or matched again.

        Args:
            rule: within the edges that the run has kept.
            keep: another keep policy; the run's own by default.

        Returns:
            The run, with its manifest and groups rewritten.

        Raises:
            RuleError: the rule or policy cannot be read.
            DedupkitError: the rule needs a hash or a radius that this run has not computed.
        """
        from dedupkit.stages.decide import decide_and_write

        embedders = self.config.get("embedders", {})
        parsed = parse_rule(rule, known_signals(embedders), embedder=next(iter(embedders), None))
        policy = parse_policy(keep or self.config["keep"])
        self._check_covered(parsed)
        config = {**self.config, "rule": parsed.text, "rule_expanded": str(parsed), "keep": str(policy)}
        with self._folder.locked():
            summary = decide_and_write(self._folder, self.config["shards"], parsed, policy)
            write_json(self._folder.config, config)
            write_json(self.path / ".done" / "decide.json", summary)
        return Run(self.path)

    def calibrate(
        self,
        *,
        sample: int = 300,
        precision: float = 0.99,
        judge: bool = False,
        per_band: int = 20,
        seed: int = 0,
        workers: int | None = None,
        **options: Any,
    ) -> Calibration:
        """Measure the rule on copies of the run's own images, and propose thresholds.

        Args:
            sample: images of which copies are planted.
            precision: that thresholds are proposed for.
            judge: open a page on which found pairs are judged; returns when that is finished.
            per_band: pairs to judge of each band of score.
            seed: of every choice at random.
            workers: processes; the number of cores by default.
            options: ``port``, ``device``, ``keep_copies``, ``source`` and ``tell``; for these and the errors see
                :func:`dedupkit.workflows.calibrate.calibrate`.
        """
        from dedupkit.workflows.calibrate import calibrate

        options |= {"seed": seed, "workers": workers}
        return calibrate(self.path, sample=sample, precision=precision, judge=judge, per_band=per_band, **options)

    def apply(
        self,
        to: str | Path,
        *,
        format: str = "webdataset",
        workers: int | None = None,
        shard_size: int | None = None,
        shards: int | None = None,
        source: Moved | None = None,
    ) -> dict[str, Any]:
        """Write what the manifest keeps; see :func:`dedupkit.manifest.export.apply`."""
        from dedupkit.manifest.export import apply

        options: dict[str, Any] = {"shard_size": shard_size, "shards": shards, "source": source}
        return apply(self.path, to, format=format, workers=workers, **options)

    def report(self, path: str | Path | None = None, *, source: Moved | None = None) -> Path:
        """Write report.html (or to ``path``), report.json and DATASET_CARD.md; returns the HTML file.

        Args:
            path: Where the page goes.
            source: Where the data lies now, if it moved since the run.
        """
        from dedupkit.report import write_report

        return write_report(self.path, path, source=source)

    def keep_filter(self) -> KeepFilter:
        """The kept samples as a predicate; see :func:`dedupkit.keep_filter`."""
        return keep_filter(self.path)

    def _check_covered(self, rule: Rule) -> None:
        from dedupkit.stages.covered import missing_for

        missing = missing_for(rule, self._folder, self.config)
        if missing is not None:
            raise DedupkitError(f"{missing}; run again with --rule {str(rule)!r} (only what is missing is computed)")

    def _recalls(self) -> dict[str, dict[str, Any]]:
        """The measured recall of each embedder's search, over the pairs at or above its floor of images with a vector.

        An image without a vector takes part in no pair, so ``without_vector`` says how many there are.
        """
        missing = self._folder.without_vector()
        joined = {name: self._folder.joined(name) for name in self.config.get("embedders", {})}
        return {
            name: {**facts["recall"], "without_vector": missing.get(name, {}).get("count", 0)}
            for name, facts in joined.items()
            if facts and "recall" in facts
        }

    def __repr__(self) -> str:
        s = self.summary
        return (
            f"<dedupkit run {self.path}: {s['samples']:,} samples, {s['keep']:,} kept, {s['remove']:,} removed, "
            f"{s['unreadable']:,} unreadable; rule {s['rule']}>"
        )

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><th style='text-align:left'>{escape(name)}</th><td style='text-align:right'>{escape(value)}</td></tr>"
            for name, value in self.rows()
        )
        return f"<table><caption>{escape(str(self.path))}</caption>{rows}</table>"

    def rows(self) -> list[tuple[str, str]]:
        """The summary as label and text, for tables."""
        s = self.summary
        samples = max(s["samples"], 1)
        shown = [
            ("samples read", f"{s['samples']:,} in {s['shards']:,} shards"),
            ("kept", f"{s['keep']:,}  ({s['keep'] / samples:.1%})"),
            ("removed as duplicates", f"{s['remove']:,}  ({s['remove'] / samples:.1%})"),
            *((f"  because of {reason}", f"{count:,}") for reason, count in s["reasons"].items()),
            ("unreadable", f"{s['unreadable']:,}"),
            ("duplicate groups", f"{s['groups']:,}, the largest of {s['largest_group']:,}"),
            ("rule", s["rule"]),
        ]
        for name, recall in s["recall"].items():
            if recall["low"] < 1 or recall["without_vector"]:
                interval = f"{recall['estimate']:.4f} [{recall['low']:.4f}, {recall['high']:.4f}]"
                among = " among images that have a vector" if recall["without_vector"] else ""
                shown.append((f"recall of {name}", interval + among))
        for name, missing in s["without_vector"].items():
            named = ", ".join(example["key"] for example in missing["examples"])
            shown.append((f"without a vector of {name}", f"{missing['count']:,} of {missing['of']:,}, such as {named}"))
        if self.calibration is not None:
            shown += self.calibration.rows()
        if s["passed_over"]["count"]:
            left = s["passed_over"]
            shown.append(("not read: no sample", f"{left['count']:,}, such as {left['example']}"))
        return shown + [("shard not read to its end", p["source"] + ": " + p["problem"]) for p in s["shard_problems"]]


@dataclass(frozen=True, slots=True)
class Group:
    """A duplicate group.

    Attributes:
        group: its id, the smallest sample in it.
        rows: the manifest's rows of its samples, kept ones first.
        folder: of the run.
    """

    group: int
    rows: list[dict[str, Any]]
    folder: Path

    def __len__(self) -> int:
        return len(self.rows)

    def show(self, most: int = 12) -> Any:
        """Thumbnails with verdicts, as an object that a notebook displays."""
        from dedupkit.report.notebook import GroupView

        return GroupView(self.folder, self.rows[:most], total=len(self.rows))


class Groups(Sequence[Group]):
    """The groups of a run, the largest first; rows are read when a group is asked for."""

    def __init__(self, folder: RunFolder) -> None:
        self._folder = folder
        self.table = read_columns(folder.groups).sort_by([("size", "descending"), ("group", "ascending")])

    def __len__(self) -> int:
        return int(self.table.num_rows)

    @overload
    def __getitem__(self, index: int) -> Group: ...
    @overload
    def __getitem__(self, index: slice) -> list[Group]: ...
    def __getitem__(self, index: int | slice) -> Group | list[Group]:
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(f"group {index} of {len(self)}")
        group = self.table["group"][index % len(self)].as_py()
        rows = read_columns(self._folder.manifest, where=[("group", "=", group)]).to_pylist()
        rows.sort(key=lambda row: (row["verdict"] != "keep", row["sample"]))
        return Group(group, rows, self._folder.path)

    def __iter__(self) -> Iterator[Group]:
        return (self[number] for number in range(len(self)))
