"""The run folder: who may use it, what was asked of it, and whether its verdicts answer that."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dedupkit.engine.marker import read_marker
from dedupkit.errors import DedupkitError
from dedupkit.runfolder.again import command
from dedupkit.runfolder.config import LAYOUT, RunConfig
from dedupkit.runfolder.decision import DecisionRecord, decision_digest, file_states, inputs_digest
from dedupkit.runfolder.placed import Placed
from dedupkit.store import (
    digest_of,
    is_remote,
    is_temporary,
    parsed_json,
    read_json,
    remove_tree,
    sweep,
    write_json,
)

__all__ = ["RunFolder"]

_AGAIN = "run the same command again to go on"
_IN_MEMORY = "images-in-memory-"  # begins the name of the source that was no file


class RunFolder(Placed):
    """A run folder: its paths, its configuration, its lock and its verdicts.

    Args:
        path: The folder, or the URL of one in an object store; it need not exist.

    Raises:
        DedupkitError: The store cannot be used, or another process of this machine writes into the folder.
    """

    # What was asked ---------------------------------------------------------------------------------------------------

    def read_config(self) -> RunConfig:
        """What was asked of this run.

        Raises:
            DedupkitError: There is no run here, its ``run.json`` is damaged, or its layout is of another version.
        """
        if not (self.config.exists() if self._unpulled is None else self._unpulled):
            raise DedupkitError(
                f"{self.shown} holds no run (no run.json); make one with: dedupkit run SOURCE --out DIR"
            )
        config = self.earlier()
        if config is None:
            raise DedupkitError(
                f"{self.shown}/{self.config.name} is damaged; give the command that made the run again (dedupkit run "
                f"SOURCE --out {self.shown}), only what is missing is computed"
            )
        if config.layout != LAYOUT:
            raise DedupkitError(
                f"{self.shown} was written by dedupkit {config.dedupkit} in layout {config.layout}, this version reads "
                f"layout {LAYOUT}; give the command that made the run again, and it is made anew in the same folder"
            )
        return config

    def earlier(self) -> RunConfig | None:
        """What was asked of this run, also by an older version; None where that is missing or damaged.

        Raises:
            DedupkitError: A later version of dedupkit wrote it.
        """
        value = read_json(self.config) if self._unpulled is None else parsed_json(self._unpulled)
        layout = value.get("layout") if isinstance(value, dict) else None
        if isinstance(layout, int) and layout > LAYOUT:
            raise DedupkitError(
                f"{self.shown} was written in layout {layout} by a later version of dedupkit, this one reads up to "
                f"{LAYOUT}; update dedupkit or choose another --out"
            )
        try:
            return RunConfig.from_json(value) if isinstance(value, dict) else None
        except ValueError:
            return None

    def write_config(self, config: RunConfig) -> None:
        """Write ``run.json``; verdicts that answer something else no longer count."""
        write_json(self.config, config.to_json(), sort_keys=False)  # the first embedder is the one that presets take
        self.push([self.config])

    # What was joined --------------------------------------------------------------------------------------------------

    def joined(self, signal: str, key: str | None = None) -> dict[str, Any] | None:
        """What the match stage says of a signal's edges; None where it was not joined.

        Args:
            signal: Name of the signal.
            key: Digest of what the edges were made from, then the files are checked too; None to take what is there.
        """
        marker = read_marker(self.marker("match", signal))
        if marker is None or (key is not None and (marker.key != key or not marker.holds(self.path))):
            return None
        return marker.result

    def joined_across(self, number: int, signal: str) -> dict[str, Any] | None:
        """What is known of the join of the samples with a reference under one signal; None where there is none."""
        marker = read_marker(self.across_marker(number, signal))
        return None if marker is None else marker.result

    # The verdicts -----------------------------------------------------------------------------------------------------

    def inputs(self, signals: Iterable[str], *, check: bool = False) -> str:
        """Digest of what is decided about; arguments and errors as those of :func:`.inputs_digest`."""
        return inputs_digest(self, self.read_config(), signals, check=check)

    def clear_staged(self) -> None:
        """Remove verdicts that a killed process prepared, of which another rule or mode may write fewer files."""
        for name in self._verdict_files():
            (self.staged / name).unlink(missing_ok=True)

    def publish(self, inputs: str, signals: Sequence[str], summary: dict[str, Any], config: RunConfig) -> None:
        """Put the verdicts that lie in ``staged`` into their place, at once.

        Args:
            inputs: What was decided about, from :meth:`inputs`.
            signals: The signals of the rule.
            summary: Counts.
            config: What the verdicts answer; it becomes the run's configuration.
        """
        write_json(self.staged / self.config.name, config.to_json(), sort_keys=False)
        verdicts = DecisionRecord(
            digest=decision_digest(config, inputs),
            rule=config.rule_expanded,
            keep=config.keep,
            signals=tuple(sorted(signals)),
            config=digest_of(config.to_json()),
            inputs=inputs,
            files=file_states(
                self.staged, tuple(name for name in self._verdict_files() if (self.staged / name).exists())
            ),
            summary=summary,
        )
        verdicts.write(self.staged / self.decision.name)  # from here on the next process would finish
        self.push()
        self._finish_publishing()
        self.push()

    def _verdict_files(self) -> tuple[str, ...]:
        names = (self.manifest.name, self.groups.name, self.templates.name)
        return (*names, self.families.name, self.earlier_captions.name)

    def _finish_publishing(self) -> None:
        if not (self.staged / self.decision.name).is_file():
            return
        for path in (self.templates, self.families, self.earlier_captions):
            if not (self.staged / path.name).exists() and (self.staged / self.manifest.name).exists():
                path.unlink(missing_ok=True)  # of another rule or caption mode
        for path in (
            *(self.path / name for name in self._verdict_files()),
            self.config,
            self.decision,
        ):  # decision.json last
            staged = self.staged / path.name
            if staged.exists():
                if path.is_dir():
                    remove_tree(path)
                staged.replace(path)
        remove_tree(self.staged)

    def verdicts(self) -> DecisionRecord:
        """What the verdicts in this folder belong to, once it is clear that they answer what was asked.

        Raises:
            DedupkitError: There is no run, or its verdicts are missing, damaged, or of another rule, policy or input;
                the message says what to run.
        """
        if (self.staged / self.decision.name).is_file():
            with self.locked():  # finishes what a killed process began to publish
                pass
        config = self.read_config()
        verdicts = DecisionRecord.read(self.decision)
        if verdicts is None:
            raise self._unfinished(config)
        if (verdicts.rule, verdicts.keep) != (config.rule_expanded, config.keep):
            was, now = (f"{rule} (keep {keep})" for rule, keep in (
                (verdicts.rule, verdicts.keep), (config.rule_expanded, config.keep),
            ))  # fmt: skip
            raise self._unfinished(config, f": its verdicts are those of {was}, and the run asks for {now}")
        if verdicts.config != digest_of(config.to_json()):
            raise self._unfinished(config, ": its verdicts are of another run.json than the one that is there")
        damaged = verdicts.damaged(self.path)
        if damaged is not None:
            raise DedupkitError(
                f"{self.shown}/{damaged} is missing or damaged; {_AGAIN}, it is made anew: {self.again(config)}"
            )
        if self.inputs(verdicts.signals) != verdicts.inputs:
            raise self._unfinished(config, ": its verdicts are of other samples or pairs than those that are there")
        return verdicts

    def _unfinished(self, config: RunConfig, why: str = "") -> DedupkitError:
        return DedupkitError(f"the run in {self.shown} is not finished{why}; {_AGAIN}: {self.again(config)}")

    def again(self, config: RunConfig, embed: Sequence[str] = ()) -> str:
        """The command that goes on with this run, with further embedders, from where its sources were named."""
        if config.sources[0].startswith(_IN_MEMORY):
            return "the call of dedup that made it" + (f", with embed={embed[0]!r}" if embed else "")
        given = command(config, self.shown, embed=embed)
        if config.directory in (None, str(Path.cwd())) or not Path(str(config.directory)).is_dir():
            return given
        return f"cd {shlex.quote(str(config.directory))} && {given}"

    def is_decided(self, config: RunConfig) -> bool:
        """Whether the verdicts in this folder are whole and answer this configuration, for what lies there now.

        Raises:
            DamagedError: Samples or edges are missing.
        """
        verdicts = DecisionRecord.read(self.decision)
        if verdicts is None or verdicts.config != digest_of(config.to_json()):
            return False
        whole = verdicts.damaged(self.path, whole_up_to=None) is None
        return whole and self.inputs(verdicts.signals) == verdicts.inputs

    def read_finished(self) -> RunConfig:
        """What was asked of this run, whose verdicts answer it; errors as :meth:`verdicts`."""
        self.verdicts()
        return self.read_config()

    # Who may use it ---------------------------------------------------------------------------------------------------

    def refuse_foreign(self, sources: Sequence[str] | None = None, directory: str | None = None) -> None:
        """Refuse a folder that is not for this run, without touching it.

        Args:
            sources: What the run reads, as the user named it; None to accept any run.
            directory: The folder in which relative sources are named; None where names alone tell them apart.

        Raises:
            DedupkitError: It is a file, holds something else than a run, or a run over other sources.
        """
        try:
            present = {entry.name for entry in self.path.iterdir()} if self.path.exists() else set[str]()
        except NotADirectoryError:
            raise DedupkitError(f"{self.shown} is a file; --out takes a folder") from None
        before = self.earlier()
        if before is None:
            foreign = {name for name in present if not is_temporary(name)} - {self.lock.name}
            # run.json was lost or damaged, and nothing but parts of a run is there
            if foreign and not (foreign <= self._own_names and read_marker(self.scan_marker(0))):
                raise DedupkitError(f"{self.shown} is not empty and holds no run of dedupkit; choose another --out")
        elif sources is not None:
            elsewhere = self._named_elsewhere(before, directory)
            if elsewhere or before.sources != tuple(sources):
                named = ", ".join(before.sources) + (f" in {before.directory}" if elsewhere else "")
                raise DedupkitError(f"{self.shown} holds a run over other sources ({named}); choose another --out")

    def _named_elsewhere(self, before: RunConfig, directory: str | None) -> bool:
        """Whether relative sources were named in another folder, where other files than here still lie."""
        if None in (before.directory, directory) or before.directory == directory:
            return False
        then, now = Path(str(before.directory)), Path(str(directory))
        if self.path.is_relative_to(now) and (then / self.path.relative_to(now)).exists():
            return False  # the run was copied together with its sources
        for shard in before.shards:
            old, new = then / shard, now / shard
            if old != new and not is_remote(shard) and old.exists() and not (new.exists() and old.samefile(new)):
                return True
        return False

    @contextmanager
    def locked(self, sources: Sequence[str] | None = None, directory: str | None = None) -> Iterator[None]:
        """Hold the folder alone while writing into it; half-written files are removed before and after.

        Args:
            sources: As for :meth:`refuse_foreign`, like ``directory``.
            directory: As for :meth:`refuse_foreign`.

        Raises:
            DedupkitError: The folder is not for this run (then nothing in it was touched), or another process is
                writing into it.
        """
        self.refuse_foreign(sources, directory)
        self.path.mkdir(parents=True, exist_ok=True)
        with self._held(alone=True), self._leased():
            self.refuse_foreign(sources, directory)  # another process may have come first
            self._sweep()
            self._finish_publishing()
            try:
                yield
            finally:
                self._sweep()  # a worker that was ended in the middle of a file could not remove it
            self.push()

    def _sweep(self) -> None:
        """Remove what is half-written."""
        sweep(self.path)
        for folder in self._own_folders:
            sweep(folder, recursive=True)
