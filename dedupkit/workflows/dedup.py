"""The whole job: scan every shard, embed it, match what the rule names, decide."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dedupkit import __version__
from dedupkit.captions.modes import CaptionMode
from dedupkit.clustering.grammar import needs_floor
from dedupkit.clustering.policy import DEFAULT_POLICY, Policy
from dedupkit.clustering.rules import Rule
from dedupkit.engine import Engine, Where, make_engine, only_helps
from dedupkit.engine.helper import Helper
from dedupkit.errors import DedupkitError
from dedupkit.runfolder import RunConfig, RunFolder
from dedupkit.signals import requested_signals
from dedupkit.sources import find_shards
from dedupkit.sources.keys import text_of
from dedupkit.sources.memory import TemporaryFolder, images_in, laid_down, lay_down
from dedupkit.sources.sample import Shard
from dedupkit.stages.meta import forgetting_refused, refuse_absent
from dedupkit.stages.plan import Computing, Job
from dedupkit.stages.run import match_samples, scan_samples, verify_samples
from dedupkit.stages.scan_task import load_scan
from dedupkit.startup.cores import worker_count
from dedupkit.store import refuse_inside
from dedupkit.workflows.against import find_references, match_references
from dedupkit.workflows.request import (
    DEFAULT_RECALL,
    Asked,
    choose_embedders,
    hashes_to_scan,
    parse_run_rule,
    with_files,
)

if TYPE_CHECKING:
    from dedupkit.embedding import Embedder, Precomputed
    from dedupkit.embedding.given import ArrayWithIds
    from dedupkit.workflows.run import Run

    EmbedLike = str | Embedder | Precomputed | ArrayWithIds

__all__ = ["dedup"]


def dedup(
    sources: str | Path | Sequence[str | Path] | Any,
    out: str | Path | None = None,
    *,
    rule: str = "copies",
    embed: EmbedLike | Sequence[EmbedLike] = (),
    keep: str = DEFAULT_POLICY,
    hashes: Sequence[str] = (),
    workers: int | None = None,
    seed: int = 0,
    device: str | None = None,
    target_recall: float | None = None,
    captions: str = "ignore",
    templates: str = "keep",
    against: str | PathLike[str] | Sequence[str | PathLike[str]] = (),
    against_rule: str | None = None,
    compute_missing: bool = False,
    earlier: Sequence[str | PathLike[str]] = (),
    engine: str = "local",
    address: str | None = None,
) -> Run:
    """Find duplicates in image-caption shards and decide which samples to keep.

    Args:
        sources: Tars, Parquet files, folders, brace patterns or globs, local or remote; see
            :func:`dedupkit.sources.find_shards`. Or images in memory: a list of PIL images, of arrays or of the bytes
            of files, one array, a Hugging Face ``Dataset``, or :class:`dedupkit.Images` with keys and captions.
        out: Run folder, or its URL in an object store. An interrupted run continues where it stopped; the same call
            with another rule or policy decides again and computes only what is missing. Images in memory need none: the
            run then lies in a temporary folder, which goes away with the last object that came from the run, as the
            images do in any case.
        rule: A preset (``copies``, ``exact``, ``crops``, ``thorough``, …) or a rule such as ``"exact or pdq<=20"``.
        embed: One or more embedders; each is a signal that the rule can name. A specification
            (:data:`dedupkit.embedding.FORMS`), an object (:class:`dedupkit.embedding.Embedder`, or what
            :func:`dedupkit.embedding.load_precomputed` returns), or ``(vectors, keys)``: an array (n, d) and the keys
            of its rows. A preset over an embedder takes the first; ``thorough`` without one takes ``copy``. Those of
            earlier calls stay, but for one whose file is gone and that the rule does not need.
        keep: Keep policy, such as ``"-pixels, -clip_score, nbytes, sample"``; ``meta:NAME`` is a column of the data's
            own. See docs/clustering.md.
        hashes: Further hashes to compute now, so that a later rule can name them: ``pixels``, ``crops``, ``phash``,
            ``dhash``, ``ahash``, ``whash`` (imagehash's definition) and the same with ``_imagededup``.
        workers: Number of worker processes; by default one for each core that this process may use. The result does not
            depend on it. With 0 all work is done in this process, which an image that crashes a decoder then ends.
        seed: Seed for all random choices.
        device: Device for torch, such as ``cuda``; by default a GPU where there is one.
        captions: What is done with captions beside images: ``ignore``; ``pair`` or ``pair>=0.8`` (only samples whose
            captions agree too are duplicates); ``merge`` (a kept sample carries the captions of those that it stands
            for); ``template>10`` (captions of more than ten kept samples are listed), with ``:blank`` (cleaned shards
            leave them out) or ``:drop`` (their samples are blocked). See docs/captions.md.
        templates: What becomes of families of one template with different content, where the rule verifies pairs:
            ``keep``, or ``cap:M`` to keep at most M of a family. See docs/clustering.md.
        target_recall: Recall of searches that are clustered because the exact one would take long, 0.99 by default.
            Where it is given, candidates for verification of a preset begin at the cosine that keeps this share of
            transformed copies of some of the images, and not where the descriptor states.
        against: Reference sets: samples that duplicate one are blocked and take no part in deciding. Run folders,
            sources of images, or lists of hashes, URLs or domains; see docs/updates.md.
        against_rule: What makes a sample duplicate a reference set: a rule, or one of
            :data:`dedupkit.workflows.against.AGAINST_PRESETS`; the run's own rule by default.
        compute_missing: Whether hashes and vectors that a run among the references lacks are computed from its images.
        earlier: Finished runs whose kept samples stand; :func:`dedupkit.update` names them.
        engine: Where tasks run, :data:`dedupkit.engine.ENGINES`: ``local``; ``ray``; or ``rank`` for one of several
            processes that call this with the same arguments. See docs/running-at-scale.md.
        address: Address of the Ray cluster, with ``engine="ray"``; ``RAY_ADDRESS`` or this machine by default.

    Returns:
        The finished run.

    Raises:
        RuleError: The rule or the policy cannot be read.
        DedupkitError: No such source, a folder that holds something else, a folder in use, a worker that died.
        MissingExtraError: An embedder needs a package that is not installed.
        OSError: The run folder cannot be written. What was done is kept.
    """
    sources, out, keeper = _on_disk(sources, out, engine)
    folder = RunFolder(out, whole=not only_helps(engine))
    # What an earlier call computed stays, so that one can go back and forth between rules.
    before = folder.earlier()
    earlier_embedders = before.embedders if before else {}
    embedders_now, given = choose_embedders(embed, rule, earlier_embedders)
    embedders = {**embedders_now, **earlier_embedders, **embedders_now}  # those named now come first
    asked = Asked.parse(rule, embedders, keep=keep, captions=captions, templates=templates, against_rule=against_rule)
    compared = asked.compared
    references = find_references(earlier, [against] if isinstance(against, str | PathLike) else against, folder)
    sets = any(reference.role == "against" for reference in references.named)
    requested = hashes_to_scan([asked.rule, compared] if sets else [asked.rule], [*hashes, *references.hashes])
    shards, named, directory = _found(sources, keeper)
    refuse_inside(
        folder.shown,
        [*named, *(shard.source for shard in shards), *(reference.path for reference in references.named)],
    )
    listed = [text_of(name) for name in named]
    workers = worker_count(workers)
    recall = DEFAULT_RECALL if target_recall is None else target_recall
    if seed < 0 or not 0 < recall <= 1:
        raise DedupkitError("the seed is at least 0, and target_recall lies above 0 and is at most 1")
    place = make_engine(Where(engine, workers, address), folder.path)
    if isinstance(place, Helper):
        place.help()
        return _open(out, None)
    told = (listed, directory if keeper is None else None)  # a digest tells images in memory apart
    folder.refuse_foreign(*told)
    embedders = with_files(embedders, {*embedders_now, *asked.rule.signals, *compared.signals})
    with place, folder.locked(*told), forgetting_refused(folder):
        if not before:  # a new run reads every shard; an old one may have nothing left to read
            place.start(len(shards), load_scan)
        requested = [n for n in requested_signals() if n in requested or (before and n in before.hashes)]
        stored = before.meta if before else ()
        if before:
            refuse_absent([name for name in asked.policy.meta if name not in stored], shards)
        meta = sorted({*asked.policy.meta, *stored})
        computing = Computing(max(1, workers), seed, device, recall)
        beside = sum(references.rows.values())
        job = Job(folder, shards, asked.rule, requested, embedders, computing, given, asked.policy, meta, beside)
        config = replace(
            _config(listed, directory, job, asked.policy),
            captions=str(asked.captions),
            templates=str(asked.templates),
            target_recall=target_recall,
            references=references.named,
            against_rule=str(compared) if sets else "",
            against_named=against_rule is not None if sets else None,
            compute_missing=compute_missing,
        )
        folder.write_config(config)
        job, floors = _projected(job, place, rule, asked.captions, target_recall)
        if against_rule is None:
            compared = parse_run_rule(rule, CaptionMode(), job.embedders, floors)
        decided = replace(config, rule_expanded=str(job.rule), against_rule=str(compared) if sets else "")
        if decided != config:  # a fit said where candidates begin
            folder.write_config(decided)
        done = match_samples(job, place)
        if references.named:
            match_references(job, done, references, compared, place, compute_missing)
        verify_samples(job, done, place, decided)
        _decide(folder, decided, job.rule, asked.policy, place)
    return _open(folder.path, keeper)


def _on_disk(sources: Any, out: str | Path | None, engine: str) -> tuple[Any, str | Path, TemporaryFolder | None]:
    """The sources and the run folder; of images in memory, those in a temporary folder, and what keeps it alive."""
    images, keeper = images_in(sources), None
    if images is not None:
        if engine != "local":
            raise DedupkitError(
                f"engine {engine!r} takes shards or folders that every machine can read, not images in memory"
            )
        keeper = TemporaryFolder()
        sources, out = lay_down(images, keeper.path), keeper.path / "run" if out is None else out
    if out is None:
        raise DedupkitError("name a folder for the run: dedup(sources, out)")
    return sources, out, keeper


def _found(sources: Any, keeper: TemporaryFolder | None) -> tuple[list[Shard], list[str], str]:
    """The shards, the sources as the run names them, and the folder in which relative ones are found again."""
    if keeper is not None:
        return laid_down(sources), [sources.name], str(keeper.path)
    named = [str(source) for source in ([sources] if isinstance(sources, str | Path) else sources)]
    return find_shards(sources), named, str(Path.cwd())


def _projected(
    job: Job, engine: Engine, rule: str, mode: CaptionMode, recall: float | None
) -> tuple[Job, Mapping[str, float]]:
    """The job with the projections that its embedders ask for and the rule that follows from these, and the floors."""
    asked = needs_floor(rule) and recall is not None
    if not asked and not any("project=" in spec for spec in job.embedders.values()):
        return job, {}
    from dedupkit.stages.project import fit_projections

    embedders, floors = fit_projections(job, scan_samples(job, engine), recall if asked else None)
    return replace(job, embedders=embedders, rule=parse_run_rule(rule, mode, embedders, floors)), floors


def _open(path: str | Path, keeper: TemporaryFolder | None) -> Run:
    from dedupkit.workflows.run import Run

    return Run(path, keeper=keeper)


def _config(sources: Sequence[str], directory: str, job: Job, policy: Policy) -> RunConfig:
    """What was asked of this run."""
    return RunConfig(
        sources=tuple(sources),
        directory=directory,
        shards=tuple(shard.source for shard in job.shards),
        rule=job.rule.text,
        rule_expanded=str(job.rule),
        keep=str(policy),
        hashes=tuple(job.hashes),
        meta=tuple(job.meta),
        embedders=dict(job.embedders),
        seed=job.computing.seed,
        dedupkit=__version__,
        python=platform.python_version(),
        versions={name: _version(name) for name in ("numpy", "pillow", "simplejpeg", "pyarrow", "numba")},
    )


def _version(distribution: str) -> str:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return "unknown"


def _decide(folder: RunFolder, config: RunConfig, rule: Rule, policy: Policy, engine: Engine) -> None:
    if folder.is_decided(config):
        return
    from dedupkit.stages.decide import decide_and_write

    decide_and_write(folder, config, rule, policy, engine)
