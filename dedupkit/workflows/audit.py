"""Audit: which of a model's generated images copy its training set, from the hashes and vectors of a finished run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from pyarrow import csv

from dedupkit.embedding import Embedder
from dedupkit.embedding.given import as_given
from dedupkit.errors import DedupkitError
from dedupkit.memorization.again import Again
from dedupkit.memorization.audited import Adaptive, AtLeast, AuditResult, Extraction, Share, Threshold, share_of
from dedupkit.memorization.copied import CopiedGroups
from dedupkit.memorization.deciding import (
    Conditions,
    calibrated_threshold,
    candidate_bound,
    floor_of,
    overlap,
    stated_threshold,
)
from dedupkit.memorization.extraction import Filter
from dedupkit.memorization.guard import MAX_DISTANCE, without_vectors
from dedupkit.memorization.nearest import Nearest, nearest_of
from dedupkit.memorization.neighbours import Neighbours
from dedupkit.memorization.prompted import Prompted, compare_generations
from dedupkit.memorization.small import Small, SmallTraining
from dedupkit.report.audit import PAIR_SIDE, Side, pairs_of, write_audit_page
from dedupkit.report.thumbnails import Thumbnails
from dedupkit.runfolder import RunFolder
from dedupkit.sources.again import Moved
from dedupkit.sources.reread import Originals
from dedupkit.store import atomic_path, write_json, write_table
from dedupkit.workflows.audit_table import Decided, audit_table, prompt_table
from dedupkit.workflows.dedup import dedup

__all__ = ["AuditOptions", "AuditResult", "audit"]

Images = str | Path | Sequence[str | Path]

_SSCD_COSINES = (0.5, 0.75)  # of potential memorization (arXiv 2403.03206), of 90 % precision (arXiv 2202.10261)
_CLIQUES = 24  # on the page


@dataclass(frozen=True, slots=True)
class AuditOptions:
    """How an audit decides, and what it shows.

    Attributes:
        min_cosine: Least cosine of a copy; by default what the real images calibrate, else the bound that the rule of
            the run states for the embedder alone, else 0.75 for SSCD.
        false_alarms: Greatest share of real images that reach the calibrated cosine.
        verify: Whether an image below that cosine is a copy where local features show the training image nearest to
            it. These training images are read, down to the cosine from which the rule of the run verifies, or 0.5.
        show: Greatest number of pairs on the page.
        filter: When generations of one prompt count as near-copies of each other.
        adaptive: Whether to compare small images by the distance of arXiv 2301.13188, section 5, which reads all kept
            training images.

    Raises:
        DedupkitError: One of them is out of range.
    """

    min_cosine: float | None = None
    false_alarms: float = 0.001
    verify: bool = False
    show: int = 60
    filter: Filter = field(default_factory=Filter)
    adaptive: bool = False

    def __post_init__(self) -> None:
        cosine = 0.0 if self.min_cosine is None else self.min_cosine
        if not -1 <= cosine <= 1 or not 0 < self.false_alarms < 1 or self.show < 0:
            raise DedupkitError(
                "the least cosine lies between -1 and 1, the rate of false alarms between 0 and 1, and the number of "
                "pairs is at least 0"
            )


def audit(
    generated: Images,
    against: str | Path,
    out: str | Path,
    *,
    real: Images | None = None,
    options: AuditOptions | None = None,
    embed: str | Embedder | None = None,
    device: str | None = None,
    workers: int | None = None,
    source: Moved | None = None,
) -> AuditResult:
    """Say which generated images copy a training image.

    Generated and real images become runs of their own below ``out``, so that a second audit computes only what is
    missing. Each is searched for among the hashes and vectors of the training set's run. No training image is read but
    those on the page, unless verification or the distance for small images is asked for.

    Args:
        generated: Folders or shards of generated images, with their prompts as captions where there are any.
        against: A finished run over the training set.
        out: The folder to write into: ``audit.parquet``, ``audit.csv``, ``audit.json``, ``audit.html``,
            ``takedown.txt``, and ``prompts.parquet`` where prompts have several generations.
        real: Real images that were not trained on; they choose the threshold and give the false-alarm rate.
        options: How to decide, and what to show.
        embed: The model behind the run's vectors, where these were given to the run: a specification or an object.
        device: Device for torch.
        workers: Number of worker processes; the number of cores by default.
        source: Where the training data lies now, if it moved since the run.

    Raises:
        DedupkitError: No image in ``generated`` can be read, or ``real`` holds images of the training set.
    """
    options = options or AuditOptions()
    near = Neighbours(against)
    job = _Audit(near, Path(out), options, _model(near, embed), source)
    made, again = job.search(generated, "generated", device, workers)
    held = None if real is None else job.search(real, "real", device, workers)
    if held is not None:
        job.refuse_overlap(*held)
    return job.write(made, again, held)


class _Audit:
    """One audit, and what it says on the way."""

    def __init__(
        self,
        near: Neighbours,
        home: Path,
        options: AuditOptions,
        model: tuple[str | None, Any],
        moved: Moved | None,
    ) -> None:
        self.near, self.home, self.options, self._moved = near, home, options, moved
        self.training = Originals(near.folder, moved)
        self.name, self._model = model
        self.notes: list[str] = [] if self.name is not None else [_no_vectors(near)]

    def search(self, images: Images, part: str, device: str | None, workers: int | None) -> tuple[Nearest, Again]:
        """Scan and embed images into a run of their own, and search for each."""
        embed = () if self._model is None else self._model
        done = dedup(images, self.home / part, rule="exact", embed=embed, device=device, workers=workers)
        found = nearest_of(RunFolder(done.path), self.near, self.name)
        passed_over = RunFolder(done.path).passed_over()
        if passed_over["count"]:
            self.notes.append(
                f"{passed_over['count']:,} files or rows of {images} are no images and belong to none, such as "
                f"{passed_over['example']}"
            )
        if not found.readable.any():
            what = "" if part == "generated" else ", so it gives no false-alarm rate"
            raise DedupkitError(f"no image of {images} can be read{what}: {found.images['reason'][0].as_py()}")
        return found, Again(Originals(RunFolder(done.path)), self.training)

    def refuse_overlap(self, held: Nearest, again: Again) -> None:
        """Raise DedupkitError where real images are in the training set, and write their keys into ``overlap.txt``."""
        (self.home / "overlap.txt").unlink(missing_ok=True)
        found = overlap(held, self.near, again)
        if again.missing is not None:
            self.notes.append(
                f"whether a real image is in the training set was judged by hash and bytes alone: {again.missing}"
            )
        if not found:
            return
        keys = held.images["key"].to_pylist()
        with atomic_path(self.home / "overlap.txt") as temporary:
            temporary.write_text("".join(f"{keys[row]}\n" for row in sorted(found)), "utf-8")
        row = min(found)
        raise DedupkitError(
            f"{len(found):,} of {int(held.readable.sum()):,} real images are in the training set ({keys[row]} is "
            f"{self.near.column('key')[found[row]].as_py()} there), so they give no false-alarm rate; take images "
            f"that were not trained on, without those that {self.home / 'overlap.txt'} lists"
        )

    def write(self, made: Nearest, again: Again, held: tuple[Nearest, Again] | None) -> AuditResult:
        """Decide, and write every file."""
        threshold, calibrated = self._threshold(None if held is None else held[0])
        candidate = candidate_bound(self.near.config, self.name) if self.options.verify and self.name else None
        conditions = Conditions(None if threshold is None else threshold.cosine, candidate)
        copy, seen = conditions.decide(made, again)
        floor = None
        if held is not None:
            floor = floor_of(held[0], conditions.decide(*held)[0], calibrated)
        prompted = compare_generations(made, again, self.options.filter)
        shown = _to_show(made, copy, self.options.show)
        seen |= again.look(shown, self.options.filter) | prompted.seen
        small, adaptive = self._small(made, again, held)
        real = None if held is None else held[0]
        decided = Decided(made, copy, conditions.cosine, real, seen, prompted, small)
        groups = CopiedGroups(self.near, made.sample[copy])
        hashes = groups.hashes(self.near.folder)
        extraction = prompted.result(self.near)
        readable = int(made.readable.sum())
        result = AuditResult(
            run=self.near.folder.shown,
            rule=self.near.config.rule_expanded,
            samples=self.near.samples,
            generated=readable,
            unreadable=len(made.readable) - readable,
            without_prompt=int((made.images["caption"].is_null().to_numpy() & made.readable).sum()),
            copies=share_of(int(copy.sum()), readable),
            by_hash=int((copy & (made.hash_sample >= 0)).sum()),
            embedder=self.name,
            threshold=threshold,
            candidate=candidate,
            sscd=self._sscd(made),
            groups=len(groups),
            eidetic=groups.eidetic(),
            left=groups.left(),
            floor=floor,
            extraction=extraction,
            adaptive=adaptive,
            shown=len(shown),
            verified=sum(seen[pair].verified is True for pair in shown if pair in seen),
            takedown=len(hashes),
            notes=(*self.notes, *_notes(made, again, extraction)),
        )
        table = audit_table(self.near, decided, MAX_DISTANCE, self.name)
        self._write_tables(table, made, prompted, hashes)
        self._write_page(result, table, made, (shown, prompted))
        write_json(self.home / "audit.json", result.to_json())
        return result

    def _threshold(self, real: Nearest | None) -> tuple[Threshold | None, bool]:
        """The least cosine of a copy, and whether real images chose it."""
        if self.name is None:
            return None, False
        if self.options.min_cosine is not None:
            return Threshold(self.options.min_cosine, "as given"), False
        if real is not None and not np.isnan(real.cosine).all():
            return calibrated_threshold(real, self.options.false_alarms), True
        stated = stated_threshold(self.near.config, self.name)
        if stated is None:
            self.notes.append(
                f"no threshold is known for vectors of {self.name}, so no vector is enough for a copy: --real chooses "
                "one by real images, --min-cosine states one"
            )
        return stated, False

    def _sscd(self, made: Nearest) -> tuple[AtLeast, ...]:
        """Shares above the published cosines, where the embedder is a copy descriptor for which they were published."""
        if self.name is None or "sscd" not in f"{self.name} {self.near.config.embedders[self.name]}".lower():
            return ()
        of = int(made.readable.sum())
        near = np.nan_to_num(made.cosine, nan=-2.0)
        return tuple(AtLeast(bound, share_of(int((near >= bound).sum()), of)) for bound in _SSCD_COSINES)

    def _small(
        self, made: Nearest, again: Again, held: tuple[Nearest, Again] | None
    ) -> tuple[Small | None, Adaptive | None]:
        if not self.options.adaptive:
            return None, None
        widths, heights = (made.images[name].drop_null().to_pylist() for name in ("width", "height"))
        training = SmallTraining.read(self.near, self.training, (min(widths), min(heights)))
        small = training.compare(made, again.generated)
        real = None if held is None else _extracted(training.compare(held[0], held[1].generated))
        return small, Adaptive(_extracted(small), real)

    def _write_tables(self, table: Any, made: Nearest, prompted: Prompted, hashes: list[str]) -> None:
        write_table(self.home / "audit.parquet", table)
        with atomic_path(self.home / "audit.csv") as temporary:
            csv.write_csv(table, temporary)
        (self.home / "prompts.parquet").unlink(missing_ok=True)  # of an earlier audit
        if prompted.prompts:
            write_table(self.home / "prompts.parquet", prompt_table(self.near, made, prompted))
        with atomic_path(self.home / "takedown.txt") as temporary:
            temporary.write_text("".join(f"{code}\n" for code in hashes), "utf-8")

    def _write_page(
        self, result: AuditResult, table: Any, made: Nearest, what: tuple[list[tuple[int, int]], Prompted]
    ) -> None:
        shown, prompted = what
        of = 0 if result.floor is None else result.floor.images
        cliques = prompted.cliques[:_CLIQUES]
        pairs = pairs_of(table, shown, [], of)
        middles = pairs_of(table, [(each.middle, each.sample) for each in cliques], cliques, of)
        sides = (
            Side(Thumbnails(self.home / "generated", PAIR_SIDE), made.images["key"]),
            Side(Thumbnails(self.near.folder.path, PAIR_SIDE, self._moved), self.near.column("key")),
        )
        write_audit_page(self.home / "audit.html", result, (pairs, middles), sides)


def _model(near: Neighbours, embed: str | Embedder | None) -> tuple[str | None, Any]:
    """The embedder whose vectors are compared, and what computes those of the generated images; None for none."""
    embedders = near.config.embedders
    if embed is not None:
        name = as_given(embed).name
        if name not in embedders:
            has = f"its vectors are of {', '.join(embedders)}" if embedders else "it has no vectors"
            raise DedupkitError(f"the run has no vectors of {name}; {has}. Name the model that made them (?name=…)")
        return name, embed
    for name, spec in embedders.items():
        if not spec.startswith(("precomputed:", "python:")):
            return name, spec
    return None, None


def _no_vectors(near: Neighbours) -> str:
    if not near.config.embedders:
        return without_vectors(near.config)
    return (
        f"the vectors of {next(iter(near.config.embedders))} were given to the run, so the model behind them is not "
        "known and crops and heavy edits are not seen; name it with --embed"
    )


def _extracted(small: Small) -> Share:
    known = small.distance[~np.isnan(small.distance)]
    return share_of(int((known <= 1).sum()), len(known))


def _to_show(made: Nearest, copy: np.ndarray[Any, np.dtype[np.bool_]], most: int) -> list[tuple[int, int]]:
    """Pairs for the page: one copy of each training image, the nearest first, then what is nearest and no copy."""
    nearness = np.where(made.hash_sample >= 0, 2 - made.bits / 256, np.nan_to_num(made.cosine, nan=-2.0))
    order = np.argsort(-nearness, kind="stable")
    order = order[(made.sample[order] >= 0) & made.readable[order]]
    _, first = np.unique(made.sample[order], return_index=True)
    new = np.zeros(len(order), bool)
    new[first] = True
    rank = np.where(copy[order], np.where(new, 0, 1), 2)
    chosen = order[np.argsort(rank, kind="stable")][:most]
    return [(int(row), int(made.sample[row])) for row in chosen]


def _notes(made: Nearest, again: Again, extraction: Extraction | None) -> list[str]:
    notes = []
    if made.flat:
        notes.append(f"{made.flat:,} generated images are too flat for a perceptual hash")
    prompts = [prompt for prompt in made.images["caption"].to_pylist() if prompt and prompt.strip()]
    lacking = int(made.readable.sum()) - len(prompts)
    if not prompts:
        notes.append("the generated images have no prompts, so generations of one prompt are not compared")
    elif lacking > 0:
        notes.append(f"{lacking:,} generated images have no prompt and are compared with no other generation")
    if extraction is not None and extraction.too_few:
        notes.append(
            f"{extraction.too_few:,} prompts have fewer than {extraction.clique} generations, too few for a clique; "
            "generate more of each prompt, or lower --clique"
        )
    if again.missing is not None:
        notes.append(f"not every training image could be looked at: {again.missing}")
    return notes
