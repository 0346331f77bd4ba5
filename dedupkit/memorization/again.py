"""Generated images beside the training images that they may copy: both read again and compared by their pixels."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import starmap

from dedupkit.errors import DedupkitError, MissingExtraError, RereadError
from dedupkit.images import ImageError
from dedupkit.memorization.extraction import Filter, at_side, tile_distances
from dedupkit.sources.reread import Images
from dedupkit.sources.sample import Place
from dedupkit.verification import Features, features_of, verify_pair

__all__ = ["Again", "Seen"]

_PAIRS = 256  # whose features are held at once
_THREADS = 4


@dataclass(frozen=True, slots=True)
class Seen:
    """What a generated image is of a training image.

    Attributes:
        verified: Whether local features show the same image; None where that could not be asked.
        relation: What it is of the training image, in words; or why that is not known.
        tile_distance: The largest distance over their tiles, 0 to 1; None where it was not asked for.
    """

    verified: bool | None
    relation: str
    tile_distance: float | None = None


class Again:
    """Reads pairs of a generated and a training image, and looks at them.

    Args:
        generated: The generated images.
        training: The training images.

    Attributes:
        generated: The generated images.
        training: The training images.
        missing: Why the last pair that could not be looked at could not: an image cannot be read, or OpenCV is not
            installed. None where all could.
    """

    def __init__(self, generated: Images, training: Images) -> None:
        self.generated, self.training = generated, training
        self.missing: str | None = None

    def look(self, pairs: Sequence[tuple[int, int]], tiles: Filter | None = None) -> dict[tuple[int, int], Seen]:
        """Look at pairs of a generated and a training sample.

        Args:
            pairs: The pairs.
            tiles: Which tiles to compare too; None for none.
        """
        found: dict[tuple[int, int], Seen] = {}
        for start in range(0, len(pairs), _PAIRS):
            part = pairs[start : start + _PAIRS]
            made, trained = ({pair[side] for pair in part} for side in (0, 1))
            bytes_of = [self._read(self.generated, made), self._read(self.training, trained)]
            with ThreadPoolExecutor(_THREADS) as pool:
                features = [dict(zip(side, pool.map(self._features, side.values()), strict=True)) for side in bytes_of]
                seen = [_compare(features[0].get(a), features[1].get(b)) for a, b in part]
                distances: Sequence[float | None] = [None] * len(part)
                if tiles is not None:
                    wanted = [(bytes_of[0].get(a), bytes_of[1].get(b), tiles) for a, b in part]
                    distances = list(starmap(_tile_distance, wanted))
            for pair, (verified, relation), distance in zip(part, seen, distances, strict=True):
                found[pair] = Seen(verified, relation, distance)
        return found

    def read(self, samples: Sequence[int]) -> dict[int, bytes]:
        """The files of some generated images; those that cannot be read are left out."""
        return self._read(self.generated, set(samples))

    def _read(self, originals: Images, samples: set[int]) -> dict[int, bytes]:
        def failed(place: Place, error: RereadError) -> None:
            self.missing = str(error)

        return {place.sample: data for place, data in originals.read(samples, failed)}

    def _features(self, data: bytes) -> Features | str:
        """Features of an image, or why there are none."""
        try:
            return features_of(data)
        except MissingExtraError:
            self.missing = "verification needs OpenCV, pip install 'dedupkit-vision[verify]'"
            return f"not looked at: {self.missing}"
        except ImageError as error:
            return f"not looked at: {error}"


def _compare(a: Features | str | None, b: Features | str | None) -> tuple[bool | None, str]:
    if a is None or b is None:
        return None, "not looked at: the image cannot be read again"
    if isinstance(a, str) or isinstance(b, str):
        return None, a if isinstance(a, str) else str(b)
    verdict = verify_pair(a, b)
    return verdict.verified, verdict.describe("the training image")


def _tile_distance(a: bytes | None, b: bytes | None, tiles: Filter) -> float | None:
    if a is None or b is None:
        return None
    try:
        sides = (at_side(a, tiles.side)[None], at_side(b, tiles.side)[None])
    except DedupkitError:
        return None
    return float(tile_distances(*sides, tiles.tiles)[0, 0])
