"""What a removed sample is of its witness, where the pair was verified."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

__all__ = ["relations"]


def relations(edges: Path, pairs: Iterable[tuple[int, int]]) -> dict[tuple[int, int], str]:
    """What the first sample of each pair is of the second, in words.

    Args:
        edges: Edges of the signal ``verified``, a file; it need not exist.
        pairs: Samples, each with its witness.

    Returns:
        The pairs of which something is known: ``a crop``, ``a recoloured copy`` and the like.
    """
    wanted = set(pairs)
    words: dict[tuple[int, int], str] = {}
    if not wanted or not edges.exists():
        return words
    samples = pa.array(sorted({sample for pair in wanted for sample in pair}), pa.int64())
    with pq.ParquetFile(edges) as file:
        for batch in file.iter_batches(columns=["a", "b", "a_is", "b_is"]):
            near = batch.filter(pc.and_(pc.is_in(batch["a"], samples), pc.is_in(batch["b"], samples)))
            for edge in near.to_pylist():
                words[edge["a"], edge["b"]], words[edge["b"], edge["a"]] = edge["a_is"], edge["b_is"]
    return {pair: words[pair] for pair in wanted if words.get(pair)}
