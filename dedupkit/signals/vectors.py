"""The joins of an embedder's vectors: those of a run, and those of a run and a reference."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dedupkit.errors import DedupkitError
from dedupkit.neighbors.cosine.neighbors import Neighbors
from dedupkit.signals.across import Across, restricted
from dedupkit.signals.columns import Edges, Scanned, write_edges
from dedupkit.signals.identity import Exact
from dedupkit.signals.signal import JoinSettings
from dedupkit.signals.vector_files import gather, gather_joined, leaders_of, with_vector
from dedupkit.signals.vector_join import facts_before, join_vectors, nearest
from dedupkit.store import atomic_path, temporary_path

if TYPE_CHECKING:
    from dedupkit.signals.embedded import Embedded

__all__ = ["across_vectors", "match_vectors", "nearest_among"]


def match_vectors(signal: Embedded, scanned: Scanned, settings: JoinSettings) -> dict[str, Any]:
    """Join the vectors of one embedder, and write edges and labels.

    Samples with equal vectors are one, whose first is joined; under normalised scores, by which they may be apart, and
    where each has neighbours of its own, samples with equal bytes are.

    Args:
        signal: The embedder.
        scanned: All samples; their vectors are there.
        settings: The bound (a cosine, or with a background a normalised score), the floor and the search.

    Returns:
        ``distinct`` vectors joined, ``edges`` written, and what :func:`.vector_join.facts_before` lists.

    Raises:
        DedupkitError: More pairs than there is room for; the message proposes a floor.
    """
    folder = scanned.folder
    folder.ranked(signal.name).unlink(missing_ok=True)
    gathered = temporary_path(folder.edges(signal.name).with_name("vectors.npy"))
    gathered.parent.mkdir(parents=True, exist_ok=True)
    try:
        labels, distinct = Exact("exact").labels(scanned), settings.floor is None and not signal.normalised
        vectors, leaders, first = gather_joined(scanned, signal.name, gathered, labels, distinct=distinct)
        facts = facts_before(len(leaders), settings)
        found = join_vectors(signal.spec, [vectors], settings, facts) if len(leaders) > 1 else iter(())
        blocks = ((leaders[a], leaders[b], score) for a, b, score in found)
        written = write_edges(folder.edges(signal.name), blocks)
    except ValueError as error:
        raise DedupkitError(f"{signal.name}: {error}") from error
    finally:
        gathered.unlink(missing_ok=True)
    with atomic_path(folder.labels(signal.name)) as temporary, temporary.open("wb") as stream:
        np.save(stream, first)
    return {"distinct": len(leaders), **written._asdict(), **facts}


def nearest_among(
    name: str, scanned: Scanned, samples: NDArray[np.int64], settings: JoinSettings, wanted: NDArray[np.int64], k: int
) -> Neighbors:
    """The nearest neighbours of some samples among others; pairs are places in ``samples``.

    Args:
        name: The embedder.
        scanned: All samples; their vectors are there.
        samples: (m,) ascending, the samples to look among; all have a vector.
        settings: The floor and the search.
        wanted: Places in ``samples`` of those whose neighbours are sought.
        k: Length of a list.
    """
    gathered = temporary_path(scanned.folder.edges(name).with_name("vectors.npy"))
    try:
        vectors = gather(scanned, name, samples, gathered)
        return nearest(vectors, settings.floor or 0.0, settings, k, wanted)
    except ValueError as error:
        raise DedupkitError(f"{name}: {error}") from error
    finally:
        gathered.unlink(missing_ok=True)


def across_vectors(
    signal: Embedded, own: Scanned, other: Scanned, active: NDArray[np.bool_], settings: JoinSettings
) -> Across:
    """Join the vectors of a run's samples with those of the rows of a reference that take part.

    Args:
        signal: The embedder.
        own: The samples; their vectors are there.
        other: The rows of the reference; theirs are there too.
        active: (m,) bool, which rows take part.
        settings: The bound and the search; with a floor each sample's nearest rows above it are found too, as many as
            a run over both would list.

    Raises:
        DedupkitError: Vectors of two lengths; more pairs than there is room for.
    """
    labels, leaders = [], []
    for scanned, mask in ((own, None), (other, active)):
        contents = Exact("exact").labels(scanned)
        first = contents if mask is None else restricted(contents, mask)
        leaders.append(leaders_of(scanned, signal.name, contents, first))
        labels.append(with_vector(first, leaders[-1]))
    facts = facts_before(len(leaders[0]) + len(leaders[1]), settings)

    def blocks() -> Iterator[Edges]:
        if not len(leaders[0]) or not len(leaders[1]):
            return
        gathered = temporary_path(own.folder.path / "vectors")  # removed by the next call where this one is killed
        gathered.mkdir()
        try:
            sides = [
                gather(scanned, signal.name, mine, gathered / f"{side}.npy")
                for side, (scanned, mine) in enumerate(zip((own, other), leaders, strict=True))
            ]
            if sides[0].shape[1] != sides[1].shape[1]:
                raise DedupkitError(
                    f"the vectors of {signal.name} have {sides[0].shape[1]} values here and {sides[1].shape[1]} in "
                    f"{other.folder.path}: they are of another model; --compute-missing computes them for it"
                )
            for a, b, score in join_vectors(signal.spec, sides, settings, facts):
                yield leaders[0][a], leaders[1][b], score
        except ValueError as error:
            raise DedupkitError(f"{signal.name}: {error}") from error
        finally:
            shutil.rmtree(gathered, ignore_errors=True)

    return Across(labels[0], labels[1], blocks(), facts)
