"""Rows of samples that no image was read for, for benchmarks of what comes after the scan."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from dedupkit.stages.scan import sample_schema
from dedupkit.store import write_table


def write_rows(path: str, hashes: NDArray[np.uint8], columns: dict[str, list[Any]]) -> dict[str, Any]:
    """Write the samples file of a shard; returns what its scan would.

    Args:
        path: The file.
        hashes: (2, n, 32), the SHA-256 and the PDQ of each row.
        columns: Further columns by name, such as ``key``.
    """
    count = hashes.shape[1]
    columns = {
        **columns,
        "sha256": [row.tobytes() for row in hashes[0]],
        "pdq": [row.tobytes() for row in hashes[1]],
        "pdq_quality": [100] * count,
        "width": [512] * count,
        "height": [512] * count,
        "nbytes": [50_000] * count,
        "format": ["jpeg"] * count,
    }
    schema = sample_schema([])
    arrays = [pa.array(columns.get(name, [None] * count), schema.field(name).type) for name in schema.names]
    write_table(Path(path), pa.table(arrays, schema=schema))
    return {"samples": count, "unreadable": 0, "nbytes": 50_000 * count}
