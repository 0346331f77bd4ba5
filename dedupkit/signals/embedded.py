"""Embedders as signals: vectors of images, compared by their cosine."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from dedupkit.errors import DedupkitError
from dedupkit.signals.expected import Expected, Extent
from dedupkit.signals.signal import JoinSettings, Kind, Signal, Steps

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from dedupkit.signals.across import Across
    from dedupkit.signals.columns import Scanned
    from dedupkit.signals.impostors import PairScorer

__all__ = ["Embedded"]

_COPIES_KEPT = 0.99  # share of the copies at or above the floor that a projection gives
_STEP, _LOWEST = 0.05, 0.3  # of the strata of calibration
_TYPICAL_WIDTH = 1280.0  # values of a vector, for planning the work


@dataclass(frozen=True)
class Embedded(Signal):
    """The cosine of the vectors of one embedder.

    Attributes:
        name: Name in rules, and of the folder under ``embeddings/``.
        spec: Specification of the embedder; empty where it is not known and nothing has to be computed.
        low: Where candidates for verification begin, where a fit said so.
    """

    spec: str = ""
    low: float | None = None

    kind: ClassVar[Kind] = "similarity"

    @property
    def candidate_floor(self) -> float:
        """Where candidates for verification begin.

        What a fit to transformed copies said: the one of this run, or the one that a named projection comes from. Else
        what the descriptor itself states.
        """
        from dedupkit.embedding.spec import parse_spec, stated_floor

        if self.low is not None:
            return self.low
        path = parse_spec(self.spec).projection if self.spec else None
        if path is None:
            return stated_floor(self.spec or self.name)
        from dedupkit.embedding.projection import load_projection

        return load_projection(path).floor(_COPIES_KEPT)

    @property
    def ranks(self) -> bool:
        """Cosines rank; scores that a background normalises do not follow them."""
        return not self.normalised

    @property
    def normalised(self) -> bool:
        """Whether a background normalises the scores."""
        from dedupkit.embedding.spec import parse_spec

        return bool(self.spec) and "background" in parse_spec(self.spec).options

    def words(self, bound: float | None) -> str:
        """See :meth:`Signal.words`."""
        from dedupkit.embedding.spec import parse_spec

        own = (parse_spec(self.spec).scheme if self.spec else self.name) == "copy"
        vectors = f"{'copy-descriptor' if own else self.name} vectors"
        if self.normalised:
            return f"the similarity of their {vectors}, normalised by a background, is at least {bound:g}"
        return f"the cosine of their {vectors} is at least {bound:g}"

    def join_key(self, settings: JoinSettings) -> list[Any]:
        """The search, and the background by which scores are normalised."""
        from dedupkit.embedding.keys import background_key

        return [settings.target_recall, settings.seed, *background_key(self.spec)]

    def match(self, scanned: Scanned, settings: JoinSettings) -> dict[str, Any]:
        """Join the vectors; see :meth:`Signal.match`. The facts hold the measured ``recall`` too."""
        from dedupkit.signals.vectors import match_vectors

        return match_vectors(self, scanned, settings)

    def steps(self, scanned: Scanned, settings: JoinSettings, key: str, samples: int) -> Steps | None:
        """A plan, then ranges of vectors, then groups of cells, for nearest neighbours lists too.

        Not for normalised scores, and not where pairs within a bound and nearest neighbours are wanted at once.
        """
        if not self._in_steps(settings):
            return None
        from dedupkit.signals.vector_tasks import neighbor_steps, vector_steps

        return (vector_steps if settings.floor is None else neighbor_steps)(self, scanned, settings, key)

    def expected(self, extent: Extent, settings: JoinSettings) -> Expected:
        """From the number of vectors and their length; see :meth:`Signal.expected`."""
        from dedupkit.signals.vector_tasks import expected_steps

        expected = expected_steps(extent, settings)
        return expected if self._in_steps(settings) else Expected(expected.seconds)

    def _in_steps(self, settings: JoinSettings) -> bool:
        """Whether the join can be many tasks."""
        from math import inf

        if (settings.floor is None) == (settings.bound == inf) or settings.target_recall >= 1:
            return False
        return not self.normalised

    def across(self, own: Scanned, other: Scanned, active: NDArray[np.bool_], settings: JoinSettings) -> Across:
        """Pairs of vectors of two runs; see :meth:`Signal.across`. The facts hold the measured ``recall``."""
        from dedupkit.signals.vectors import across_vectors

        return across_vectors(self, own, other, active, settings)

    def labels(self, scanned: Scanned) -> NDArray[np.int32]:
        """Samples with equal vectors, or with equal bytes, by the join; see :meth:`Signal.labels`."""
        return scanned.labels(self.name)

    def edge_files(self, scanned: Scanned) -> list[Path]:
        """All pairs within a bound, and those that rounds of verification looked at; see :meth:`Signal.edge_files`."""
        ranked = scanned.folder.ranked(self.name)
        return [*super().edge_files(scanned), *([ranked] if ranked.exists() else [])]

    def rows(self, scanned: Scanned, samples: NDArray[np.int64]) -> tuple[NDArray[np.bool_], NDArray[Any]]:
        """The vectors of some samples at unit length; see :meth:`Signal.rows`."""
        import numpy as np

        from dedupkit.signals.vector_files import vectors_of

        vectors = vectors_of(scanned, self.name, samples)
        present = np.asarray(vectors.any(axis=1))
        return present, vectors[present]

    def compare(self, left: NDArray[Any], right: NDArray[Any]) -> NDArray[np.float32]:
        """Cosines of rows of unit length."""
        import numpy as np

        cosine: NDArray[np.float32] = np.einsum("ij,ij->i", left, right)
        return cosine

    def strata(self) -> list[float]:
        """See :meth:`Signal.strata`."""
        return [round(1 - _STEP * k, 4) for k in range(1, round((1 - _LOWEST) / _STEP) + 1)]

    def thresholds(self, floor: float) -> list[float]:
        """Every hundredth, and the floor."""
        count = int((1 - floor) * 100 + 1e-6)
        return sorted({*(round(1 - k / 100, 2) for k in range(count + 1)), floor}, reverse=True)

    def scorer(self, rows: NDArray[Any]) -> PairScorer:
        """See :meth:`Signal.scorer`."""
        from dedupkit.signals.impostors import Products, vector_sides

        return Products(vector_sides(rows))

    @property
    def pair_work(self) -> float:
        """One product of vectors."""
        return _TYPICAL_WIDTH

    def check_calibratable(self) -> None:
        """Raise DedupkitError where calibration cannot take the signal."""
        from dedupkit.embedding.spec import parse_spec

        if self.spec and parse_spec(self.spec).background():
            raise DedupkitError(f"{self.name} has a background, and normalised scores cannot be calibrated yet")
