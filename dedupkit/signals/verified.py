"""``verified``: the images of a pair were looked at again and show the same content."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from dedupkit.signals.identity import Exact
from dedupkit.signals.signal import JoinSettings, Kind, Signal, Stage

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from dedupkit.signals.across import Across
    from dedupkit.signals.columns import Scanned
    from dedupkit.signals.matches import Matches

__all__ = ["Verified"]


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

    def across(self, own: Scanned, other: Scanned, part: NDArray[np.bool_], settings: JoinSettings) -> Across:
        """Equal bytes; the verify stage adds the pairs that it finds. See :meth:`Signal.across`."""
        return Exact("exact").across(own, other, part, settings)

    def matches(self, scanned: Scanned) -> Matches:
        """The pairs that the verify stage found; see :meth:`Signal.matches`."""
        from dedupkit.signals.edges import read_matches

        return read_matches(scanned, self.name, self.labels(scanned))
