"""Hashes whose distance is the number of bits that differ: the eight 64-bit hashes, PDQ, and PDQ of nested views."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from dedupkit.signals.column import ColumnSignal
from dedupkit.signals.expected import Expected, Extent
from dedupkit.signals.signal import JoinSettings, Kind, Steps

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from dedupkit.signals.columns import Edges, Scanned
    from dedupkit.signals.image import ScannedImage
    from dedupkit.signals.impostors import PairScorer

__all__ = ["HashSignal", "PerceptualHash"]


@dataclass(frozen=True)
class HashSignal(ColumnSignal):
    """A hash, compared by the number of bits that differ."""

    kind: ClassVar[Kind] = "distance"
    whole: ClassVar[bool] = True
    bits: ClassVar[int] = 64
    hashes: ClassVar[int] = 1
    """Number of hashes in a fingerprint, the whole image's first."""
    turned: ClassVar[bool] = False
    """Whether the distance is the least over eight orientations."""
    step: ClassVar[int] = 2
    """Width of a stratum of calibration, in bits."""
    reach: ClassVar[int] = 20
    """Thresholds beyond this many bits would match impostors."""

    @property
    def bounds(self) -> tuple[float, float]:
        """0 to the length of the hash."""
        return 0.0, float(self.bits)

    def join(self, values: NDArray[Any], settings: JoinSettings) -> Iterator[Edges]:
        """Every pair within the radius; see :meth:`Signal.join`."""
        from dedupkit.neighbors.hamming.join import iter_hamming_pairs

        return _edges(iter_hamming_pairs(values, int(settings.bound), workers=settings.workers))

    def steps(self, scanned: Scanned, settings: JoinSettings, key: str, samples: int) -> Steps:
        """Distinct fingerprints by ranges of their bytes, then pairs by chunk and range of its keys."""
        from dedupkit.signals.hash_tasks import hash_steps

        return hash_steps(self, scanned, settings, key, samples)

    def expected(self, extent: Extent, settings: JoinSettings) -> Expected:
        """By the cost model of the join; see :meth:`Signal.expected`."""
        from dedupkit.signals.hash_tasks import expected_steps

        return expected_steps(self, extent.samples, settings)

    def codes(self, values: NDArray[Any]) -> NDArray[np.uint64]:
        """The hashes of some fingerprints as their join takes them, (k * hashes, words) uint64."""
        from dedupkit.neighbors.hamming.join import as_words

        return as_words(values)

    def join_across(self, values: NDArray[Any], other: NDArray[Any], settings: JoinSettings) -> Iterator[Edges]:
        """Every pair within the radius; see :meth:`Signal.join_across`."""
        from dedupkit.neighbors.hamming.join import iter_hamming_pairs

        return _edges(iter_hamming_pairs(values, int(settings.bound), other, workers=settings.workers))

    def compare(self, left: NDArray[Any], right: NDArray[Any]) -> NDArray[np.float32]:
        """Bits that differ."""
        import numpy as np

        from dedupkit.neighbors.hamming.dihedral import POPCOUNT

        distance: NDArray[np.float32] = POPCOUNT[left ^ right].sum(axis=1).astype(np.float32)
        return distance

    def strata(self) -> list[float]:
        """See :meth:`Signal.strata`."""
        return [float(bound) for bound in range(self.step - 1, self.reach, self.step)]

    def thresholds(self, floor: float) -> list[float]:
        """Every number of bits."""
        return [float(bound) for bound in range(int(floor) + 1)]

    def scorer(self, rows: NDArray[Any]) -> PairScorer:
        """See :meth:`Signal.scorer`."""
        from dedupkit.signals.impostors import Products, hash_sides

        return Products(hash_sides(rows), self.bits)

    @property
    def pair_work(self) -> float:
        """One product of the bits."""
        return float(self.bits)


@dataclass(frozen=True)
class PerceptualHash(HashSignal):
    """A 64-bit hash as imagehash defines it or, with the suffix ``_imagededup``, as imagededup does."""

    @property
    def scan_columns(self) -> Mapping[str, int | str]:
        """8 bytes."""
        return {self.name: 8}

    def measure(self, image: ScannedImage) -> Mapping[str, Any]:
        """See :meth:`Signal.measure`."""
        from dedupkit.hashing.perceptual import perceptual_hash
        from dedupkit.images import ImageError

        try:
            return {self.name: perceptual_hash(image.small_views, self.name).tobytes()}
        except (ValueError, OSError) as error:
            raise ImageError(f"mode {image.pixels.mode}: {error}") from error

    def words(self, bound: float | None) -> str:
        """See :meth:`Signal.words`."""
        kind, _, definition = self.name.partition("_")
        origin = f" ({definition}'s definition)" if definition else ""
        return f"their 64-bit {kind[0]}{kind[1:].capitalize()} hashes{origin} differ in at most {bound:g} bits"


def _edges(blocks: Any) -> Iterator[Edges]:
    """Blocks of :class:`~dedupkit.neighbors.hamming.join.Pairs` as edges."""
    import numpy as np

    for pairs in blocks:
        yield pairs.a, pairs.b, pairs.distance.astype(np.float32)
