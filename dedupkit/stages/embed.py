"""The embed stage: one shard in, one float16 file out, row for row beside its samples."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dedupkit.embedding.embedder import Embedder, Pixels, Vectors
from dedupkit.embedding.load import shared_embedder
from dedupkit.embedding.pixels import decode_rgb
from dedupkit.embedding.precomputed import EXAMPLES, Precomputed, shared_precomputed
from dedupkit.embedding.spec import parse_spec
from dedupkit.errors import DedupkitError
from dedupkit.images import ImageError
from dedupkit.sources import Shard
from dedupkit.sources.reread import Scanned, read_samples
from dedupkit.store import atomic_path, read_columns

__all__ = ["BATCH_SIZE", "embed_shard", "join_shard"]

BATCH_SIZE = 64

Decoded = Pixels | ImageError


def embed_shard(
    shard: Shard,
    path: str,
    embedder: Embedder | str,
    *,
    samples_path: str,
    batch_size: int = BATCH_SIZE,
    threads: int = 2,
    device: str | None = None,
    key: str | None = None,
    projection: str | None = None,
) -> dict[str, Any]:
    """Embed a shard's images; a task of the engine.

    Args:
        shard: the shard that was scanned, read again in the same order.
        path: the ``.npy`` to write: (samples, dim) float16, unit rows; all zeros where a sample has no embedding.
        embedder: the model, or its specification, then loaded once for this process; ``precomputed:PATH`` joins the
            vectors that it names.
        samples_path: what the scan wrote; only rows whose ``error`` is null are embedded.
        batch_size: images a call of the model.
        threads: Number of threads that decode while the model works.
        device: Device of an embedder given by its specification.
        key: Key of an embedder given by its specification; by default it is asked.
        projection: File of the projection that such an embedder gets: a path of its own, which differs between
            machines that share an object store alone.

    Returns:
        ``samples`` (rows), ``embedded``, ``failed`` (readable, but without embedding), ``failure`` (the first message;
        None without one), ``examples`` (keys of the first few that failed), ``name``, ``dim``, ``precision``;
        ``problem`` and ``retry`` where the shard could not be read as far as the scan read it.

    Raises:
        DedupkitError: the shard is no longer the one that was scanned; see also
            :func:`~dedupkit.embedding.load.load_embedder`.
    """
    if isinstance(embedder, str) and projection is not None:
        embedder = parse_spec(embedder).projected(Path(projection))
    if isinstance(embedder, str) and embedder.startswith("precomputed:"):
        return join_shard(path, shared_precomputed(embedder, key=key), samples_path)
    model = shared_embedder(embedder, device, key=key) if isinstance(embedder, str) else embedder
    rows_scanned = read_columns(Path(samples_path), ["key", "sha256", "error"]).to_pylist()
    wanted = [Scanned(row["key"], row["sha256"]) if row["error"] is None else None for row in rows_scanned]
    matrix = _Matrix(model, [None if scanned is None else scanned.key for scanned in wanted])
    images = _Images(shard, wanted)
    ahead = 2 * batch_size  # so that the next batches are decoded while the model works on this one
    with ThreadPoolExecutor(threads, thread_name_prefix="decode") as pool:
        rows: list[int] = []
        batch: list[Pixels] = []
        for row, decoded in _in_order(images, pool, partial(_decode, model), ahead):
            if isinstance(decoded, ImageError):
                matrix.fail(row, str(decoded))
                continue
            rows.append(row)
            batch.append(decoded)
            if len(rows) == batch_size:
                matrix.fill(rows, np.stack(batch))
                rows, batch = [], []
        if rows:
            matrix.fill(rows, np.stack(batch))
    for row in images.lost():
        matrix.fail(row, "could not be read again")
    with atomic_path(Path(path)) as temporary, temporary.open("wb") as stream:
        np.save(stream, matrix.values)
    summary = {"samples": len(wanted), "name": model.name, "dim": model.dim, "precision": model.precision}
    return summary | matrix.counts() | images.problem()


def join_shard(
    path: str, vectors: Precomputed, samples_path: str, by: Sequence[str] = ("uid", "key", "url")
) -> dict[str, Any]:
    """Write the vectors of one shard's samples, as :func:`embed_shard` does for a model."""
    table = read_columns(Path(samples_path), ["key", "uid", "url", "error"])
    columns = {name: table[name].to_pylist() for name in table.column_names}
    readable = np.flatnonzero(table["error"].is_null().to_numpy())
    keys, uids, urls = ([columns[name][row] for row in readable.tolist()] for name in ("key", "uid", "url"))
    matrix = np.zeros((table.num_rows, vectors.dim), np.float16)
    matrix[readable], found = vectors.lookup(keys, uids, urls, by=by)
    with atomic_path(Path(path)) as temporary, temporary.open("wb") as stream:
        np.save(stream, matrix)
    lost = np.flatnonzero(~found)
    first = f"{keys[lost[0]]}: no usable vector in the set" if len(lost) else None
    return {
        "samples": table.num_rows,
        "name": vectors.name,
        "dim": vectors.dim,
        "precision": "float16",
        "embedded": int(found.sum()),
        "failed": len(lost),
        "failure": first,
        "examples": [str(keys[row]) for row in lost[:EXAMPLES].tolist()],
    }


