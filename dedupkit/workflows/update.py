"""New shards against a finished run, whose images are not read again."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike, fspath
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dedupkit.captions.modes import PAIRED_SIGNALS
from dedupkit.clustering.grammar import needs_floor, parse_rule
from dedupkit.clustering.rules import Rule
from dedupkit.errors import DedupkitError
from dedupkit.runfolder import Layout, Reference, RunConfig, RunFolder
from dedupkit.signals import known_signals
from dedupkit.stages.covered import changed_earlier
from dedupkit.workflows.against import find_references, names_against_rule
from dedupkit.workflows.dedup import dedup
from dedupkit.workflows.request import with_files

if TYPE_CHECKING:
    from dedupkit.workflows.run import Run

__all__ = ["earlier_runs", "update"]


def update(
    run: str | PathLike[str],
    sources: str | Path | Sequence[str | Path] | Any,
    out: str | Path | None = None,
    *,
    rule: str | None = None,
    embed: Any = None,
    keep: str | None = None,
    captions: str | None = None,
    against: str | PathLike[str] | Sequence[str | PathLike[str]] | None = None,
    against_rule: str | None = None,
    **options: Any,
) -> Run:
    """De-duplicate new shards among themselves and against a finished run.

    What the finished run keeps stays: its kept samples take part with their stored hashes, vectors and captions, come
    before all new ones, and are never removed. So the verdicts of both together are those of one run over everything
    in which the old kept samples come first. A run that was itself an update brings along those that it updated.

    Args:
        run: A finished run: its folder, or the object that ``dedup`` returns.
        sources: The new shards, as for :func:`dedupkit.dedup`.
        out: Folder for the new run, whose manifest has the new samples alone.
        rule: As for :func:`dedupkit.dedup`; that of the finished run by default.
        embed: Embedders; those of the finished run by default.
        keep: Keep policy, among new samples; that of the finished run by default.
        captions: What is done with captions; that of the finished run by default.
        against: Reference sets; those of the finished run by default, ``()`` for none.
        against_rule: What makes a sample duplicate one; as named for the finished run, else the rule, by default.
        **options: As for :func:`dedupkit.dedup`: ``workers``, ``seed``, ``target_recall``, ``compute_missing``, …
            Further ``hashes`` and ``templates`` are those of the finished run where none are given.

    Returns:
        The new run. In its manifest ``kept_source`` names the run in which a witness lies, null for its own.

    Raises:
        DedupkitError: The finished run is not finished, of another layout, or lacks what the rule compares and
            ``compute_missing`` is not set; and as :func:`dedupkit.dedup`.

    Example::

        new = dedupkit.update("runs/2025", "crawl-2026/{00000..00099}.tar", "runs/2026")
        new.apply("clean/2026")
    """
    name = fspath(run)
    config = RunFolder(name).read_finished()
    defaults: dict[str, Any] = {
        "rule": _rule(config, embed) if rule is None else rule,
        "embed": _embedders(RunFolder(name), config) if embed is None else embed,
        "keep": config.keep if keep is None else keep,
        "captions": config.captions if captions is None else captions,
        "against": _against(name, config) if against is None else against,
        "against_rule": config.against_rule if against_rule is None and names_against_rule(config) else against_rule,
        "templates": options.pop("templates", config.templates),
        "hashes": [*config.hashes, *options.pop("hashes", ())],
    }
    return dedup(sources, out, earlier=earlier_runs(name, config), **defaults, **options)


def earlier_runs(run: str, config: RunConfig) -> list[str]:
    """A run and those that it updated, the oldest first, as they were named where that leads there from here.

    Raises:
        DedupkitError: One of them is gone, or was decided again after another was made from it.
    """
    before = [reference for reference in config.references if reference.role == "earlier"]
    for path in [reference.path for reference in before]:
        if not RunFolder(path).config.exists():
            raise DedupkitError(f"{run} is an update of {path}, which is gone; put that run folder back")
    changed = changed_earlier(config)
    if changed is not None:
        raise DedupkitError(
            f"{run} is an update of {changed}, which was decided again since; give the command that made {run} again"
        )
    return [*map(_named, before), run]


def _named(reference: Reference) -> str:
    """An earlier run's name, which the manifest repeats; its path where that name means another folder here."""
    there = Layout(reference.name).path == Layout(reference.path).path
    return reference.name if there else reference.path


def _rule(config: RunConfig, embed: Any) -> str:
    """The rule of a run; with the run's own embedders, also the floor of candidates that a fit gave it.

    What a caption mode added to it is left out: the mode of the update adds what is its own.
    """
    if embed is not None or not needs_floor(config.rule):
        return config.rule
    return str(_on_images(config))  # such presets have no conditions on captions


def _on_images(config: RunConfig) -> Rule:
    """The rule of a run without what its caption mode added."""
    clauses = parse_rule(config.rule_expanded, known_signals(config.embedders)).clauses
    images = (tuple(atom for atom in clause if atom.signal not in PAIRED_SIGNALS) for clause in clauses)
    return Rule(config.rule, tuple(dict.fromkeys(images)))


def _against(run: str, config: RunConfig) -> list[str]:
    """The reference sets of a run, as it named them.

    Raises:
        DedupkitError: One of them cannot be used any more.
    """
    named = [reference.name for reference in config.references if reference.role == "against"]
    for name in named:
        try:
            find_references((), [name], RunFolder(run))
        except (DedupkitError, OSError) as error:
            raise DedupkitError(
                f"{run} was compared with {name}, which the update would be too: {error}; put it back, name others "
                "with --against, or none with --no-against"
            ) from error
    return named


def _embedders(folder: RunFolder, config: RunConfig) -> list[str]:
    """The embedders of a run that new samples can have vectors of.

    Raises:
        DedupkitError: Its rule compares vectors that were made elsewhere, or whose model is gone.
    """
    if not config.embedders:  # what reads vectors takes a while to load
        return []
    from dedupkit.embedding.fitted import fitted_specs
    from dedupkit.embedding.spec import parse_spec

    specs = fitted_specs(folder, config.embedders)
    models = {name: spec for name, spec in specs.items() if not parse_spec(spec).given}
    compared = parse_rule(config.rule_expanded, known_signals(config.embedders)).signals
    for name in config.embedders:
        if name not in models and name in compared:
            raise DedupkitError(
                f"the run compares vectors of {name} that were made elsewhere; name those of the new samples with "
                f"--embed precomputed:PATH?name={name}"
            )
    return list(with_files(models, compared).values())
