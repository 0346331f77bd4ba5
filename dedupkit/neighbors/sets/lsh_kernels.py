"""The compiled loops of MinHash-LSH: keys of bands, and what candidates share. Importing this file imports numba."""

from typing import Any

import numpy as np

from dedupkit.neighbors.hamming.kernels import njit
from dedupkit.neighbors.sets.splitmix import mix

__all__ = ["common_tokens", "row_keys"]

_ZERO = np.uint64(0)


@njit
def row_keys(values: Any, out: Any) -> None:
    """A 64-bit hash of each row of numbers."""
    for row in range(len(values)):
        key = _ZERO
        for place in range(values.shape[1]):
            key = mix(key + np.uint64(values[row, place]) + np.uint64(0x9E3779B97F4A7C15))
        out[row] = key


@njit
def common_tokens(starts: Any, tokens: Any, one: Any, other: Any, out: Any) -> None:
    """For each pair of rows the number of tokens that both hold."""
    for pair in range(len(one)):
        left, left_end = starts[one[pair]], starts[one[pair] + 1]
        right, right_end = starts[other[pair]], starts[other[pair] + 1]
        count = 0
        while left < left_end and right < right_end:
            if tokens[left] == tokens[right]:
                count += 1
                left += 1
                right += 1
            elif tokens[left] < tokens[right]:
                left += 1
            else:
                right += 1
        out[pair] = count
