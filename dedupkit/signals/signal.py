"""What a signal is: one object that answers for it wherever it is computed, stored, joined, scored or described.

A rule combines signals; every other part of dedupkit asks the object and knows no signal by name. This module, the
table and the modules of the signals import no arrays: a command line is parsed, and a scan begins, without them. What
computes imports what it needs inside the method.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from dedupkit.signals.expected import Expected, Extent

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from dedupkit.engine import Task
    from dedupkit.signals.across import Across
    from dedupkit.signals.columns import Distinct, Edges, Scanned
    from dedupkit.signals.image import ScannedImage
    from dedupkit.signals.impostors import PairScorer
    from dedupkit.signals.matches import Matches, Origin, Streamed

__all__ = ["JoinSettings", "Kind", "Signal", "Stage", "Steps"]

Kind = Literal["identity", "distance", "similarity"]
"""How a rule compares it: it holds or does not, it takes ``<=``, or it takes ``>=``."""

Stage = Literal["none", "match", "verify"]
"""The stage that makes its edges: none (equal fingerprints are all there is), a join, or looking at pairs again."""

Steps = Generator["list[Task]", list[dict[str, Any]], dict[str, Any]]
"""A join as lists of tasks, one list after the other: it gives tasks, takes their summaries, and returns the facts."""

_SECONDS = 5e-6  # a sample, of a join of which nothing else is known


@dataclass(frozen=True, slots=True)
class JoinSettings:
    """How far and how a signal is joined.

    Attributes:
        bound: Loosest score that is kept: the largest distance, or the least similarity; infinity where not
            all pairs within a bound are wanted, but only nearest neighbours.
        workers: Number of threads.
        target_recall: Share of the pairs that an approximate search must find, in (0, 1).
        seed: Seed for all random choices.
        device: Device named for models, which joins of vectors use where they can; a GPU where there is one by default.
        floor: Least similarity of nearest neighbours, which are kept beside the pairs within the bound; None for none.
        known: File of copies of some samples, by which a search for nearest neighbours is planned; None for none.
    """

    bound: float
    workers: int = 1
    target_recall: float = 0.99
    seed: int = 0
    device: str | None = None
    floor: float | None = None
    known: str | None = None


@dataclass(frozen=True)
class Signal:
    """One signal. Subclasses set the class attributes and override what differs from the defaults.

    Instances are sent to worker processes, so they are small and can be pickled.

    Attributes:
        name: Name in rules, of the folder under ``edges/``, and of the column that the scan adds, if it adds one.
    """

    name: str

    kind: ClassVar[Kind]
    stage: ClassVar[Stage] = "match"
    origin: ClassVar[Origin] = "image"
    """What its fingerprints are computed from."""
    whole: ClassVar[bool] = False
    """Whether scores are whole numbers."""
    views: ClassVar[bool] = False
    """Whether ``measure`` needs the PDQ hashes of the central views of an image."""

    # -- what a rule may say

    @property
    def bounds(self) -> tuple[float, float]:
        """The least and the largest bound that a rule can state."""
        return (-1.0, 1.0) if self.kind == "similarity" else (0.0, float("inf"))

    @property
    def finds_pairs(self) -> bool:
        """Whether it finds pairs by itself; one that does not must stand beside a condition that does."""
        return self.stage != "verify"

    @property
    def ranks(self) -> bool:
        """Whether candidates for verification are each sample's nearest under it, rather than all within a bound."""
        return False

    # -- what it needs of a scan

    @property
    def scan_columns(self) -> Mapping[str, int | str]:
        """The columns that the scan computes for it on request: bytes of a fixed width, or the name of an Arrow type.

        None for signals over columns that every scan has.
        """
        return {}

    @property
    def scan_key(self) -> Any:
        """What the values of ``scan_columns`` depend on beside the image; JSON-able. Change it when they change."""
        return self.name

    def measure(self, image: ScannedImage) -> Mapping[str, Any]:
        """The values of ``scan_columns`` for one image; a column that is left out is null.

        Raises:
            ImageError: The image cannot be used; it becomes an unreadable sample, with this reason.
        """
        raise NotImplementedError(f"{self.name} asks nothing of the scan")

    def warm_up(self, samples: int) -> None:
        """Load what the join will need, while workers scan; called repeatedly with the number of samples so far."""

    # -- all samples: labels, join, edges

    def distinct(self, scanned: Scanned) -> Distinct:
        """The fingerprints of all samples, equal ones collapsed."""
        raise NotImplementedError(f"{self.name} has no fingerprint of a sample")

    def join(self, values: NDArray[Any], settings: JoinSettings) -> Iterator[Edges]:
        """Pairs of distinct fingerprints within the bound, each once, in blocks of (a, b, score).

        Args:
            values: (k, …) fingerprints, as ``distinct`` gives them.
            settings: How far, and how.
        """
        raise NotImplementedError(f"{self.name} is not joined")

    def join_key(self, settings: JoinSettings) -> list[Any]:
        """What the edges depend on beside the fingerprints and the bound; JSON-able."""
        return []

    def match(self, scanned: Scanned, settings: JoinSettings) -> dict[str, Any]:
        """Join all samples and write the edges.

        Returns:
            Facts for the marker: ``distinct`` fingerprints, ``edges`` written and their ``content``, the ``bound``.
        """
        from dedupkit.signals.columns import write_edges

        distinct = self.distinct(scanned)
        leaders = distinct.leaders
        found = self.join(distinct.values, settings)
        blocks = ((leaders[a], leaders[b], score) for a, b, score in found)
        written = write_edges(scanned.folder.edges(self.name), blocks)
        return {"distinct": len(leaders), **written._asdict(), "bound": settings.bound}

    def steps(self, scanned: Scanned, settings: JoinSettings, key: str, samples: int) -> Steps | None:
        """The same as :meth:`match` as tasks of an engine; None where it is one task.

        Args:
            scanned: All samples.
            settings: How far, and how.
            key: Digest of all that the edges depend on, but for the bound.
            samples: Number of all samples.
        """
        return None

    def expected(self, extent: Extent, settings: JoinSettings) -> Expected:
        """What :meth:`steps` would take, or :meth:`match` where there are none, before the fingerprints are there.

        Args:
            extent: What is known of the samples.
            settings: How far, and how.
        """
        return Expected(_SECONDS * extent.samples)

    def labels(self, scanned: Scanned) -> NDArray[np.int32]:
        """(n,) int32: for each sample the smallest with the same fingerprint, -1 where it has none."""
        return self.distinct(scanned).first

    def edge_files(self, scanned: Scanned) -> list[Path]:
        """The files with its scored pairs; none for a signal that holds between equal fingerprints alone."""
        return [] if self.stage == "none" else scanned.folder.edge_files(self.name)

    def streamed(self, scanned: Scanned) -> Streamed:
        """What it says about all samples, as deciding takes it: equal fingerprints, and scored pairs in blocks."""
        from dedupkit.signals.edges import stream_matches

        return stream_matches(self, scanned)

    def matches(self, scanned: Scanned) -> Matches:
        """The same in memory."""
        return self.streamed(scanned).loaded()

    # -- samples against rows of another run or of a reference set

    def across(self, own: Scanned, other: Scanned, active: NDArray[np.bool_], settings: JoinSettings) -> Across:
        """Pairs of the samples of a run and the rows of a reference.

        Args:
            own: The samples.
            other: The rows of the reference.
            active: (m,) bool, which of these take part.
            settings: How far, and how.
        """
        from dedupkit.signals.across import across_columns

        return across_columns(self, own, other, active, settings)

    def join_across(self, values: NDArray[Any], other: NDArray[Any], settings: JoinSettings) -> Iterator[Edges]:
        """Pairs of the fingerprints of two sets within the bound, equal ones included, each once, in blocks.

        By default both are joined as one, which finds the same pairs and takes as long as that join; a signal whose
        ``join`` leaves out equal fingerprints overrides this.

        Args:
            values: (k, …) distinct fingerprints.
            other: (l, …) distinct fingerprints.
            settings: How far, and how.
        """
        from dedupkit.signals.across import joined_together

        return joined_together(self.join, values, other, settings)

    # -- given pairs

    def rows(self, scanned: Scanned, samples: NDArray[np.int64]) -> tuple[NDArray[np.bool_], NDArray[Any]]:
        """The fingerprints of some samples.

        Args:
            scanned: All samples.
            samples: (k,) int64, ascending.

        Returns:
            Which of them have one, (k,) bool; and the fingerprints of these, (p, …).
        """
        return self.distinct(scanned).rows_of(samples)

    def compare(self, left: NDArray[Any], right: NDArray[Any]) -> NDArray[np.float32]:
        """Scores of given pairs of fingerprints, (m, …) and (m, …) to (m,) float32; 1 or 0 for an identity."""
        raise NotImplementedError

    # -- words

    def words(self, bound: float | None) -> str:
        """The end of the sentence 'two samples are duplicates when …'."""
        if bound is None:
            return f"{self.name} holds between them"
        if self.kind == "similarity":
            return f"their similarity under {self.name} is at least {bound:g}"
        return f"their distance under {self.name} is at most {bound:g}"

    def score_words(self, score: float) -> str:
        """A score as a short label."""
        if self.kind == "identity":
            return ""
        return f"similarity {score:.3f}" if self.kind == "similarity" else f"distance {score:g}"

    # -- calibration

    @property
    def perfect(self) -> float:
        """The score of two equal fingerprints."""
        return 1.0 if self.kind == "similarity" else 0.0

    def strata(self) -> list[float]:
        """Thresholds between which pairs are judged, the strictest first, out to where impostors begin.

        They do not depend on the rule, so that pairs judged once stay a random sample of their stratum.
        """
        raise NotImplementedError(f"{self.name} has no thresholds")

    def thresholds(self, floor: float) -> list[float]:
        """Thresholds that can be proposed, the strictest first, as far as the floor."""
        raise NotImplementedError(f"{self.name} has no thresholds")

    def scorer(self, rows: NDArray[Any]) -> PairScorer:
        """Closeness of all pairs of some fingerprints, block by block: what impostor statistics are made of."""
        from dedupkit.signals.impostors import ComparedPairs

        return ComparedPairs(self, rows)

    def check_calibratable(self) -> None:
        """Raise DedupkitError where calibration cannot take the signal."""

    @property
    def pair_work(self) -> float:
        """Multiply-adds that ``scorer`` spends on a pair, about."""
        return 1000.0
