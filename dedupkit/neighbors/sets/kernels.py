"""The compiled loops of the exact set-similarity join. Importing this file imports numba; only a running join does.

Sets are rows of ranks: tokens numbered from the rarest to the most frequent, each row ascending. Two sets of n and m
tokens have Jaccard similarity t or more only if they share at least ``required(n, m, t)`` tokens. :mod:`.join` explains
the filters that follow from this.
"""

from typing import Any

import numpy as np

from dedupkit.neighbors.hamming.kernels import LANES, block_hits, njit, popcount
from dedupkit.neighbors.sets.splitmix import mix

__all__ = ["LANES", "bitmaps", "fill_postings", "probe"]

_ONE, _ZERO = np.uint64(1), np.uint64(0)


@njit
def required(n: Any, m: Any, threshold: Any) -> Any:
    """The fewest common tokens with which ``common / (n + m - common)`` reaches the threshold as float64."""
    common = np.int64(np.ceil(threshold / (1.0 + threshold) * (n + m)))
    while common > 0 and (common - 1) / (n + m - common + 1) >= threshold:
        common -= 1
    while common / (n + m - common) < threshold:
        common += 1
    return common


@njit
def smallest_partner(n: Any, threshold: Any) -> Any:
    """The size of the smallest set that can reach the threshold with one of n tokens: all its tokens are common."""
    m = np.int64(np.ceil(threshold * n))
    while m > 1 and (m - 1) / n >= threshold:
        m -= 1
    while m / n < threshold:
        m += 1
    return m


@njit
def largest_partner(n: Any, threshold: Any) -> Any:
    """The size of the largest set that can reach the threshold with one of n tokens."""
    m = np.int64(np.floor(n / threshold))
    while n / (m + 1) >= threshold:
        m += 1
    while n / m < threshold:
        m -= 1
    return m


@njit
def bitmaps(starts: Any, tokens: Any, out: Any) -> None:
    """64 parities of each row: bits in which two rows differ are at most the tokens in which they differ."""
    for row in range(len(starts) - 1):
        bits = _ZERO
        for place in range(starts[row], starts[row + 1]):
            bits ^= _ONE << (mix(np.uint64(tokens[place])) & np.uint64(63))
        out[row] = bits


@njit
def _prefix(size: Any, threshold: Any, against_larger: Any) -> Any:
    """How many of the rarest tokens of an indexed set are listed."""
    if against_larger:
        return size - required(size, size, threshold) + 1
    return size - required(size, smallest_partner(size, threshold), threshold) + 1


@njit
def fill_postings(
    starts: Any, tokens: Any, bits: Any, first: Any, last: Any, threshold: Any, against_larger: Any, frequent: Any,
    lists: Any, rows: Any, places: Any, row_bits: Any,
) -> Any:  # fmt: skip
    """List rows ``first`` to ``last`` under the tokens of their prefixes, in the order of size, place and row.

    Called twice: with empty ``rows`` it counts, into ``lists`` (tokens + 2,), where each token's list will end; then it
    fills. ``frequent`` is the least rank that occurs twice at all: nothing can meet under the others.
    """
    counting = len(rows) == 0
    row = first
    while row < last:
        size = starts[row + 1] - starts[row]
        end = row
        while end < last and starts[end + 1] - starts[end] == size:
            end += 1
        if size > 0:
            for place in range(_prefix(size, threshold, against_larger)):
                for member in range(row, end):
                    token = tokens[starts[member] + place]
                    if token < frequent:
                        continue
                    if counting:
                        lists[token + 2] += 1
                    else:
                        at = lists[token + 1]
                        rows[at], places[at], row_bits[at] = member, place, bits[member]
                        lists[token + 1] += 1
        row = end
    return 0


@njit
def _first_row(rows: Any, low: Any, high: Any, row: Any) -> Any:
    """The first of a list's entries low to high whose row is ``row`` or later in the order of sizes."""
    while low < high:
        middle = (low + high) // 2
        if rows[middle] < row:
            low = middle + 1
        else:
            high = middle
    return low


