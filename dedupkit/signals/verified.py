"""``verified`` and ``template``: what looking at the images of a pair again says of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from dedupkit.errors import DedupkitError
from dedupkit.signals.identity import Exact
from dedupkit.signals.signal import JoinSettings, Kind, Signal, Stage

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from dedupkit.signals.across import Across
    from dedupkit.signals.columns import Scanned

__all__ = ["Template", "Verified"]


@dataclass(frozen=True)
class Verified(Signal):
    """Holds between images of equal bytes, and between pairs that the verify stage found to show the same content.

    It has no fingerprint of a sample and finds no pairs: other conditions of its clause propose them.
    """

    kind: ClassVar[Kind] = "identity"
    stage: ClassVar[Stage] = "verify"

    def labels(self, scanned: Scanned) -> NDArray[np.int32]:
        """Equal bytes need no second look."""
        return Exact("exact").labels(scanned)

    def across(self, own: Scanned, other: Scanned, active: NDArray[np.bool_], settings: JoinSettings) -> Across:
        """Equal bytes; the verify stage adds the pairs that it finds. See :meth:`Signal.across`."""
        return Exact("exact").across(own, other, active, settings)

    def words(self, bound: float | None) -> str:
        """See :meth:`Signal.words`."""
        return "local features and pixels confirm that both show the same image"


@dataclass(frozen=True)
class Template(Verified):
    """Holds between pairs that the verify stage found to be one template with different content, and equal bytes.

    Copies of a template's members are not of it by themselves: only what was looked at holds.
    """

    def across(self, own: Scanned, other: Scanned, active: NDArray[np.bool_], settings: JoinSettings) -> Across:
        """Raise DedupkitError: templates are looked for within a run."""
        raise DedupkitError("'template' compares the samples of one run; leave it out of a rule against other sets")

    def check_calibratable(self) -> None:
        """Raise DedupkitError: calibration makes copies, and knows no templates."""
        raise DedupkitError("calibration makes copies, not templates: it takes no rule that names 'template'")

    def words(self, bound: float | None) -> str:
        """The end of the sentence 'two samples are duplicates when …'."""
        return "they are one template with different content"
