"""``caption`` and ``uncaptioned``: what the texts of two samples say, whatever their images show."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from dedupkit.signals.expected import Expected, Extent
from dedupkit.signals.signal import JoinSettings, Kind, Signal, Stage, Steps

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from dedupkit.signals.across import Across
    from dedupkit.signals.columns import Scanned
    from dedupkit.signals.matches import Origin

__all__ = ["Caption", "Uncaptioned"]


@dataclass(frozen=True)
class Caption(Signal):
    """Jaccard similarity of the word sets of two captions; see :func:`dedupkit.captions.caption_pairs`.

    A sample without a caption has no fingerprint and matches nothing.
    """

    kind: ClassVar[Kind] = "similarity"
    origin: ClassVar[Origin] = "sample"

    @property
    def bounds(self) -> tuple[float, float]:
        """A similarity of sets; 0 would pair all with all."""
        return (0.05, 1.0)

    def join_key(self, settings: JoinSettings) -> list[Any]:
        """The steps of folding."""
        from dedupkit.captions.folding import Folding

        return [1, str(Folding())]

    def match(self, scanned: Scanned, settings: JoinSettings) -> dict[str, Any]:
        """Join the captions; see :meth:`Signal.match`. The facts say how they were folded and joined."""
        from dedupkit.signals.texts import match_captions

        return match_captions(self.name, scanned, settings)

    def steps(self, scanned: Scanned, settings: JoinSettings, key: str, samples: int) -> Steps:
        """The word sets, then for each part of them the pairs whose smaller set is in it."""
        from dedupkit.signals.caption_tasks import caption_steps

        return caption_steps(self.name, scanned, settings, key)

    def expected(self, extent: Extent, settings: JoinSettings) -> Expected:
        """From the number of words; see :meth:`Signal.expected`."""
        from dedupkit.signals.caption_tasks import expected_steps

        return expected_steps(extent)

    def across(self, own: Scanned, other: Scanned, active: NDArray[np.bool_], settings: JoinSettings) -> Across:
        """Similar captions of two runs, however long; see :meth:`Signal.across`."""
        from dedupkit.signals.texts import across_captions

        return across_captions(own, other, active, settings)

    def labels(self, scanned: Scanned) -> NDArray[np.int32]:
        """Captions with the same words are one; see :meth:`Signal.labels`."""
        return scanned.labels(self.name)

    def rows(self, scanned: Scanned, samples: NDArray[np.int64]) -> tuple[NDArray[np.bool_], NDArray[Any]]:
        """The folded captions of some samples, as objects; see :meth:`Signal.rows`."""
        from dedupkit.signals.texts import folded_captions

        return folded_captions(scanned, samples)

    def compare(self, left: NDArray[Any], right: NDArray[Any]) -> NDArray[np.float32]:
        """Jaccard similarities of the word sets of folded captions."""
        from dedupkit.signals.texts import similarities

        return similarities(left, right)

    def words(self, bound: float | None) -> str:
        """See :meth:`Signal.words`."""
        return f"the words of their captions agree (Jaccard similarity at least {bound:g})"

    def score_words(self, score: float) -> str:
        """See :meth:`Signal.score_words`."""
        return f"caption similarity {score:.2f}"

    def strata(self) -> list[float]:
        """See :meth:`Signal.strata`."""
        return [0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3]

    def thresholds(self, floor: float) -> list[float]:
        """Every hundredth, and the floor."""
        return sorted({*(round(1 - k / 100, 2) for k in range(int((1 - floor) * 100 + 1e-6) + 1)), floor}, reverse=True)


@dataclass(frozen=True)
class Uncaptioned(Signal):
    """Holds between two samples that both have no caption."""

    kind: ClassVar[Kind] = "identity"
    stage: ClassVar[Stage] = "none"
    origin: ClassVar[Origin] = "sample"

    def labels(self, scanned: Scanned) -> NDArray[np.int32]:
        """See :meth:`Signal.labels`."""
        from dedupkit.signals.texts import uncaptioned

        return uncaptioned(scanned)

    def across(self, own: Scanned, other: Scanned, active: NDArray[np.bool_], settings: JoinSettings) -> Across:
        """See :meth:`Signal.across`."""
        from dedupkit.signals.texts import across_uncaptioned

        return across_uncaptioned(own, other, active)

    def rows(self, scanned: Scanned, samples: NDArray[np.int64]) -> tuple[NDArray[np.bool_], NDArray[Any]]:
        """See :meth:`Signal.rows`."""
        import numpy as np

        present = self.labels(scanned)[samples] >= 0
        return present, np.ones((int(present.sum()), 1), np.uint8)

    def compare(self, left: NDArray[Any], right: NDArray[Any]) -> NDArray[np.float32]:
        """Two of them are always equal."""
        import numpy as np

        return np.ones(len(left), np.float32)

    def words(self, bound: float | None) -> str:
        """See :meth:`Signal.words`."""
        return "neither has a caption"
