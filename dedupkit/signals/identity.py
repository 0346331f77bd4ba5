"""``exact`` and ``pixels``: equal stored bytes, equal decoded pixels."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from dedupkit.signals.column import ColumnSignal
from dedupkit.signals.signal import JoinSettings, Kind, Stage

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from dedupkit.signals.columns import Edges
    from dedupkit.signals.image import ScannedImage
    from dedupkit.signals.matches import Origin

__all__ = ["Exact", "IdentitySignal", "PixelIdentity"]


@dataclass(frozen=True)
class IdentitySignal(ColumnSignal):
    """A signal that holds between samples whose values in one column are equal, and has no edges."""

    kind: ClassVar[Kind] = "identity"
    stage: ClassVar[Stage] = "none"

    def join_across(self, values: NDArray[Any], other: NDArray[Any], settings: JoinSettings) -> Iterator[Edges]:
        """Equal values; see :meth:`Signal.join_across`."""
        import numpy as np

        from dedupkit.signals.across import equal_rows

        a, b = equal_rows(values, other)
        yield a, b, np.zeros(len(a), np.float32)

    def compare(self, left: NDArray[Any], right: NDArray[Any]) -> NDArray[np.float32]:
        """1 where two values are equal, else 0."""
        import numpy as np

        same = np.equal(left, right).reshape(len(left), -1)
        return np.asarray(same.all(axis=1), np.float32)


@dataclass(frozen=True)
class Exact(IdentitySignal):
    """SHA-256 of the stored bytes, which every scan computes."""

    origin: ClassVar[Origin] = "bytes"

    @property
    def column(self) -> str:
        """The column of SHA-256."""
        return "sha256"

    def words(self, bound: float | None) -> str:
        """See :meth:`Signal.words`."""
        return "their files are identical, byte for byte (SHA-256)"


@dataclass(frozen=True)
class PixelIdentity(IdentitySignal):
    """SHA-256 of mode, size and decoded pixels: files that differ in container or metadata alone are equal."""

    @property
    def scan_columns(self) -> Mapping[str, int | str]:
        """32 bytes."""
        return {self.name: 32}

    def measure(self, image: ScannedImage) -> Mapping[str, Any]:
        """See :meth:`Signal.measure`."""
        from dedupkit.hashing.exact import pixel_hash

        return {self.name: pixel_hash(image.pixels)}

    def words(self, bound: float | None) -> str:
        """See :meth:`Signal.words`."""
        return "their decoded pixels are identical"
