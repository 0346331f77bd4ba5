"""``pdq`` and ``crops``: PDQ in any orientation, of whole images and of nested central views."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar

from dedupkit.signals.hamming import HashSignal, _edges
from dedupkit.signals.signal import JoinSettings

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from dedupkit.signals.columns import Edges
    from dedupkit.signals.image import ScannedImage
    from dedupkit.signals.impostors import PairScorer

__all__ = ["MIN_PDQ_QUALITY", "VIEWS", "Crops", "Pdq"]

MIN_PDQ_QUALITY = 50
"""PDQ hashes of lower quality say too little (flat images) and match nothing; the bound is PDQ's own."""

VIEWS = 6
"""Hashes in a fingerprint of ``crops``: the whole and the views :data:`dedupkit.hashing.pdq.CROP_VIEWS`."""

_BYTES = 32
_ORIENTATIONS = 8


@dataclass(frozen=True)
class Pdq(HashSignal):
    """PDQ, the least distance over eight orientations; every scan computes it."""

    bits: ClassVar[int] = 8 * _BYTES
    step: ClassVar[int] = 8
    reach: ClassVar[int] = 96
    turned: ClassVar[bool] = True

    @property
    def also(self) -> tuple[str, ...]:
        """The quality."""
        return ("pdq_quality",)

    def usable(self, table: Any) -> Any:
        """Hashes of images that are not too flat."""
        import pyarrow.compute as pc

        return pc.greater_equal(table["pdq_quality"], MIN_PDQ_QUALITY)

    def warm_up(self, samples: int) -> None:
        """Load the join that so many samples will need: a second of work that nobody waits for."""
        import faiss  # noqa: F401

        from dedupkit.neighbors.hamming.flat import FLAT_BELOW

        if samples >= FLAT_BELOW:
            _load_join()

    def join(self, values: NDArray[Any], settings: JoinSettings) -> Iterator[Edges]:
        """Every pair within the radius in some orientation; see :meth:`Signal.join`."""
        from dedupkit.neighbors.hamming.dihedral import iter_dihedral_pairs
        from dedupkit.neighbors.hamming.flat import FLAT_BELOW, flat_dihedral_pairs

        radius = int(settings.bound)
        if len(values) < FLAT_BELOW:
            return _edges([flat_dihedral_pairs(values, radius)])
        return _edges(iter_dihedral_pairs(values, radius, workers=settings.workers))

    def codes(self, values: NDArray[Any]) -> NDArray[np.uint64]:
        """Class words; see :meth:`HashSignal.codes`."""
        from dedupkit.neighbors.hamming.dihedral import class_words

        return class_words(values)

    def join_across(self, values: NDArray[Any], other: NDArray[Any], settings: JoinSettings) -> Iterator[Edges]:
        """Every pair within the radius in some orientation; see :meth:`Signal.join_across`."""
        from dedupkit.neighbors.hamming.dihedral import iter_dihedral_pairs
        from dedupkit.neighbors.hamming.flat import FLAT_BELOW, flat_dihedral_pairs_of_two

        radius = int(settings.bound)
        if 2 * len(values) * len(other) < FLAT_BELOW**2:
            return _edges([flat_dihedral_pairs_of_two(values, other, radius)])
        return _edges(iter_dihedral_pairs(values, radius, other, workers=settings.workers))

    def compare(self, left: NDArray[Any], right: NDArray[Any]) -> NDArray[np.float32]:
        """Bits that differ in the best orientation."""
        import numpy as np

        from dedupkit.neighbors.hamming.dihedral import dihedral_distance

        return dihedral_distance(left, right).astype(np.float32)

    def words(self, bound: float | None) -> str:
        """See :meth:`Signal.words`."""
        return (
            f"their PDQ hashes, 256 bits that sum up what an image looks like, differ in at most {bound:g} bits, also "
            "when one is mirrored or turned by 90°, 180° or 270° (images too flat to hash, PDQ quality below "
            f"{MIN_PDQ_QUALITY}, match nothing this way)"
        )

    def scorer(self, rows: NDArray[Any]) -> PairScorer:
        """See :meth:`Signal.scorer`."""
        from dedupkit.signals.impostors import Products, hash_sides

        return Products(hash_sides(rows, turned=True), self.bits)

    @property
    def pair_work(self) -> float:
        """A product for each orientation."""
        return float(_ORIENTATIONS * self.bits)


