"""Score normalisation for copy descriptors: what looks like everything must look more alike to be a copy.

Some images (plain skies, text on white) are close to a great many others. Subtracting how close a vector comes to
images that are certainly no copies of it makes one threshold fit all:

    s'(q, r) = s(q, r) - beta * mean(s(q, b_first), ..., s(q, b_last))

where b_i is the i-th nearest neighbour of q in a background set, counted from 0. This is the form used to evaluate
SSCD (Pizzi et al., "A Self-Supervised Descriptor for Image Copy Detection", CVPR 2022, arXiv 2202.10261; the
authors' evaluation has beta = 1 and neighbours 0 to 2), after the Image Similarity Challenge (Douze et al., arXiv
2106.09672). There only the query is normalised. Where a set is joined with itself there is no query, and the two
sides are averaged, so that the score does not depend on the order of a pair.

The background must hold no copies of the images to be compared; images of another data set, or training images of
the descriptor, serve. A normalised score is not a cosine: thresholds are about the usual background similarity lower.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from dedupkit.neighbors.cosine.distinct import check_vectors

__all__ = ["ScoreNormaliser", "normalise_scores"]

BLOCK_ROWS = 65536


class ScoreNormaliser:
    """The background set, ready to give the bias of any vector.

    Args:
        background: (k, d) float16 or float32 vectors; they need not have length 1. Those that are zero or not
            finite are left out.
        beta: weight of the bias.
        first, last: neighbours in the background that are averaged, counted from 0, both inclusive.

    Raises:
        ValueError: an array of another shape or type, neighbours out of order, or fewer usable background vectors
            than neighbours.
    """

    def __init__(self, background: NDArray[Any], beta: float = 1.0, first: int = 0, last: int = 2) -> None:
        import faiss

        if not 0 <= first <= last:
            raise ValueError(f"neighbours must satisfy 0 <= first <= last, not {first} and {last}")
        units = unit_or_zero_rows(check_vectors(background, "background"))
        units = units[units.any(axis=1)]
        if len(units) <= last:
            raise ValueError(f"the background has {len(units)} usable vectors; neighbour {last} needs {last + 1}")
        self.beta, self.first, self.last = beta, first, last
        self._index = faiss.IndexFlatIP(units.shape[1])
        self._index.add(units)

    def bias(self, vectors: NDArray[Any]) -> NDArray[np.float32]:
        """What is subtracted from the scores of each vector.

        Args:
            vectors: (n, d) float16 or float32; read in blocks, so a memmap will do.

        Returns:
            float32 (n,); 0 for a vector that is zero or not finite. Work: n * k * d multiply-adds.

        Raises:
            ValueError: an array of another shape or type, or other dimensions than the background's.
        """
        array = check_vectors(vectors, "vectors")
        if array.shape[1] != self._index.d:
            raise ValueError(f"vectors have {array.shape[1]} dimensions, the background has {self._index.d}")
        bias = np.empty(len(array), np.float32)
        for at in range(0, len(array), BLOCK_ROWS):
            nearest, _ = self._index.search(unit_or_zero_rows(array[at : at + BLOCK_ROWS]), self.last + 1)
            bias[at : at + BLOCK_ROWS] = self.beta * nearest[:, self.first :].mean(axis=1)
        return bias


def normalise_scores(
    score: NDArray[np.float32],
    a: NDArray[np.int64],
    b: NDArray[np.int64],
    bias_a: NDArray[np.float32],
    bias_b: NDArray[np.float32] | None = None,
) -> NDArray[np.float32]:
    """Normalise the scores of pairs.

    Args:
        score: float32 (m,), cosines.
        a: int64 (m,), rows of the queries, in `bias_a`.
        b: int64 (m,), rows of the references.
        bias_a: float32 (n,), `ScoreNormaliser.bias` of the queries.
        bias_b: float32 (k,), bias of the references; given, both sides count half. For a join of a set with itself
            pass the same array twice.

    Returns:
        float32 (m,).
    """
    if bias_b is None:
        return score - bias_a[a]
    return score - (bias_a[a] + bias_b[b]) / np.float32(2)


def unit_or_zero_rows(vectors: NDArray[Any]) -> NDArray[np.float32]:
    """Scale rows to length 1, float32; those that are zero or not finite become zero."""
    rows = np.array(vectors, np.float32, order="C")
    length = np.linalg.norm(rows.astype(np.float64), axis=1)
    bad = ~(np.isfinite(length) & (length > 0))
    rows[bad], length[bad] = 0, 1
    rows /= length[:, None].astype(np.float32)
    return rows