@njit
def _first_place(places: Any, low: Any, high: Any, place: Any) -> Any:
    """The first of the entries low to high, all of one size, that stands behind ``place``."""
    while low < high:
        middle = (low + high) // 2
        if places[middle] <= place:
            low = middle + 1
        else:
            high = middle
    return low


@njit
def _common(a: Any, b: Any, i: Any, j: Any, needed: Any) -> Any:
    """Number of common tokens of two rows, if the first is a[i] = b[j] and there are as many as needed; else 0."""
    left, right = 0, 0
    while left < i and right < j:
        if a[left] == b[right]:
            return 0
        if a[left] < b[right]:
            left += 1
        else:
            right += 1
    count, left, right = 1, i + 1, j + 1
    while left < len(a) and right < len(b):
        if count + min(len(a) - left, len(b) - right) < needed:
            return 0
        if a[left] == b[right]:
            count += 1
            left += 1
            right += 1
        elif a[left] < b[right]:
            left += 1
        else:
            right += 1
    return count if count >= needed else 0


@njit
def probe(
    begin: Any, end: Any, starts: Any, tokens: Any, bits: Any, other_starts: Any, other_tokens: Any, sizes: Any,
    threshold: Any, self_join: Any, lists: Any, rows: Any, places: Any, row_bits: Any, out: Any,
) -> Any:  # fmt: skip
    """Look rows ``begin`` to ``end`` up in the postings and write what reaches the threshold.

    ``sizes`` (largest + 2,) says with which of the other set's rows each size begins. ``out`` is (capacity, 3) int64:
    row, other row, common tokens.

    Returns:
        The row at which it stopped because ``out`` was full, ``end`` if it did not; and how many pairs were written.
    """
    filled, largest = 0, len(sizes) - 2
    for row in range(begin, end):
        mine = tokens[starts[row] : starts[row + 1]]
        n = len(mine)
        if n == 0:
            continue
        before = filled
        low = smallest_partner(n, threshold)
        high = min(n if self_join else largest_partner(n, threshold), largest)
        if low > high:
            continue
        for i in range(n - required(n, low, threshold) + 1):
            token = mine[i]
            if token + 1 >= len(lists):  # the other set does not have it
                continue
            at, stop = lists[token], lists[token + 1]
            if at == stop:
                continue
            at = _first_row(rows, at, stop, sizes[low])
            while at < stop:
                m = other_starts[rows[at] + 1] - other_starts[rows[at]]
                needed = required(n, m, threshold)
                if m > high or n - i < needed:  # more are needed of larger sets
                    break
                bound = sizes[m + 1]
                following = at + 1
                if following < stop and rows[following] < bound:
                    following = _first_row(rows, following, stop, bound)
                reach = _first_place(places, at, following, m - needed)
                limit = np.uint64(n + m - 2 * needed + 1)
                span = _ZERO - limit
                while at < reach:
                    hits = block_hits(row_bits, at, bits[row], limit, span)
                    if reach - at < LANES:
                        hits &= (_ONE << np.uint64(reach - at)) - _ONE
                    while hits != _ZERO:
                        lane = popcount((hits & (_ZERO - hits)) - _ONE)
                        hits &= hits - _ONE
                        entry = at + np.int64(lane)
                        partner = rows[entry]
                        if self_join and partner >= row:
                            continue
                        theirs = other_tokens[other_starts[partner] : other_starts[partner + 1]]
                        common = _common(mine, theirs, i, np.int64(places[entry]), needed)
                        if common:
                            if filled == len(out):
                                return row, before
                            out[filled, 0], out[filled, 1], out[filled, 2] = row, partner, common
                            filled += 1
                    at += LANES
                at = following
        if filled == len(out) and row + 1 < end:
            return row + 1, filled
    return end, filled