@dataclass(frozen=True)
class Crops(HashSignal):
    """PDQ of the whole and of nested central views: finds even crops and borders."""

    bits: ClassVar[int] = 8 * _BYTES
    step: ClassVar[int] = 8
    reach: ClassVar[int] = 96
    hashes: ClassVar[int] = VIEWS
    turned: ClassVar[bool] = True
    views: ClassVar[bool] = True

    @property
    def scan_columns(self) -> Mapping[str, int | str]:
        """A hash for the whole and for each view, zeros where a view is too flat."""
        return {self.name: VIEWS * _BYTES}

    def measure(self, image: ScannedImage) -> Mapping[str, Any]:
        """See :meth:`Signal.measure`; an image that is flat as a whole has none."""
        import numpy as np

        if image.qualities[0] < MIN_PDQ_QUALITY:
            return {}
        flat = image.qualities < MIN_PDQ_QUALITY
        return {self.name: np.where(flat[:, None], 0, image.hashes).astype(np.uint8).tobytes()}

    def join(self, values: NDArray[Any], settings: JoinSettings) -> Iterator[Edges]:
        """Every pair of which one is a whole image; see :meth:`Signal.join`."""
        from dedupkit.neighbors.hamming.crops import iter_crop_pairs

        return _edges(iter_crop_pairs(values, int(settings.bound), workers=settings.workers))

    def codes(self, values: NDArray[Any]) -> NDArray[np.uint64]:
        """Class words; see :meth:`HashSignal.codes`."""
        from dedupkit.neighbors.hamming.dihedral import class_words

        return class_words(values.reshape(-1, _BYTES))

    def join_across(self, values: NDArray[Any], other: NDArray[Any], settings: JoinSettings) -> Iterator[Edges]:
        """Every pair of which one is a whole image; see :meth:`Signal.join_across`."""
        from dedupkit.neighbors.hamming.crops import iter_crop_pairs

        return _edges(iter_crop_pairs(values, int(settings.bound), other, workers=settings.workers))

    def compare(self, left: NDArray[Any], right: NDArray[Any]) -> NDArray[np.float32]:
        """The least distance of one image's whole to the other's whole and views, in the best orientation."""
        import numpy as np

        from dedupkit.neighbors.hamming.dihedral import dihedral_distance

        one, other = (np.split(side, VIEWS, axis=1) for side in (left, right))
        best = np.full(len(left), self.bits, np.float32)
        for x, y in [(one[0], view) for view in other] + [(view, other[0]) for view in one[1:]]:
            seen = np.any(x, axis=1) & np.any(y, axis=1)
            bits = dihedral_distance(np.ascontiguousarray(x), np.ascontiguousarray(y))
            best[seen] = np.minimum(best, bits)[seen]
        return best

    def words(self, bound: float | None) -> str:
        """See :meth:`Signal.words`."""
        return (
            "the PDQ hash of one image and that of the other, or of a central view of the other (90 % to 50 % of its "
            f"sides), differ in at most {bound:g} bits, in any orientation"
        )

    def scorer(self, rows: NDArray[Any]) -> PairScorer:
        """See :meth:`Signal.scorer`."""
        from dedupkit.signals.impostors import Products, hash_sides

        return Products(hash_sides(rows, views=VIEWS, turned=True), self.bits)

    @property
    def pair_work(self) -> float:
        """A product for each orientation of each pair of views of which one is a whole."""
        return float(_ORIENTATIONS * (2 * VIEWS - 1) * self.bits)


@cache
def _load_join() -> None:
    """Load the compiled kernels of the large join, by a join of two."""
    import numpy as np

    from dedupkit.neighbors.hamming.dihedral import dihedral_pairs

    dihedral_pairs(np.zeros((2, _BYTES), np.uint8), 0, workers=1)
