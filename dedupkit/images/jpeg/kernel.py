"""The compiled loops that read the coefficients of baseline JPEGs.

Importing this file imports numba and compiles them; :mod:`dedupkit.startup.compiled` keeps what comes out.

A Huffman decoder is one chain: where a symbol begins is known when the one before it is decoded, some twenty cycles
later, of which a processor is busy for a few. So four images are decoded at once, a symbol of each in turn, and the
step from one symbol to the next has no branch that the data decides: the end of a block is arithmetic.

An entry of a Huffman table holds a code and what follows it, as four bytes from the lowest: the length of the code, 63
minus that of the value, the length of both, and by how much the coefficient advances before the value is stored. If
the lowest seven bits are zero, the code is longer than ``TABLE_BITS``, and the rest is where its second table begins.
"""

from typing import Any

import numpy as np
from llvmlite import ir
from numba import (  # type: ignore[attr-defined]
    carray,
    cfunc,
    njit,
    types,
)
from numba.extending import intrinsic

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
    PLANE,
    QUANTIZATION,
    READ,
    STATE,
    STREAMS,
    STRIDE,
    TABLE_BITS,
    TABLE_SIZE,
    TABLES,
)

U = np.uint64
STEPS = 512  # between two looks at which images are done
SYMBOL_BITS = 31  # that a step consumes at most
BIT, BLOCK, COEFFICIENT, JOB, BYTES, BLOCKS, SEEN = range(STATE)  # of a stream; SEEN is BIT at the last look
STAY = 64 | 63 << 8 | 255 << 24  # an entry that consumes nothing
UNKNOWN = STAY  # no code: the stream stands still, which is noticed at the next look
assert STEPS * SYMBOL_BITS // 8 + 8 <= PADDING  # noqa: S101 - what a truncated image is read beyond its end

# fmt: off
ZIGZAG = np.array([
    0, 1, 8, 16, 9, 2, 3, 10, 17, 24, 32, 25, 18, 11, 4, 5, 12, 19, 26, 33, 40, 48, 41, 34, 27, 20, 13, 6, 7, 14, 21,
    28, 35, 42, 49, 56, 57, 50, 43, 36, 29, 22, 15, 23, 30, 37, 44, 51, 58, 59, 52, 45, 38, 31, 39, 46, 53, 60, 61, 54,
    47, 55, 62, 63,
], np.int64)
# fmt: on


