"""The one way back to the images of a finished scan: batched by shard, in the order of storage, checked by SHA-256.

Whoever needs images again (verification, embedding, reports, calibration, cleaned shards) reads them here. An image is
handed out only if its bytes are those that were scanned; what is not says "moved", "changed" or "cannot be read".
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from dedupkit.errors import RereadError
from dedupkit.runfolder.folder import RunFolder
from dedupkit.runfolder.index import RowIndex
from dedupkit.sources.again import Moved, find_again
from dedupkit.sources.sample import Place, Sample, Shard
from dedupkit.store import read_columns

__all__ = ["Failed", "Images", "Originals", "Scanned", "places_of", "read_images", "read_samples"]

_COLUMNS = ("key", "offset", "nbytes", "sha256", "format")

Failed = Callable[[Place, RereadError], None]


class Images(Protocol):
    """Images that are read again by the numbers of their samples."""

    def read(self, samples: Iterable[int], failed: Failed | None = None) -> Iterator[tuple[Place, bytes]]:
        """Read the images of some samples; see :func:`read_images`."""
        ...


class Originals:
    """The images of a run, where they are now.

    Args:
        folder: The run folder.
        moved: Where the data lies now, if it moved since the run.

    Raises:
        DedupkitError: the folder holds no run, or ``moved`` does not exist.

    Attributes:
        names: ``source`` of each shard of the run.
        shards: The shards in the run's order; None for one that is gone.
        starts: The first sample of each shard, and the number of samples; (shards + 1,) int64.
    """

    def __init__(self, folder: RunFolder, moved: Moved | None = None) -> None:
        config = folder.read_config()
        self._folder = folder
        self.names: list[str] = list(config.shards)
        directory = config.directory
        self.shards = find_again(config.sources, self.names, directory=directory, moved=moved)
        self._index = RowIndex(folder, len(self.names))
        self.starts = self._index.starts

    def places(self, samples: Iterable[int]) -> list[Place]:
        """Where some samples lie, in ascending order.

        Raises:
            RereadError: a shard that holds one of them is gone.
        """
        found: list[Place] = []
        for number, here in self._index.by_shard(samples):
            self.shard(number)
            found += self._places(number, here)
        return found

    def shard(self, number: int) -> Shard:
        """A shard of the run.

        Raises:
            RereadError: it is gone.
        """
        shard = self.shards[number]
        if shard is None:
            raise _gone(self.names[number])
        return shard

    def needed(self, places: Sequence[Place]) -> dict[int, Shard]:
        """The shards of some places by number, as a task needs them."""
        return {number: self.shard(number) for number in sorted({place.shard for place in places})}

    def read(self, samples: Iterable[int], failed: Failed | None = None) -> Iterator[tuple[Place, bytes]]:
        """Read the images of some samples; see :func:`read_images`."""
        for number, here in self._index.by_shard(samples):
            places = self._places(number, here)
            shard = self.shards[number]
            if shard is not None:
                yield from read_images({number: shard}, places, failed)
                continue
            for place in places:
                _fail(place, _gone(self.names[number]), failed)

    def _places(self, number: int, samples: NDArray[np.int64]) -> list[Place]:
        return places_of(self._folder.samples(number), number, int(self.starts[number]), samples.tolist())


def places_of(file: Path, shard: int, start: int, samples: Sequence[int]) -> list[Place]:
    """Where some samples of one shard lie.

    Args:
        file: What the scan wrote of the shard.
        shard: Number of the shard.
        start: Its first sample.
        samples: Row numbers in the run, all of this shard.
    """
    table = read_columns(file, _COLUMNS)
    rows = table.take(pa.array(np.asarray(samples, np.int64) - start)).to_pylist()
    return [Place(sample=sample, shard=shard, **row) for sample, row in zip(samples, rows, strict=True)]


def read_images(
    shards: Mapping[int, Shard], places: Iterable[Place], failed: Failed | None = None
) -> Iterator[tuple[Place, bytes]]:
    """Read some images again and check that they are the ones that were scanned.

    A shard is read once, as far as needed: by seeking in a tar, in one pass over a compressed one, with each row group
    of a Parquet file read once. One image is held at a time.

    Args:
        shards: The shards by number, at least those that the places name.
        places: Where the images lie.
        failed: Called for an image that cannot be read as it was; by default the error is raised.

    Yields:
        Each place with the stored bytes, shard by shard, in the order of storage.

    Raises:
        RereadError: an image changed or cannot be read, and ``failed`` is not given.
    """
    by_shard: dict[int, list[Place]] = defaultdict(list)
    for place in places:
        if place.sha256 is None:
            _fail(place, RereadError(f"sample {place.key!r} has no image"), failed)
        else:
            by_shard[place.shard].append(place)
    for number, here in by_shard.items():
        shard = shards[number]
        open_places = {place.sample: place for place in here}
        try:
            for place, data in shard.fetch_many(here):
                del open_places[place.sample]
                if isinstance(data, OSError):
                    _fail(place, _unreadable(shard.source, place.key, data), failed)
                elif hashlib.sha256(data).digest() != place.sha256:
                    _fail(place, _changed(shard.source, place.key), failed)
                else:
                    yield place, data
        except OSError as error:
            for place in open_places.values():
                gone = isinstance(error, FileNotFoundError)
                _fail(place, _gone(shard.source) if gone else _unreadable(shard.source, place.key, error), failed)


class Scanned(NamedTuple):
    """What the scan said of a sample that is to be read again."""

    key: str
    sha256: bytes


def read_samples(
    shard: Shard, wanted: Sequence[Scanned | None], *, extra: bool = False
) -> Iterator[tuple[int, Sample]]:
    """Read whole samples of a shard again, in its order, and check that they are the ones that were scanned.

    Reading ends with the last wanted sample: what lies behind it, readable or not, does not matter.

    Args:
        shard: The shard.
        wanted: What the scan said of each row of the shard; None for a row that is not needed.
        extra: Fill in ``Sample.extra``, all columns of the source's row.

    Yields:
        The row number in the shard and the sample.

    Raises:
        RereadError: a sample is not the one that was scanned, or the shard ends before the last one.
        OSError: the shard cannot be read as far as the last one.
    """
    last = max((row for row, scanned in enumerate(wanted) if scanned is not None), default=-1)
    if last < 0:
        return
    for row, sample in enumerate(shard.read(extra=extra)):
        scanned = wanted[row]
        if scanned is not None:
            data = sample.image
            if sample.key != scanned.key or data is None or hashlib.sha256(data).digest() != scanned.sha256:
                raise _changed(shard.source, scanned.key)
            yield row, sample
        if row == last:
            return
    raise RereadError(
        f"{shard.source} has changed: it is shorter than when it was scanned; run again, so that it is scanned again"
    )


def _fail(place: Place, error: RereadError, failed: Failed | None) -> None:
    if failed is None:
        raise error
    failed(place, error)


def _gone(source: str) -> RereadError:
    return RereadError(
        f"{source} is not where it was when the run read it; bring it back, or say where it lies now with --source"
    )


def _changed(source: str, key: str) -> RereadError:
    return RereadError(
        f"{source} has changed since it was scanned (at sample {key!r}); run again, so that it is scanned again"
    )


def _unreadable(source: str, key: str, error: OSError) -> RereadError:
    if isinstance(error, FileNotFoundError):
        return _gone(f"{source}/{key}")
    why = error.strerror or str(error) or type(error).__name__
    return RereadError(f"sample {key!r} of {source} cannot be read again: {why}")
