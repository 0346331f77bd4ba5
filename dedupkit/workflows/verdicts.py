"""What can be asked of verdicts, whether a run folder holds them or a rule was just tried in memory."""

from __future__ import annotations

from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from dedupkit.manifest.rows import Rows
from dedupkit.runfolder import RunConfig, RunFolder
from dedupkit.workflows.explained import Explanation, explain, find_sample
from dedupkit.workflows.groups import Groups
from dedupkit.workflows.summary import summary_rows

__all__ = ["Borderline", "Verdicts"]


@dataclass(frozen=True, slots=True, repr=False)
class Borderline:
    """A removed sample near the bound that let it go, beside the kept sample that it duplicates.

    Attributes:
        removed: Row of the manifest.
        witness: Row of the manifest of the kept sample.
        folder: Folder of the run.
        keeper: What keeps a temporary run folder alive.
    """

    removed: dict[str, Any]
    witness: dict[str, Any]
    folder: Path
    keeper: object = field(default=None, compare=False)

    @property
    def reason(self) -> str:
        """The alternative of the rule that holds between the two."""
        return str(self.removed["reason"])

    @property
    def score(self) -> float:
        """The score between the two: bits, or a similarity."""
        return float(self.removed["score"])

    def show(self) -> Any:
        """Both images, as an object that a notebook displays."""
        from dedupkit.report.notebook import GroupView

        return GroupView(self.folder, [self.witness, self.removed], 2, self.keeper)

    def __repr__(self) -> str:
        removed, witness = self.removed["key"], self.witness["key"]
        return f"<{removed} removed as a duplicate of {witness}: {self.reason}, {self.score:g}>"

    def _repr_html_(self) -> str:
        return str(self.show()._repr_html_())


class Verdicts:
    """The verdict of every sample under one rule and keep policy.

    Args:
        folder: Folder of the run.
        config: What was asked of the run, with this rule and policy.
        summary: Counts and settings, JSON-ready.
        rows: The manifest.
        keeper: What keeps a temporary run folder alive.
    """

    def __init__(
        self, folder: RunFolder, config: RunConfig, summary: dict[str, Any], rows: Rows, keeper: object = None
    ) -> None:
        self._folder, self._config, self._rows, self._keeper = folder, config, rows, keeper
        self.path = folder.path
        self.shown = folder.shown
        self.config = config.to_json()
        self.summary = summary

    def _groups_table(self) -> pa.Table:
        raise NotImplementedError

    @property
    def manifest(self) -> pa.Table:
        """The manifest: one row per input sample."""
        return self._rows.table()

    @property
    def kept(self) -> pa.Table:
        """Rows of the manifest of the samples that are kept; ``sample`` is the number in the input."""
        return self._rows.table(verdict="keep")

    @property
    def removed(self) -> pa.Table:
        """Rows of the manifest of the samples that are removed."""
        return self._rows.table(verdict="remove")

    @property
    def groups(self) -> Groups:
        """The duplicate groups, the largest first."""
        return Groups(self.path, self._groups_table(), self._rows, self._keeper)

    @property
    def shards(self) -> pa.Table:
        """One row a shard: ``source``, ``samples``, ``keep``, ``remove``, ``unreadable``, ``blocked``, ``problem``.

        ``problem`` says why a shard could not be read to its end; null where it was.
        """
        from dedupkit.report.tables import shard_counts

        return shard_counts(self._folder, self._config.shards, self._rows.table(["verdict"])["verdict"])

    def borderline(self, count: int = 20) -> list[Borderline]:
        """The removals that a slightly stricter rule would not have made: judge the rule by these.

        Args:
            count: Number of pairs at most; each kept sample appears once.

        Returns:
            Pairs of a removed sample and its witness, for each alternative of the rule the nearest to its bound first.
        """
        from dedupkit.report.borderline import nearest_bound
        from dedupkit.report.tables import REMOVED_COLUMNS, removed_of
        from dedupkit.report.words import read_rule

        columns = list(REMOVED_COLUMNS)
        table = self._rows.table([*columns, "verdict"], verdict="remove").select(columns).combine_chunks()
        reason = pc.dictionary_encode(table["reason"])
        removed = removed_of([table.set_column(columns.index("reason"), "reason", reason)])
        rule = read_rule(self._config.rule_expanded, self._config.embedders)
        pairs = nearest_bound(removed, rule, count)
        rows = self._rows.rows(sample for pair in pairs for sample in pair)
        return [Borderline(rows[sample], rows[witness], self.path, self._keeper) for sample, witness in pairs]

    def explain(self, key: str | int, source: str | None = None) -> Explanation:
        """All that is known of one sample: its verdict in words, its witness, its score, its group.

        Args:
            key: Its key, or its number in the input.
            source: Its shard (the end of its name is enough), where several shards have this key.

        Raises:
            DedupkitError: There is no such sample, or there are several; the message lists what comes near.
            TypeError: ``key`` is neither text nor a whole number.

        Example::

            print(run.explain("000012345"))
        """
        sample = find_sample(self._rows, key, source)
        return explain(self._folder, self._config, self._rows, sample)

    def rows(self) -> list[tuple[str, str]]:
        """The summary as label and text, for tables."""
        return summary_rows(self.summary)

    def _counts(self) -> str:
        s = self.summary
        blocked = f", {s['blocked']:,} blocked" if s.get("blocked") else ""
        return (
            f"{s['samples']:,} samples, {s['keep']:,} kept, {s['remove']:,} removed, {s['unreadable']:,} unreadable"
            f"{blocked}; rule {s['rule']}"
        )

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><th style='text-align:left'>{escape(name)}</th><td style='text-align:right'>{escape(value)}</td></tr>"
            for name, value in self.rows()
        )
        return f"<table><caption>{escape(self.shown)}</caption>{rows}</table>"