def _big_endian(typingctx: Any, data: Any, at: Any) -> Any:
    """Eight bytes of ``data`` from ``at`` on as a number."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array = context.make_array(signature.args[0])(context, builder, arguments[0])
        place = builder.gep(array.data, [arguments[1]])
        word = builder.load(builder.bitcast(place, ir.IntType(64).as_pointer()))
        word.align = 1
        return builder.bswap(word)

    return types.uint64(data, at), generate


big_endian: Any = intrinsic(_big_endian)


@njit(error_model="numpy", forceinline=True)
def step(data: Any, bit: Any, block: Any, k: Any, planes: Any, blocks: Any, places: Any, tables: Any) -> Any:
    """Decode a symbol and store its value; returns where the next one begins: bit, block and coefficient."""
    row = U(block << 2)
    table = U(blocks[row + U(1) + U(k > 0)])
    word = big_endian(data, bit >> U(3)) << (bit & U(7))
    entry = U(tables[table + (word >> U(64 - TABLE_BITS))])
    if entry & U(127) == 0:
        entry = U(tables[(entry >> U(8)) + ((word << U(TABLE_BITS)) >> U(48 + TABLE_BITS))])
    value_bits = word << (entry & U(63))
    size = (entry >> U(8)) & U(63)
    value = np.int64((value_bits >> U(1)) >> size)
    # A value whose first bit is 0 stands for a negative number (T.81, F.2.2.1).
    value -= ~(np.int64(value_bits) >> 63) & np.int64(U(0x7FFFFFFFFFFFFFFF) >> size)
    place = U(k + (np.int64(np.int32(np.uint32(entry))) >> 24) + 1) << U(1)
    value *= np.int64(places[place + U(1)])
    planes[U(np.int64(blocks[row]) + np.int64(places[place]))] = min(max(value, -32768), 32767)
    inside = (np.int64(place) - 128) >> 63  # -1 up to coefficient 63, then 0
    return bit + ((entry >> U(16)) & U(63)), block + 1 + inside, np.int64(place >> U(1)) & inside


@njit(error_model="numpy")
def huffman_table(definition: Any, tables: Any, base: Any) -> None:
    """Lay a Huffman table out from ``base`` on; codes ascend with their length (T.81, annex C)."""
    slot, last = base, base + (1 << TABLE_BITS)
    second = last
    symbols = 17
    for length in range(1, 17):
        for _ in range(definition[length]):
            symbol = np.int64(definition[symbols])
            run: Any = symbol >> 4
            size = symbol & 15
            symbols += 1
            if definition[0] == 0:
                run = 0
            elif size == 0 and run != 15:
                run = 64  # the end of the block
            entry = length | (63 - size) << 8 | (length + size) << 16 | run << 24
            if length <= TABLE_BITS:
                for _ in range(1 << (TABLE_BITS - length)):
                    tables[slot] = entry
                    slot += 1
                continue
            for _ in range(1 << (16 - length)):
                if (second - last) & ((1 << (16 - TABLE_BITS)) - 1) == 0:
                    tables[slot] = second << 8
                    slot += 1
                tables[second] = entry
                second += 1
    for place in range(slot, last):
        tables[place] = UNKNOWN
    while (second - last) & ((1 << (16 - TABLE_BITS)) - 1) != 0:
        tables[second] = UNKNOWN
        second += 1


@njit(error_model="numpy")
def unstuff(raw: Any, start: Any, end: Any, data: Any) -> Any:
    """Copy a scan without the zeros after its 0xFF bytes; returns its length, -1 where no end of image follows."""
    length = 0
    while start < end:
        byte = raw[U(start)]
        data[U(length)] = byte
        start += 1
        length += 1
        if byte == 0xFF:
            if start == end or raw[U(start)] != 0:
                length -= 1
                break
            start += 1
    while start < end and raw[U(start)] == 0xFF:  # fill bytes
        start += 1
    if start == end or raw[U(start)] != 0xD9:
        return -1
    data[length : length + PADDING] = 0
    return length


@njit(error_model="numpy")
def begin(number: Any, raw: Any, jobs: Any, quantization: Any, planes: Any, data: Any, blocks: Any, places: Any,
          state: Any, spare: Any) -> Any:  # fmt: skip
    """Set a stream up for an image; returns whether it has a scan that ends."""
    job = jobs[number]
    length = unstuff(raw, job[DATA_START], job[DATA_END], data)
    if length < 0:
        return False
    keep_rows, keep_columns, stride, plane = job[KEEP_ROWS], job[KEEP_COLUMNS], job[STRIDE], job[PLANE]
    across, down = job[BLOCKS_ACROSS], job[BLOCKS_DOWN]
    planes[plane : plane + job[MCU_ROWS] * down * (keep_rows + 1) * stride] = 0
    # What is not kept, and what a broken file puts behind the last coefficient, goes to a row that nobody reads.
    for k in range(places.size >> 1):
        places[2 * k] = keep_rows * stride
        places[2 * k + 1] = 0
    for k in range(64):
        row, column = ZIGZAG[k] >> 3, ZIGZAG[k] & 7
        if row < keep_rows and column < keep_columns:
            places[2 * k + 2] = row * stride + column
            # The first coefficients are differences, and dequantised when they are summed up.
            places[2 * k + 3] = quantization[job[QUANTIZATION], k] if k > 0 else 1
    n = 0
    for y in range(job[MCU_ROWS]):
        for x in range(job[MCU_COLUMNS]):
            for j in range(down):
                for i in range(across):
                    row = plane + (y * down + j) * (keep_rows + 1) * stride
                    blocks[n] = row + (x * across + i) * keep_columns
                    blocks[n + 1] = job[TABLES] * TABLE_SIZE
                    blocks[n + 2] = job[TABLES + 1] * TABLE_SIZE
                    n += 4
            for component in range(2):
                for _ in range(job[CHROMA_BLOCKS + component]):
                    blocks[n] = spare
                    blocks[n + 1] = job[TABLES + 2 + 2 * component] * TABLE_SIZE
                    blocks[n + 2] = job[TABLES + 3 + 2 * component] * TABLE_SIZE
                    n += 4
    rest(blocks[n:], spare)
    state[BIT] = state[BLOCK] = state[COEFFICIENT] = 0
    state[JOB], state[BYTES], state[BLOCKS], state[SEEN] = number, length, n >> 2, -1
    return True


@njit(error_model="numpy")
def rest(blocks: Any, spare: Any) -> None:
    """A block that is never done: table 0 consumes nothing and stays where it is."""
    blocks[0] = spare
    blocks[1] = blocks[2] = 0


@njit(error_model="numpy")
def finish(jobs: Any, quantization: Any, planes: Any, blocks: Any, state: Any, spare: Any) -> None:
    """Sum up the differences of the first coefficients; note whether the scan held all blocks and nothing else.

    Coefficients that no image of 8 bits has are a sign of damage, too: a decoder would clip the pixels.
    """
    job = jobs[state[JOB]]
    whole = state[BLOCK] == state[BLOCKS] and (state[BIT] + 7) >> 3 == state[BYTES]
    if not whole:
        job[READ] = 0
        return
    factor = np.int64(quantization[job[QUANTIZATION], 0])
    value, seen = 0, 0
    for n in range(state[BLOCKS]):
        place = blocks[4 * n]
        if place != spare:
            value += planes[place]
            first = value * factor
            if first > 1024 + factor or first < -1024 - factor:
                job[READ] = 0
                return
            blocks[4 * n + 1], planes[place] = first, 0
    plane = job[PLANE]
    for at in range(plane, plane + job[MCU_ROWS] * job[BLOCKS_DOWN] * (job[KEEP_ROWS] + 1) * job[STRIDE]):
        seen |= planes[U(at)] ^ (planes[U(at)] << 1)
    for n in range(state[BLOCKS]):
        place = blocks[4 * n]
        if place != spare:
            planes[place] = blocks[4 * n + 1]
    job[READ] = seen & 0xF800 == 0  # the highest six bits of each are equal: from -1024 to 1023


@njit(error_model="numpy")
def next_image(s: Any, waiting: Any, raw: Any, jobs: Any, quantization: Any, planes: Any, data: Any, blocks: Any,
               places: Any, state: Any, spare: Any) -> Any:  # fmt: skip
    """Give stream ``s`` the next image that can be begun, or let it rest; returns the number of images taken."""
    while waiting < jobs.shape[0]:
        waiting += 1
        if begin(waiting - 1, raw, jobs, quantization, planes, data[s], blocks[s], places[s], state[s], spare):
            return waiting
    rest(blocks[s], spare)
    places[s, 0] = places[s, 1] = 0
    state[s, BIT] = state[s, BLOCK] = state[s, COEFFICIENT] = 0
    state[s, JOB] = -1
    return waiting


P: Any = types.CPointer


@cfunc(
    types.void(
        P(types.uint8), P(types.int64), P(types.uint8), P(types.uint32), P(types.int32), P(types.int16), P(types.uint8),
        P(types.int32), P(types.int32), P(types.int64), P(types.int64),
    ),
    error_model="numpy",
)  # fmt: skip
def decode_scans(
    raw_p: Any, jobs_p: Any, definitions_p: Any, tables_p: Any, quantization_p: Any, planes_p: Any, data_p: Any,
    blocks_p: Any, places_p: Any, state_p: Any, sizes_p: Any,
) -> None:  # fmt: skip
    """Decode many scans; :func:`.coefficients.read_coefficients` says what lies behind each pointer."""
    sizes = carray(sizes_p, (8,))
    raw = carray(raw_p, (sizes[0],))
    jobs = carray(jobs_p, (sizes[1], JOB_COLUMNS))
    definitions = carray(definitions_p, (sizes[2], DEFINITION))
    tables = carray(tables_p, ((sizes[2] + 1) * TABLE_SIZE,))
    quantization = carray(quantization_p, (sizes[3], 64))
    planes = carray(planes_p, (sizes[4],))
    data = carray(data_p, (STREAMS, sizes[5]))
    blocks = carray(blocks_p, (STREAMS, sizes[6]))
    places = carray(places_p, (STREAMS, 512))
    state = carray(state_p, (STREAMS, STATE))
    spare = sizes[7]
    tables[: 1 << TABLE_BITS] = STAY
    for table in range(sizes[2]):
        huffman_table(definitions[table], tables, (table + 1) * TABLE_SIZE)
    waiting = 0
    for s in range(STREAMS):
        waiting = next_image(s, waiting, raw, jobs, quantization, planes, data, blocks, places, state, spare)
    d0, d1, d2, d3 = data[0], data[1], data[2], data[3]
    b0, b1, b2, b3 = blocks[0], blocks[1], blocks[2], blocks[3]
    p0, p1, p2, p3 = places[0], places[1], places[2], places[3]
    while state[0, JOB] >= 0 or state[1, JOB] >= 0 or state[2, JOB] >= 0 or state[3, JOB] >= 0:
        i0, n0, k0 = U(state[0, BIT]), state[0, BLOCK], state[0, COEFFICIENT]
        i1, n1, k1 = U(state[1, BIT]), state[1, BLOCK], state[1, COEFFICIENT]
        i2, n2, k2 = U(state[2, BIT]), state[2, BLOCK], state[2, COEFFICIENT]
        i3, n3, k3 = U(state[3, BIT]), state[3, BLOCK], state[3, COEFFICIENT]
        for _ in range(STEPS):
            i0, n0, k0 = step(d0, i0, n0, k0, planes, b0, p0, tables)
            i1, n1, k1 = step(d1, i1, n1, k1, planes, b1, p1, tables)
            i2, n2, k2 = step(d2, i2, n2, k2, planes, b2, p2, tables)
            i3, n3, k3 = step(d3, i3, n3, k3, planes, b3, p3, tables)
        state[0, BIT], state[0, BLOCK], state[0, COEFFICIENT] = i0, n0, k0
        state[1, BIT], state[1, BLOCK], state[1, COEFFICIENT] = i1, n1, k1
        state[2, BIT], state[2, BLOCK], state[2, COEFFICIENT] = i2, n2, k2
        state[3, BIT], state[3, BLOCK], state[3, COEFFICIENT] = i3, n3, k3
        for s in range(STREAMS):
            bit = state[s, BIT]
            done = state[s, BLOCK] == state[s, BLOCKS] or bit > 8 * state[s, BYTES] or bit == state[s, SEEN]
            state[s, SEEN] = bit
            if state[s, JOB] >= 0 and done:
                finish(jobs, quantization, planes, blocks[s], state[s], spare)
                waiting = next_image(s, waiting, raw, jobs, quantization, planes, data, blocks, places, state, spare)
