"""What :mod:`dedupkit.images.jpeg.coefficients` and its compiled kernel agree on."""

from __future__ import annotations

STREAMS = 4
"""Images decoded at once."""

STATE = 7
"""Numbers that describe a stream."""

PLACES = 512
"""Numbers that say where each coefficient goes and its factor: two for each of 64, and for what may run beyond."""

TABLE_BITS = 10
"""Of a first Huffman table; a code that is longer goes on in a second one."""

TABLE_SIZE = (1 << TABLE_BITS) + (256 << (15 - TABLE_BITS)) + (1 << (16 - TABLE_BITS))
"""Entries of a first table and of all that can follow it: 256 symbols with codes that are one bit too long."""

DEFINITION = 1 + 16 + 256
"""Bytes that define a Huffman table: 0 for first and 1 for other coefficients, the counts of codes, the symbols."""

PADDING = 4096
"""Bytes of zeros behind a scan, which a broken one is read into before that is noticed."""

# The columns of a job: one image of a call. ``TABLES`` begins six of them, for the first and the other coefficients of
# each component; ``CHROMA_BLOCKS`` two.
(
    DATA_START, DATA_END, MCU_COLUMNS, MCU_ROWS, BLOCKS_ACROSS, BLOCKS_DOWN, CHROMA_BLOCKS, _, TABLES, _, _, _, _, _,
    KEEP_ROWS, KEEP_COLUMNS, PLANE, STRIDE, QUANTIZATION, READ, JOB_COLUMNS,
) = range(21)  # fmt: skip
