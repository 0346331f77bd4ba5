"""A finished run, for Python and notebooks: look at it, decide again, write the cleaned data."""

from __future__ import annotations

from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import Any

import pyarrow as pa

from dedupkit.calibration.result import Calibration, read_calibration
from dedupkit.captions.modes import CaptionMode
from dedupkit.clustering.grammar import parse_rule
from dedupkit.clustering.policy import TemplatePolicy, parse_policy
from dedupkit.clustering.rules import Rule
from dedupkit.embedding.fitted import fitted_specs
from dedupkit.errors import DedupkitError
from dedupkit.manifest.filter import KeepFilter, keep_filter
from dedupkit.manifest.rows import FileRows, TableRows
from dedupkit.runfolder import RunConfig, RunFolder
from dedupkit.signals import known_signals
from dedupkit.sources.again import Moved
from dedupkit.stages import decide as deciding
from dedupkit.store import read_columns
from dedupkit.workflows.against import names_against_rule
from dedupkit.workflows.groups import Group, Groups
from dedupkit.workflows.request import parse_run_rule
from dedupkit.workflows.summary import summarize
from dedupkit.workflows.verdicts import Borderline, Verdicts

__all__ = ["Borderline", "Draft", "Group", "Groups", "Run"]


class Run(Verdicts):
    """A run folder whose job is done. It stands for the folder's name wherever a run is asked for.

    Args:
        path: The folder given as ``out``.
        keeper: What keeps a temporary folder alive as long as the run.

    Raises:
        DedupkitError: There is no finished run.

    Attributes:
        path: The folder on this machine.
        shown: The folder, or its URL where it lies in an object store.
        config: Content of ``run.json``.
        summary: Counts and settings, JSON-ready.
        calibration: What ``calibrate`` said of this run, None if it was not called.
    """

    def __init__(self, path: str | PathLike[str], *, keeper: object = None) -> None:
        folder = RunFolder(path)
        decision = folder.verdicts()
        config = folder.read_config()
        summary = summarize(folder, config, dict(decision.summary))
        super().__init__(folder, config, summary, FileRows(folder.manifest), path if keeper is None else keeper)
        self.calibration = read_calibration(self.path, config.rule_expanded)
        if self.calibration is not None:
            self.summary["calibration"] = self.calibration.digest()

    def __fspath__(self) -> str:
        return self.shown

    def _groups_table(self) -> pa.Table:
        return read_columns(self._folder.groups)

    def decide(self, rule: str | None = None, *, keep: str | None = None, templates: str | None = None) -> Draft:
        """Try another rule or policy in memory; nothing is read or matched again, and nothing is written.

        A rule counts for reference sets too, unless the run was made with a rule of its own for these.

        Args:
            rule: A rule within the pairs that the run has kept; the run's own by default.
            keep: Another keep policy; the run's own by default.
            templates: ``keep`` or ``cap:M``, see :func:`dedupkit.dedup`; the run's own by default.

        Returns:
            The verdicts that it gives, to be looked at like a run, and saved if they are better.

        Raises:
            RuleError: The rule or policy cannot be read.
            DedupkitError: The rule needs a hash or a radius that this run has not computed.

        Example::

            draft = run.decide("exact or pdq<=20")
            print(draft.summary["remove"], "instead of", run.summary["remove"])
            run = draft.save()
        """
        config = self._config
        embedders = fitted_specs(self._folder, config.embedders)
        if rule is None or rule.strip() == config.rule.strip():  # a preset's floor may come from this run
            parsed = replace(parse_rule(config.rule_expanded, known_signals(embedders)), text=config.rule)
        else:
            parsed = parse_run_rule(rule, CaptionMode.parse(config.captions), embedders)
            if config.against_rule and not names_against_rule(config):
                config = replace(config, against_rule=str(parse_run_rule(rule, CaptionMode(), embedders)))
        policy = parse_policy(keep or config.keep)
        families = str(TemplatePolicy.parse(templates or config.templates))
        config = replace(config, rule=parsed.text, rule_expanded=str(parsed), keep=str(policy), templates=families)
        self._check_covered(parsed, config)
        decided = deciding.decide_run(self._folder, config, parsed, policy, check=True)
        return Draft(self._folder, config, decided, self._keeper)

    def rethreshold(self, rule: str, *, keep: str | None = None, templates: str | None = None) -> Run:
        """Decide again with another rule or policy and write the verdicts; see :meth:`decide`.

        Args:
            rule: A rule within the pairs that the run has kept.
            keep: Another keep policy; the run's own by default.
            templates: ``keep`` or ``cap:M``; the run's own by default.

        Returns:
            The run, with its manifest and groups rewritten.

        Raises:
            RuleError: The rule or policy cannot be read.
            DedupkitError: The rule needs a hash or a radius that this run has not computed.
        """
        return self.decide(rule, keep=keep, templates=templates).save()

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
        """Measure the rule on synthetic duplicates of the run's own images, and propose thresholds.

        Args:
            sample: Number of images to make synthetic duplicates of.
            precision: Precision that thresholds are proposed for.
            judge: Whether to open a page on which found pairs are judged; returns when that is finished.
            per_band: Number of pairs to judge in each stratum of scores.
            seed: Seed for all random choices.
            workers: Number of processes; by default one for each core that this process may use, with 0 this process
                alone.
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
        caption_seed: int | None = None,
        engine: str = "local",
        address: str | None = None,
    ) -> dict[str, Any]:
        """Write what the manifest keeps; see :func:`dedupkit.manifest.export.apply`."""
        from dedupkit.manifest.export import apply

        options: dict[str, Any] = {"shard_size": shard_size, "shards": shards, "source": source}
        options |= {"caption_seed": caption_seed, "engine": engine, "address": address}
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
        return keep_filter(self)

    def _check_covered(self, rule: Rule, config: RunConfig) -> None:
        from dedupkit.stages.covered import changed_earlier, missing_for
        from dedupkit.stages.meta import refuse_unstored

        changed = changed_earlier(config)
        if changed is not None:
            raise DedupkitError(f"{changed} was decided again since this run was made; run the same command again")
        missing = missing_for(rule, self._folder, config)
        if missing is not None:
            how = f"--rule {rule.text!r}" + (f" --keep {config.keep!r}" if config.keep != self._config.keep else "")
            raise DedupkitError(f"{missing}; run again with {how} (only what is missing is computed)")
        refuse_unstored(parse_policy(config.keep).meta, self._folder)

    def rows(self) -> list[tuple[str, str]]:
        """The summary as label and text, for tables."""
        return super().rows() + ([] if self.calibration is None else self.calibration.rows())

    def __repr__(self) -> str:
        return f"<dedupkit run {self._folder.shown}: {self._counts()}>"


class Draft(Verdicts):
    """The verdicts of a rule that was tried on a run, in memory: look at them as at a run, and save them or not.

    Args:
        folder: Folder of the run.
        config: What was asked of the run, with this rule and policy.
        decided: What the rule decides.
        keeper: What keeps a temporary run folder alive.
    """

    def __init__(self, folder: RunFolder, config: RunConfig, decided: deciding.Verdicts, keeper: object = None) -> None:
        rows = TableRows(lambda: pa.concat_tables(decided.tables()))
        super().__init__(folder, config, summarize(folder, config, decided.summary()), rows, keeper)
        self._decided = decided

    def _groups_table(self) -> pa.Table:
        return self._decided.groups()

    def save(self) -> Run:
        """Write these verdicts into the run folder, in place of those that are there; returns the run.

        Raises:
            DedupkitError: Another process is writing into the folder, or its samples or pairs changed.
            OSError: The folder cannot be written.
        """
        with self._folder.locked():
            self._decided.write()
        return Run(self.path, keeper=self._keeper)

    def __repr__(self) -> str:
        return f"<verdicts not saved to {self._folder.shown}: {self._counts()}>"
