"""Every size that the compiled kernel relies on, checked before it is called: it writes where it is told to."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from dedupkit.images.jpeg.layout import (
    BLOCKS_ACROSS,
    BLOCKS_DOWN,
    CHROMA_BLOCKS,
    DATA_END,
    DATA_START,
    DEFINITION,
    JOB_COLUMNS,
    KEEP_COLUMNS,
    KEEP_ROWS,
    MCU_COLUMNS,
    MCU_ROWS,
    PADDING,
    PLACES,
    PLANE,
    QUANTIZATION,
    STATE,
    STREAMS,
    STRIDE,
    TABLE_SIZE,
    TABLES,
)

__all__ = ["check_sizes"]

_MOST = 1 << 31  # places are stored as int32


def check_sizes(
    raw: NDArray[np.uint8],
    jobs: NDArray[np.int64],
    definitions: NDArray[np.uint8],
    tables: NDArray[np.uint32],
    quantization: NDArray[np.int32],
    planes: NDArray[np.int16],
    data: NDArray[np.uint8],
    blocks: NDArray[np.int32],
    places: NDArray[np.int32],
    state: NDArray[np.int64],
    sizes: NDArray[np.int64],
) -> None:
    """Check the arrays of a call of the kernel against each other; :mod:`.layout` names the columns.

    Raises:
        ValueError: What does not fit.
    """
    arrays: list[NDArray[Any]] = [
        *(raw, jobs, definitions, tables, quantization, planes, data, blocks, places, state, sizes)
    ]
    kinds = ["u1", "i8", "u1", "u4", "i4", "i2", "u1", "i4", "i4", "i8", "i8"]
    kinds_fit = [array.dtype == np.dtype(kind) for array, kind in zip(arrays, kinds, strict=True)]
    number = definitions.size // DEFINITION
    _hold(
        "arrays",
        *kinds_fit,
        *[array.flags.c_contiguous for array in arrays],
        jobs.shape[1] == JOB_COLUMNS and definitions.size == number * DEFINITION,
        tables.size == (number + 1) * TABLE_SIZE < _MOST and quantization.size % 64 == 0,
        data.shape[0] == blocks.shape[0] == places.shape[0] == state.shape[0] == STREAMS,
        places.shape[1] == PLACES and state.shape[1] == STATE and planes.size < _MOST,
        sizes[:4].tolist() == [raw.size, len(jobs), number, quantization.size // 64],
        sizes[4:7].tolist() == [planes.size, data.shape[1], blocks.shape[1]] and sizes.size == 8,
    )
    if number:
        counts = definitions.reshape(-1, DEFINITION)[:, 1:17].astype(np.int64)
        room = (counts << np.arange(15, -1, -1)).sum(axis=1)
        _hold("Huffman tables", counts.sum(axis=1).max() <= DEFINITION - 17, room.max() <= 1 << 16)
    job = jobs.T
    start, end, spare = job[DATA_START], job[DATA_END], int(sizes[7])
    _hold("scans", start.min() >= 0, (start <= end).all(), end.max() <= raw.size)
    _hold("scans", int((end - start).max()) + PADDING <= data.shape[1])
    columns, rows, across, down = job[MCU_COLUMNS], job[MCU_ROWS], job[BLOCKS_ACROSS], job[BLOCKS_DOWN]
    keep_rows, keep_columns, stride = job[KEEP_ROWS], job[KEEP_COLUMNS], job[STRIDE]
    chroma = job[CHROMA_BLOCKS : CHROMA_BLOCKS + 2]
    _hold("MCUs", min(columns.min(), rows.min()) > 0, max(columns.max(), rows.max()) <= 1 << 16)
    _hold("MCUs", min(across.min(), down.min()) > 0, max(across.max(), down.max()) <= 4)
    _hold("MCUs", chroma.min() >= 0, chroma.max() <= 16)
    _hold("blocks", int((columns * rows * (across * down + chroma.sum(axis=0))).max()) * 4 + 4 <= blocks.shape[1])
    _hold("frequencies", min(keep_rows.min(), keep_columns.min()) > 0, max(keep_rows.max(), keep_columns.max()) <= 8)
    _hold("strides", (stride == columns * across * keep_columns).all())
    first = job[PLANE]
    last = first + rows * down * (keep_rows + 1) * stride
    _hold("planes", first[0] >= 0, (last[:-1] <= first[1:]).all(), last[-1] <= spare)
    _hold("planes", spare + int(((keep_rows + 1) * stride).max()) <= planes.size)
    used = job[TABLES : TABLES + 6]
    _hold("tables", used.min() >= 0, used.max() <= number)
    _hold("tables", job[QUANTIZATION].min() >= 0, job[QUANTIZATION].max() < quantization.size // 64)


def _hold(what: str, *conditions: Any) -> None:
    if not all(conditions):
        raise ValueError(f"reading JPEGs: sizes of {what} do not fit together")
