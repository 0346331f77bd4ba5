"""Look-up of single vectors among many: exact for small sets, by inverted lists for large ones (faiss)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["VectorLookup"]

_EXACT_UP_TO = 20_000
_TRAINING_ROWS = 64  # rows a cell from which the cells are learned
_FILE = "vectors.faiss"
_ROWS = "rows.npy"


class VectorLookup:
    """Unit vectors that answer which of them are most like a query.

    Up to 20,000 vectors are all compared. More are kept in √n cells, the nearest 3 % (at least 16) of which a query
    visits. Vectors are kept in half precision, 2·d bytes each; in cells they are mapped from the file, so that only
    the pages that are used stay in memory. Searching is safe in several threads at once.

    Args:
        index: An index of faiss over inner products.
        rows: (n,) int64, the number that each vector stands for.
    """

    def __init__(self, index: Any, rows: NDArray[np.int64]) -> None:
        self._index, self._rows = index, rows

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def dim(self) -> int:
        """Length of a vector."""
        return int(self._index.d)

    @classmethod
    def of(cls, vectors: NDArray[Any], rows: NDArray[np.int64], seed: int = 0) -> VectorLookup:
        """Index vectors of unit length.

        Args:
            vectors: (n, d), in memory or mapped; float16 or float32.
            rows: (n,) int64, the number that each stands for.
            seed: Seed for the choice of the vectors from which cells are learned.
        """
        import faiss

        count, dim = vectors.shape
        half, product = faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT
        if count <= _EXACT_UP_TO:
            index: Any = faiss.IndexScalarQuantizer(dim, half, product)
        else:
            cells = round(count**0.5)
            index = faiss.IndexIVFScalarQuantizer(faiss.IndexFlatIP(dim), dim, cells, half, product)
            index.cp.seed = seed
            index.by_residual = False
            index.nprobe = max(16, round(cells * 0.03))
            chosen = np.random.default_rng(seed).choice(count, min(count, _TRAINING_ROWS * cells), replace=False)
            index.train(np.ascontiguousarray(vectors[np.sort(chosen)], dtype=np.float32))
        if not index.is_trained:
            index.train(np.ascontiguousarray(vectors[:1], dtype=np.float32))
        for start in range(0, count, 1 << 15):
            index.add(np.ascontiguousarray(vectors[start : start + (1 << 15)], dtype=np.float32))
        return cls(index, rows)

    @classmethod
    def open(cls, folder: Path) -> VectorLookup:
        """Open what :meth:`save` wrote."""
        import faiss

        rows = np.load(folder / _ROWS)
        mapped = faiss.IO_FLAG_MMAP if len(rows) > _EXACT_UP_TO else 0
        return cls(faiss.read_index(str(folder / _FILE), mapped), rows)

    def save(self, folder: Path) -> None:
        """Write two files into a folder that exists."""
        import faiss

        faiss.write_index(self._index, str(folder / _FILE))
        np.save(folder / _ROWS, self._rows)

    def nearest(self, queries: NDArray[np.float32], count: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """The vectors most like each query, the most alike first.

        Args:
            queries: (m, d) of unit length.
            count: Number of vectors for each.

        Returns:
            Their numbers, (m, count) int64, -1 where there are no more, and their cosines, (m, count) float32.
        """
        if not len(self):
            shape = (len(queries), count)
            return np.full(shape, -1, np.int64), np.full(shape, -1, np.float32)
        scores, at = self._index.search(np.ascontiguousarray(queries, dtype=np.float32), count)
        return np.where(at >= 0, self._rows[np.maximum(at, 0)], -1), scores
