"""Thumbnails of samples, made from the originals where these can still be read."""

from __future__ import annotations

import base64
from collections import deque
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np

from dedupkit.errors import RereadError
from dedupkit.images import ImageError, open_image, thumbnail
from dedupkit.runfolder.folder import RunFolder
from dedupkit.sources.again import Moved
from dedupkit.sources.reread import Images, Originals
from dedupkit.sources.sample import Place

__all__ = ["Thumbnails"]

_THREADS = 4  # each may hold one decoded image


class Thumbnails:
    """Thumbnails of a run's samples as ``data:`` addresses.

    Args:
        run: The run folder, or what reads its images.
        side: Side of the square that a thumbnail fits in, in pixels.
        moved: Where the data lies now, if it moved since the run.

    Attributes:
        missing: Reason why a sample has no thumbnail, by sample.
    """

    def __init__(self, run: Path | Images, side: int = 160, moved: Moved | None = None) -> None:
        self._run = run
        self._side = side
        self._moved = moved
        self.missing: dict[int, str] = {}

    def get(self, samples: Iterable[int]) -> dict[int, str]:
        """The thumbnails of some samples; those that cannot be made are left out and noted in ``missing``."""
        wanted = np.unique(np.fromiter(samples, np.int64))
        if not len(wanted):
            return {}
        originals = Originals(RunFolder(self._run), self._moved) if isinstance(self._run, Path) else self._run
        found: dict[int, str] = {}
        waiting: deque[tuple[int, Future[tuple[str, str | None]]]] = deque()

        def collect(most: int) -> None:
            while len(waiting) > most:
                sample, made = waiting.popleft()
                uri, problem = made.result()
                if problem is None:
                    found[sample] = uri
                else:
                    self.missing[sample] = problem

        def failed(place: Place, error: RereadError) -> None:
            self.missing[place.sample] = str(error)

        with ThreadPoolExecutor(_THREADS) as pool:
            for place, data in originals.read(wanted.tolist(), failed):
                waiting.append((place.sample, pool.submit(_make, data, self._side)))
                collect(2 * _THREADS)
            collect(0)
        return found

    @property
    def note(self) -> str | None:
        """One line about the thumbnails that are missing, None where none is."""
        if not self.missing:
            return None
        first = self.missing[min(self.missing)]
        count = len(self.missing)
        return f"{count:,} {'image' if count == 1 else 'images'} could not be shown; the first: {first}"


def _make(data: bytes, side: int) -> tuple[str, str | None]:
    """A thumbnail's address, or why there is none."""
    try:
        small = thumbnail(open_image(data), side)
    except ImageError as error:
        return "", str(error)
    except Exception as error:  # a decoder may raise anything, and a report must still appear
        return "", f"the image cannot be shown: {type(error).__name__}"
    return "data:image/jpeg;base64," + base64.b64encode(small).decode(), None
