"""The compiled loops of MinHash signatures. Importing this file imports numba."""

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types

from dedupkit.neighbors.hamming.kernels import LANES, intrinsic, njit

__all__ = ["LANES", "minhash_affine32", "minhash_legacy"]

_ZERO = np.uint64(0)


@intrinsic
def _affine_minima(_typing: Any, out: Any, _at: Any, factors: Any, summands: Any, _k: Any, _value: Any) -> Any:
    """(out, at, a, b, k, value): out[at + q] = min(out[at + q], a[k + q] * value + b[k + q]) for LANES of q."""

    def write(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        vector = ir.VectorType(ir.IntType(32), LANES)
        lane = ir.IntType(32)

        def place(number: int, at: Any) -> Any:
            data = context.make_array(signature.args[number])(context, builder, args[number]).data
            return builder.bitcast(builder.gep(data, [at]), vector.as_pointer())

        value = builder.trunc(args[5], lane)
        first = builder.insert_element(ir.Constant(vector, ir.Undefined), value, ir.Constant(lane, 0))
        spread = builder.shuffle_vector(
            first, ir.Constant(vector, ir.Undefined), ir.Constant(ir.VectorType(lane, LANES), [0] * LANES)
        )
        a, b = builder.load(place(2, args[4]), align=4), builder.load(place(3, args[4]), align=4)
        permuted = builder.add(builder.mul(a, spread), b)
        target = place(0, args[1])
        before = builder.load(target, align=4)
        least = builder.select(builder.icmp_unsigned("<", permuted, before), permuted, before)
        builder.store(least, target, align=4)
        return context.get_dummy_value()

    return types.void(out, types.int64, factors, summands, types.int64, types.uint64), write


@njit
def minhash_affine32(starts: Any, hashes: Any, a: Any, b: Any, first: Any, last: Any, out: Any) -> None:
    """Datasketch's permutations a * h + b modulo 2^32, of hashes mixed by MurmurHash3's finalizer.

    ``out`` (n * width,) starts with the largest value; a and b hold ``width`` numbers, a multiple of LANES.
    """
    width, keep = len(a), np.uint64(0xFFFFFFFF)
    for row in range(first, last):
        for place in range(starts[row], starts[row + 1]):
            value = np.uint64(hashes[place])
            value ^= value >> np.uint64(16)
            value = value * np.uint64(0x85EBCA6B) & keep
            value ^= value >> np.uint64(13)
            value = value * np.uint64(0xC2B2AE35) & keep
            value ^= value >> np.uint64(16)
            for k in range(0, width, LANES):
                _affine_minima(out, row * width + k, a, b, k, value)


@njit
def minhash_legacy(starts: Any, hashes: Any, a: Any, b: Any, first: Any, last: Any, out: Any) -> None:
    """Datasketch's permutations before version 2: (a * h + b modulo 2^64) modulo 2^61 - 1, of which 32 bits stay.

    Arrays as in :func:`minhash_affine32`.
    """
    width, prime, keep = len(a), np.uint64((1 << 61) - 1), np.uint64(0xFFFFFFFF)
    least = np.empty(width, np.uint64)
    for row in range(first, last):
        least[:] = keep
        for place in range(starts[row], starts[row + 1]):
            value = np.uint64(hashes[place])
            for k in range(width):
                permuted = a[k] * value + b[k]
                permuted = (permuted & prime) + (permuted >> np.uint64(61))
                permuted -= prime if permuted >= prime else _ZERO
                permuted &= keep
                least[k] = permuted if permuted < least[k] else least[k]
        for k in range(width):
            out[row * width + k] = np.uint32(least[k])
