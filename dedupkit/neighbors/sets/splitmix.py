"""A hash of a number, as compiled loops call it. Importing this file imports numba."""

from typing import Any

import numpy as np

from dedupkit.neighbors.hamming.kernels import njit

__all__ = ["mix"]


@njit
def mix(value: Any) -> Any:
    """The finalizer of splitmix64 (Steele, Lea and Flood 2014)."""
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))
