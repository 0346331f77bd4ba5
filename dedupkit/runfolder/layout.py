"""The paths in a run folder, for all packages to its right."""

from __future__ import annotations

from os import PathLike
from pathlib import Path

from dedupkit.engine.board import ranks_folder
from dedupkit.engine.marker import done_folder, marker_path
from dedupkit.store import local_home

__all__ = ["VECTORS", "Layout", "manifest_in"]

VECTORS = "embeddings"
"""Name of the folder of vectors."""

_MANIFEST = "manifest.parquet"


class Layout:
    """Paths of everything in a run folder.

    Args:
        path: The folder, or the URL of one in an object store, for which a local folder stands; it need not exist.

    Attributes:
        path: The folder on this machine.

    >>> Layout("/runs/first").edges("pdq").as_posix()
    '/runs/first/edges/pdq/00000.parquet'
    """

    def __init__(self, path: str | PathLike[str]) -> None:
        self.path = local_home(path).absolute()  # a later change of directory does not move it
        self.lock = self.path / ".lock"
        self.config = self.path / "run.json"
        self.manifest = self.path / _MANIFEST
        self.groups = self.path / "groups.parquet"
        self.templates = self.path / "templates.parquet"
        self.families = self.path / "families.parquet"
        self.earlier_captions = self.path / "earlier_captions.parquet"
        self.decision = self.path / "decision.json"
        self.staged = self.path / ".next"
        """Verdicts that are being prepared, under the names that they will have in the folder."""
        self.report_page = self.path / "report.html"
        self.report_facts = self.path / "report.json"
        self.card = self.path / "DATASET_CARD.md"
        self.calibration = self.path / "calibration.json"
        self.calibration_home = self.path / "calibration"
        self.done = done_folder(self.path)
        self.progress = self.path / "progress.json"
        self.ranks = ranks_folder(self.path)
        """Where the processes of ``--engine rank`` meet."""

    def samples(self, shard: int) -> Path:
        """One shard's samples: identity, caption, fingerprints, or why a sample is unreadable."""
        return self.path / "samples" / f"{shard:05d}.parquet"

    def embeddings(self, name: str, shard: int) -> Path:
        """The vectors of one shard's samples, row for row."""
        return self.path / VECTORS / name / f"{shard:05d}.npy"

    def projection(self, name: str) -> Path:
        """The projection of one embedder, fitted or a copy of the one that was named; other runs can name it."""
        return self.path / "projections" / f"{name}.npz"

    def projection_marker(self, name: str) -> Path:
        """The completion marker of such a fit."""
        return self.marker("project", name)

    def known_copies(self, name: str) -> Path:
        """Vectors of some images and of copies of them, by which an embedder's neighbours are sought."""
        return self.path / "projections" / f"{name}.copies.npz"

    def edges(self, signal: str, part: int = 0) -> Path:
        """The scored pairs of one signal; those of one task where its join was many."""
        return self.path / "edges" / signal / f"{part:05d}.parquet"

    def edge_files(self, signal: str) -> list[Path]:
        """All files of the scored pairs of one signal, in order; the first one, if there is none."""
        return sorted(self.edges(signal).parent.glob("[0-9]*.parquet")) or [self.edges(signal)]

    def ranked(self, signal: str) -> Path:
        """The scored pairs of one signal that rounds of verification found beside those of its join."""
        return self.path / "edges" / signal / "ranked.parquet"

    def labels(self, signal: str) -> Path:
        """For each sample the first sample with the same content, -1 where it has none; for some signals."""
        return self.path / "edges" / signal / "first.npy"

    def parts(self, signal: str) -> Path:
        """What the tasks of a signal leave for one another while its edges are made."""
        return self.path / "edges" / signal / "parts"

    def index(self, name: str) -> Path:
        """What finds the neighbours of a single image: ``pdq`` by hash, the name of an embedder by vector."""
        return self.path / "index" / name

    def reference(self, number: int) -> Layout:
        """What was read of a reference, in the layout of a run."""
        return Layout(self.path / "references" / f"{number:03d}" / "run")

    def across(self, number: int, signal: str) -> Path:
        """What joins the samples with one reference under one signal: a folder."""
        return self.path / "references" / f"{number:03d}" / "edges" / signal

    def across_marker(self, number: int, signal: str) -> Path:
        """The completion marker of such a join."""
        return self.marker("across", f"{number:03d}-{signal}")

    def marker(self, stage: str, name: str) -> Path:
        """The completion marker of a task."""
        return marker_path(self.path, stage, name)

    def scan_marker(self, shard: int) -> Path:
        """The completion marker of a shard's scan."""
        return self.marker("scan", f"{shard:05d}")

    def embed_marker(self, name: str, shard: int) -> Path:
        """The completion marker of a shard's embedding."""
        return self.marker(f"embed-{name}", f"{shard:05d}")

    def applied(self, target: str) -> Path:
        """The note that this run writes into a folder outside it.

        Args:
            target: What names the folder, as a file name.
        """
        return self.marker("applied", target)

    @property
    def synthetic(self) -> Path:
        """What calibration measured of synthetic duplicates."""
        return self.calibration_home / "synthetic.parquet"

    @property
    def impostors(self) -> Path:
        """What calibration measured of impostor pairs."""
        return self.calibration_home / "impostors.npz"

    def work(self, measured: Path) -> Path:
        """Where calibration works while it measures one of the two."""
        return self.calibration_home / ("work" if measured == self.synthetic else "work-impostors")

    @property
    def answers(self) -> Path:
        """What a person said of pairs."""
        return self.calibration_home / "answers.jsonl"

    @property
    def _own_folders(self) -> tuple[Path, ...]:
        names = ("samples", VECTORS, "projections", "edges", "index", "references")
        return (self.done, self.staged, self.ranks, self.calibration_home, *(self.path / name for name in names))

    @property
    def _own_names(self) -> frozenset[str]:
        """Names in the folder that are dedupkit's."""
        files = (self.lock, self.config, self.manifest, self.groups, self.templates, self.decision, self.report_page)
        more = (self.families, self.earlier_captions, self.report_facts, self.card, self.calibration, self.progress)
        return frozenset(path.name for path in (*files, *more, *self._own_folders))


def manifest_in(path: Path) -> Path:
    """The manifest of a run folder; a path that is no folder is a manifest itself."""
    return Layout(path).manifest if path.is_dir() else path
