"""Audit: which of a model's generated images copy its training set, from the hashes and vectors of a finished run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from dedupkit.embedding import Embedder
from dedupkit.errors import DedupkitError, import_optional
from dedupkit.manifest.lists import escape
from dedupkit.memorization.again import Again
from dedupkit.memorization.audited import Adaptive, AuditResult, Extraction, Threshold, share_of
from dedupkit.memorization.copied import CopiedGroups
from dedupkit.memorization.deciding import (
    Conditions,
    calibrated_threshold,
    candidate_bound,
    floor_of,
    overlap,
    sscd_shares,
    stated_threshold,
)
from dedupkit.memorization.guard import no_threshold
from dedupkit.memorization.nearest import Nearest, nearest_of
from dedupkit.memorization.neighbours import Neighbours, TrainingImages
from dedupkit.memorization.prompted import compare_generations
from dedupkit.memorization.small import Small, SmallTraining
from dedupkit.runfolder import RunFolder
from dedupkit.runfolder.scanned import passed_over
from dedupkit.sources.again import Moved
from dedupkit.sources.reread import Originals
from dedupkit.store import atomic_path, join, staged
from dedupkit.workflows.audit_files import AuditFiles, pairs_to_show
from dedupkit.workflows.audit_options import AuditOptions, embedder_of, no_vectors
from dedupkit.workflows.audit_table import Decided
from dedupkit.workflows.dedup import dedup

__all__ = ["AuditOptions", "AuditResult", "audit"]

Images = str | Path | Sequence[str | Path]


def audit(
    generated: Images,
    against: str | PathLike[str],
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
    those on the page, the one nearest to each clique of generations, and the 50 nearest to real images, unless
    verification or the distance for small images is asked for.

    Args:
        generated: Folders or shards of generated images, with their prompts as captions where there are any.
        against: A finished run over the training set: its folder, or the object that ``dedup`` returns. Those that it
            updates are searched too.
        out: The folder to write into, or its URL in an object store: ``audit.parquet``, ``audit.csv``,
            ``audit.json``, ``audit.html``, ``takedown.txt``, and ``prompts.parquet`` where prompts have enough
            generations for a clique.
        real: Real images that were not trained on; they choose the threshold and give the false-alarm rate.
        options: How to decide, and what to show.
        embed: The model behind the run's vectors, where these were given to the run: a specification or an object.
        device: Device for torch.
        workers: Number of worker processes, as for :func:`dedupkit.dedup`.
        source: Where the training data lies now, if it moved since the run.

    Raises:
        DedupkitError: No image in ``generated`` can be read, or ``real`` holds images of the training set.
        MissingExtraError: Verification is asked for, and OpenCV is not installed.
    """
    options = options or AuditOptions()
    if options.verify:
        import_optional("cv2", "verify")
    near = Neighbours(against)
    model = embedder_of(near, embed)
    with staged(out) as home:
        job = _Audit(near, home, str(out), options, model, source)
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
        shown: str,
        options: AuditOptions,
        model: tuple[str | None, Any],
        moved: Moved | None,
    ) -> None:
        self.near, self.home, self.options, self._moved = near, home, options, moved
        self._shown = shown
        self.training = TrainingImages(near, moved)
        self.name, self._model = model
        self.notes = near.notes(self.name) + ([] if self.name is not None else [no_vectors(near)])

    def search(self, images: Images, part: str, device: str | None, workers: int | None) -> tuple[Nearest, Again]:
        """Scan and embed images into a run of their own, and search for each."""
        embed = () if self._model is None else self._model
        done = dedup(images, self.home / part, rule="exact", embed=embed, device=device, workers=workers)
        found = nearest_of(RunFolder(done.path), self.near, self.name)
        left = passed_over(RunFolder(done.path))
        if left["count"]:
            self.notes.append(
                f"{left['count']:,} files or rows of {images} are no images and belong to none, such as "
                f"{left['example']}"
            )
        if not found.readable.any():
            what = "" if part == "generated" else ", so it gives no false-alarm rate"
            raise DedupkitError(f"no image of {images} can be read{what}: {found.images['reason'][0].as_py()}")
        return found, Again(Originals(RunFolder(done.path)), self.training)

    def refuse_overlap(self, held: Nearest, again: Again) -> None:
        """Raise DedupkitError where real images are in the training set, and list them in ``overlap.txt``."""
        (self.home / "overlap.txt").unlink(missing_ok=True)
        found = overlap(held, self.near, again)
        if again.missing is not None:
            self.notes.append(
                f"whether a real image is in the training set was judged by hash and bytes alone: {again.missing}"
            )
        if not found:
            return
        keys, sources = (held.images[name].to_pylist() for name in ("key", "source"))
        with atomic_path(self.home / "overlap.txt") as temporary:
            lines = (f"{escape(sources[row])}\t{escape(keys[row])}\n" for row in sorted(found))
            temporary.write_text("".join(lines), "utf-8")
        row = min(found)
        trained = self.near.describe(found[row], "pdq", 0.0)
        raise DedupkitError(
            f"{len(found):,} of {int(held.readable.sum()):,} real images are in the training set ({keys[row]} is "
            f"{trained.key} of {trained.source}), so they give no false-alarm rate; take images "
            f"that were not trained on, without those that {join(self._shown, 'overlap.txt')} lists"
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
        shown = pairs_to_show(made, copy, self.options.show)
        seen |= again.look(shown, self.options.filter) | prompted.seen
        small, adaptive = self._small(made, again, held)
        real = None if held is None else held[0]
        decided = Decided(made, copy, conditions.cosine, real, seen, prompted, small)
        groups = CopiedGroups(self.near, made.sample[copy])
        hashes = groups.hashes()
        extraction, left = prompted.result(self.near), groups.left()
        if left.blocked:
            self.notes.append(
                f"{left.blocked:,} copied training images are blocked in the run, which counts no duplicates of them: "
                "they are in takedown.txt and in no group; audit against the run that was trained on to count them"
            )
        readable = int(made.readable.sum())
        result = AuditResult(
            run=self.near.folder.shown,
            rule=self.near.config.rule_expanded,
            samples=self.near.samples,
            generated=readable,
            unreadable=len(made.readable) - readable,
            without_prompt=readable - _prompted(made),
            copies=share_of(int(copy.sum()), readable),
            by_hash=int((copy & (made.hash_sample >= 0)).sum()),
            embedder=self.name,
            threshold=threshold,
            candidate=candidate,
            sscd=sscd_shares(self.near.config, self.name, made),
            groups=len(groups),
            eidetic=groups.eidetic(),
            left=left,
            floor=floor,
            extraction=extraction,
            adaptive=adaptive,
            shown=len(shown),
            verified=sum(seen[pair].verified is True for pair in shown if pair in seen),
            takedown=len(hashes),
            notes=(*self.notes, *_notes(made, again, extraction)),
        )
        files = AuditFiles(self.home, self.near, self._moved)
        files.write(result, decided, shown, hashes)
        return result

    def _threshold(self, real: Nearest | None) -> tuple[Threshold | None, bool]:
        """The least cosine of a copy, and whether real images chose it."""
        if self.name is None:
            return None, False
        if self.options.min_cosine is not None:
            return Threshold(self.options.min_cosine, "as given"), False
        if self.options.verify:
            return None, False
        if real is not None and not np.isnan(real.cosine).all():
            return calibrated_threshold(real, self.options.false_alarms), True
        stated = stated_threshold(self.near.config, self.name, self.near.samples)
        if stated is None:
            self.notes.append(
                f"{no_threshold(self.near.config, self.name, self.near.samples)}, so no vector is enough for a copy: "
                "--real chooses one by real images, --min-cosine states one"
            )
        return stated, False

    def _small(
        self, made: Nearest, again: Again, held: tuple[Nearest, Again] | None
    ) -> tuple[Small | None, Adaptive | None]:
        if not self.options.adaptive:
            return None, None
        readable = made.images.filter(pa.array(made.readable))
        sizes = Counter(zip(readable["width"].to_pylist(), readable["height"].to_pylist(), strict=True))
        size, count = min(sizes.items(), key=lambda found: (-found[1], found[0]))
        training = SmallTraining.read(self.near, self.training, size)
        if others := sizes.total() - count:
            self.notes.append(
                f"{others:,} generated images have another size than the {size[0]}x{size[1]} pixels of most, and were "
                "brought to it for the distance for small images"
            )
        if training.unreadable:
            self.notes.append(
                f"{training.unreadable:,} kept training images cannot be read again, so small images are not compared "
                "with them"
            )
        small = training.compare(made, again.generated)
        real = None if held is None else training.compare(held[0], held[1].generated).extracted
        return small, Adaptive(small.extracted, real)


def _prompted(made: Nearest) -> int:
    """Number of readable generated images that have a prompt."""
    prompts = made.images["caption"].filter(pa.array(made.readable)).to_pylist()
    return sum(bool(prompt and prompt.strip()) for prompt in prompts)


def _notes(made: Nearest, again: Again, extraction: Extraction | None) -> list[str]:
    notes = []
    if made.flat:
        notes.append(f"{made.flat:,} generated images are too flat for a perceptual hash")
    prompted = _prompted(made)
    lacking = int(made.readable.sum()) - prompted
    if not prompted:
        notes.append("the generated images have no prompts, so generations of one prompt are not compared")
    elif lacking > 0:
        notes.append(f"{lacking:,} generated images have no prompt and are compared with no other generation")
    if extraction is not None and extraction.too_few:
        notes.append(
            f"{extraction.too_few:,} prompts have fewer than {extraction.clique} generations, too few for a clique; "
            "generate more of each prompt, or lower --clique"
        )
    if extraction is not None and extraction.cut:
        notes.append(
            f"of the generations of {extraction.cut:,} prompts not all were compared; prompts.parquet has the numbers"
        )
    if again.missing is not None:
        notes.append(f"not every training image could be looked at: {again.missing}")
    return notes
