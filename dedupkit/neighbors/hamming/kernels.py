"""The compiled loops of the exact Hamming join. Importing this file imports numba; only a running join does.

Method: multi-index hashing (Norouzi, Punjani and Fleet, "Fast Search in Hamming Space with Multi-Index
Hashing", CVPR 2012, section 3), turned from queries into a join. `hamming` explains the plan.

Complexity of one chunk of w bits with k flip masks over n hashes: n·k/2 look-ups and n²·k/2^(w+1) candidates,
sixteen of which are compared at once; memory 24·n + 4·2^w bytes.

Every test "is this distance small enough?" is one unsigned comparison: p qualifies unless it lies in a band
[low, low + span), so if `p - low >= span` modulo 2^64. `hamming.band` makes the bands.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir
from numba import njit as numba_njit
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic as numba_intrinsic
from numpy.typing import NDArray

Function = Callable[..., Any]

LANES = 16
"""Words compared at once."""

PADDING = 2 * LANES
"""Words behind the sorted ones: after a hit in the last block a search begins up to a block beyond it and reads one."""

TILE = 1024
"""Left words that all masks are applied to before the next are read: they stay in the cache."""

ZERO = np.uint64(0)
ONE = np.uint64(1)


class Side(NamedTuple):
    """One set of n hashes, sorted by one chunk."""

    words: NDArray[np.uint64]  # (n + PADDING,): the word that holds the chunk, in key order
    ids: NDArray[np.int32]  # (n,): row in codes, in key order, ascending within a key
    starts: NDArray[np.int32]  # (buckets + 1,): where the words of a key begin
    codes: NDArray[np.uint64]  # (n, words per hash): the hashes in their own order


class Probe(NamedTuple):
    """How one chunk is looked up."""

    word: int  # index of the word that holds the chunk
    shift: np.uint64  # position of the chunk's lowest bit
    keep: np.uint64  # as many low bits set as the chunk is wide
    top: np.uint64  # the highest of these bits where keys are complemented to clear it, else 0
    flips: NDArray[np.uint64]  # (k,): a key joins with key ^ flip, for each
    word_bands: NDArray[np.uint64]  # (words per hash, 2): low and span for the distance of each word
    earlier: NDArray[np.uint64]  # (e, 3): earlier chunks of this word: bits in place, low and span


def njit(function: Function) -> Function:
    """Compile at first use, without the GIL; keep the machine code on disk."""
    compiled: Function = numba_njit(cache=True, nogil=True)(function)
    return compiled


def intrinsic(function: Function) -> Function:
    """Turn a writer of LLVM code into a function that compiled code can call."""
    callable_in_kernels: Function = numba_intrinsic(function)
    return callable_in_kernels


@intrinsic
def popcount(_typing: Any, _x: Any) -> Any:
    """Set bits of a uint64, as a uint64."""

    def write(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        return builder.ctpop(args[0])

    return types.uint64(types.uint64), write


@intrinsic
def block_hits(_typing: Any, words: Any, _at: Any, _x: Any, _low: Any, _span: Any) -> Any:
    """(words, at, x, low, span): bit q is set where the distance of x and words[at + q] is outside the band.

    Written as vector code, because loops that may leave early are not vectorised.
    """

    def write(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        vector = ir.VectorType(ir.IntType(64), LANES)
        index = ir.IntType(32)
        nothing = ir.Constant(vector, ir.Undefined)

        def spread(value: Any) -> Any:
            first = builder.insert_element(nothing, value, ir.Constant(index, 0))
            return builder.shuffle_vector(first, nothing, ir.Constant(ir.VectorType(index, LANES), [0] * LANES))

        array, at, x, low, span = args
        data = context.make_array(signature.args[0])(context, builder, array).data
        there = builder.load(builder.bitcast(builder.gep(data, [at]), vector.as_pointer()), align=8)
        count_type = ir.FunctionType(vector, [vector])
        name = f"llvm.ctpop.v{LANES}i64"
        count = cgutils.get_or_insert_function(builder.module, count_type, name)  # type: ignore[no-untyped-call]
        distance = builder.call(count, [builder.xor(there, spread(x))])
        outside = builder.icmp_unsigned(">=", builder.sub(distance, spread(low)), spread(span))
        return builder.zext(builder.bitcast(outside, ir.IntType(LANES)), ir.IntType(64))

    return types.uint64(words, types.int64, types.uint64, types.uint64, types.uint64), write


@njit
def key_of(word: Any, probe: Any) -> Any:
    """Bucket of a word: its chunk, complemented if that is asked for and clears the top bit."""
    key = (word >> probe.shift) & probe.keep
    return key ^ probe.keep if key & probe.top else key


@njit
def place(words: Any, ids: Any, probe: Any, low: Any, digit: Any, words_out: Any, ids_out: Any) -> None:
    """Stable counting sort by the bits `digit` of key >> low. O(n + digit)."""
    places = np.zeros(digit + ONE + ONE, np.int64)
    for row in range(len(ids)):
        places[((key_of(words[row], probe) >> low) & digit) + ONE] += 1
    for value in range(1, len(places)):
        places[value] += places[value - 1]
    for row in range(len(ids)):
        word = words[row]
        value = (key_of(word, probe) >> low) & digit
        words_out[places[value]] = word
        ids_out[places[value]] = ids[row]
        places[value] += 1


@njit
def sort_by_chunk(probe: Any, words: Any, ids: Any, spare_words: Any, spare_ids: Any, starts: Any) -> None:
    """Sort words by key, and make of them, their rows and the starts of the keys a `Side`. O(n + buckets).

    Two passes of half the key each: neither the cache nor the TLB holds as many open lines as there are buckets.

    Args:
        probe: Fields of a `Probe`.
        words: uint64 (n + PADDING,); in: in the order of the rows, out: of the keys.
        ids: int32 (n,); out.
        spare_words: uint64 (n + PADDING,), overwritten.
        spare_ids: int32 (n,), overwritten.
        starts: int32 (buckets + 1,); out.
    """
    probe = Probe(*probe)
    n = len(ids)
    for row in range(n):
        ids[row] = row
    last = np.uint64(len(starts) - 2)
    low = popcount(last) >> ONE
    place(words, ids, probe, ZERO, (ONE << low) - ONE, spare_words, spare_ids)
    place(spare_words, spare_ids, probe, low, last >> low, words, ids)
    words[n:] = ZERO
    starts[:] = 0
    for row in range(n):
        starts[key_of(words[row], probe) + ONE] = row + 1
    for key in range(1, len(starts)):
        starts[key] = max(starts[key], starts[key - 1])


@njit
def seek(
    left: Any,
    right: Any,
    probe: Any,
    flip: Any,
    low: Any,
    span: Any,
    self_join: Any,
    i: Any,
    end: Any,
    j: Any,
) -> Any:
    """Go on from left position i < end and right position j to the next block with a hit.

    Apart from what is done with hits, so that this loop has the registers to itself. It is built for the branch
    predictor: the first block is compared even if the bucket is empty, and nothing is asked before.

    Returns:
        Left position, right position of the block, and its hits as bits; hits = 0 at the end.
    """
    for row in range(i, end):
        word = left.words[np.uint64(row)]  # an unsigned index is not checked for counting from the end
        target = key_of(word, probe) ^ flip
        start = max(np.int64(right.starts[target]), j)
        stop = np.int64(right.starts[target + ONE])
        if self_join:  # a pair is seen from its smaller position only
            start = max(start, row + 1)
        j = 0
        block = start
        while True:
            hits = block_hits(right.words, block, word, low, span)
            if hits != ZERO:
                inside = min(max(stop - block, 0), LANES)  # lanes beyond belong to other keys
                hits &= (ONE << np.uint64(inside)) - ONE
                if hits != ZERO:
                    return row, block, hits
            block += LANES
            if block >= stop:
                break
    return end, 0, ZERO


@njit
def is_first(x: Any, a: Any, y: Any, b: Any, probe: Any) -> Any:
    """Whether no earlier word, and no earlier chunk of this word, brings x[a] and y[b] together."""
    for c in range(probe.word):
        if popcount(x[a, c] ^ y[b, c]) - probe.word_bands[c, 0] >= probe.word_bands[c, 1]:
            return False
    differing = x[a, probe.word] ^ y[b, probe.word]
    for e in range(len(probe.earlier)):
        if popcount(differing & probe.earlier[e, 0]) - probe.earlier[e, 1] >= probe.earlier[e, 2]:
            return False
    return True


@njit
def distance(x: Any, a: Any, y: Any, b: Any, mirrors: Any) -> Any:
    """Bits in which x[a] and y[b] differ; with `mirrors` the least over the four mirror images of one of the hashes.

    A mirror complements two of the words 1, 2 and 3, or none (see `dihedral`): p bits of 64 become 64 - p.
    """
    if mirrors:
        p0 = np.int64(popcount(x[a, 0] ^ y[b, 0]))
        p1 = np.int64(popcount(x[a, 1] ^ y[b, 1]))
        p2 = np.int64(popcount(x[a, 2] ^ y[b, 2]))
        p3 = np.int64(popcount(x[a, 3] ^ y[b, 3]))
        return p0 + min(p1 + p2 + p3, 128 + p1 - p2 - p3, 128 - p1 + p2 - p3, 128 - p1 - p2 + p3)
    total = ZERO
    for c in range(x.shape[1]):
        total += popcount(x[a, c] ^ y[b, c])
    return np.int64(total)


@njit
def scan(
    left: Any,
    right: Any,
    other: Any,
    probe: Any,
    turn: Any,
    self_join: Any,
    radius: Any,
    begin: Any,
    end: Any,
    state: Any,
    out: Any,
) -> Any:
    """Join the left positions [begin, end) with the right side until done or `out` is full.

    Args:
        left: Fields of a `Side`.
        right: Fields of a `Side`; the left one in a join of a set with itself, which emits
            a pair from its smaller position.
        other: uint64 codes of the right side transposed once more; read only where `turn` is not 0.
        probe: Fields of a `Probe`.
        turn: 0: plain; 1: the upright half of a dihedral join; 2: the transposed half of one of a set with itself;
            3: that of one of two sets.
        self_join: Whether left is right.
        radius: Largest distance, in bits.
        begin: First left position.
        end: Left position to stop before.
        state: int64 (3,): where to go on: step (tile and mask; -1 when done), left position, right position.
        out: int64 (capacity, 3): takes a, b, distance; capacity >= LANES.

    Returns:
        Rows written.
    """
    left, right, probe = Side(*left), Side(*right), Probe(*probe)
    # Named once: looking an array up counts a reference, and all threads would fight for the counter.
    left_codes, right_codes = left.codes, right.codes
    low, span = probe.word_bands[probe.word, 0], probe.word_bands[probe.word, 1]
    masks = len(probe.flips)
    steps = (end - begin + TILE - 1) // TILE * masks
    count = 0
    i, j = state[1], state[2]
    for step in range(state[0], steps):
        tile = begin + step // masks * TILE
        tile_end = min(tile + TILE, end)
        flip = probe.flips[step % masks]
        if self_join:
            first = key_of(left.words[tile], probe)
            spread = first ^ key_of(left.words[tile_end - 1], probe)
            if first ^ flip < first and spread < flip and spread < spread ^ flip:
                continue  # all keys of the tile have the highest bit of the flip: they are met from the other side
        i = max(i, tile)
        while True:
            i, j, hits = seek(left, right, probe, flip, low, span, self_join, i, tile_end, j)
            if hits == ZERO:
                break
            if count + LANES > len(out):
                state[0], state[1], state[2] = step, i, j
                return count
            for lane in range(LANES):
                if (hits >> np.uint64(lane)) & ONE == ZERO:
                    continue
                a, b = left.ids[i], right.ids[j + lane]
                if turn == 2 and a >= b:  # the other order of the pair is met as well
                    continue
                if not is_first(left_codes, a, right_codes, b, probe):
                    continue
                d = distance(left_codes, a, right_codes, b, turn > 0)
                if d > radius:
                    continue
                if turn > 0:
                    turned = distance(left_codes, a, other, b, True)
                    if turn >= 2 and turned <= radius:  # the upright half has it
                        continue
                    d = min(d, turned)
                out[count, 0] = min(a, b) if self_join else a
                out[count, 1] = max(a, b) if self_join else b
                out[count, 2] = d
                count += 1
            j += LANES
        i = j = 0
    state[0] = -1
    return count