def _decode(model: Embedder, data: bytes) -> Decoded:
    try:
        return model.preprocess(decode_rgb(data, model.min_side))
    except ImageError as error:
        return error
    except Exception as error:
        return ImageError(f"{type(error).__name__}: {error}")


def _in_order(
    images: Iterable[tuple[int, bytes]], pool: ThreadPoolExecutor, decode: Any, ahead: int
) -> Iterator[tuple[int, Decoded]]:
    """Decode in the pool, at most ``ahead`` images beyond the one that is handed out."""
    waiting: deque[tuple[int, Future[Decoded]]] = deque()
    for row, data in images:
        waiting.append((row, pool.submit(decode, data)))
        if len(waiting) > ahead:
            first, future = waiting.popleft()
            yield first, future.result()
    for row, future in waiting:
        yield row, future.result()


class _Images:
    """The stored bytes of the samples that are to be embedded, with their row."""

    def __init__(self, shard: Shard, wanted: Sequence[Scanned | None]) -> None:
        self._shard, self._wanted = shard, wanted
        self._read = 0
        self._failure: OSError | None = None

    def __iter__(self) -> Iterator[tuple[int, bytes]]:
        try:
            for row, sample in read_samples(self._shard, self._wanted):
                self._read = row + 1
                if sample.image is not None:
                    yield row, sample.image
        except OSError as error:
            self._failure = error

    def lost(self) -> list[int]:
        """The rows that were readable in the scan and were not now."""
        return [row for row in range(self._read, len(self._wanted)) if self._wanted[row] is not None]

    def problem(self) -> dict[str, Any]:
        """What was readable in the scan and was not now."""
        if self._failure is None:
            return {}
        return {"problem": f"{len(self.lost())} samples could not be read again: {self._failure}", "retry": True}


@dataclass(slots=True)
class _Matrix:
    """The embeddings of a shard, and what failed."""

    model: Embedder
    keys: list[str | None]
    failed: int = 0
    failure: str | None = None
    examples: list[str] = field(default_factory=list)
    embedded: int = 0
    values: NDArray[np.float16] = field(init=False)

    def __post_init__(self) -> None:
        self.values = np.zeros((len(self.keys), self.model.dim), np.float16)

    def fill(self, rows: list[int], batch: Pixels) -> None:
        """Embed a batch; one that fails is tried again image by image, so that it costs only the culprits."""
        try:
            self._store(rows, self._encode(batch))
            return
        except Exception as error:
            if len(rows) == 1:
                self.fail(rows[0], f"{type(error).__name__}: {error}")
                return
        for index, row in enumerate(rows):
            self.fill([row], batch[index : index + 1])

    def fail(self, row: int, message: str) -> None:
        """Count a row that stays zero."""
        self.failed += 1
        self.failure = self.failure or f"{self.keys[row]}: {message}"
        if len(self.examples) < EXAMPLES:
            self.examples.append(str(self.keys[row]))

    def counts(self) -> dict[str, Any]:
        """For the summary."""
        return {
            "embedded": self.embedded, "failed": self.failed, "failure": self.failure, "examples": self.examples,
        }  # fmt: skip

    def _encode(self, batch: Pixels) -> Vectors:
        vectors = self.model.encode(batch)
        if vectors.shape != (len(batch), self.model.dim):
            raise DedupkitError(f"{self.model.name} gave {vectors.shape}, not {(len(batch), self.model.dim)}")
        return vectors

    def _store(self, rows: list[int], vectors: Vectors) -> None:
        usable = np.isfinite(vectors).all(axis=1) & vectors.any(axis=1)
        self.values[np.asarray(rows)[usable]] = vectors[usable]
        self.embedded += int(usable.sum())
        for row in np.asarray(rows)[~usable].tolist():
            self.fail(row, f"{self.model.name} gives a vector of zeros or NaN")
