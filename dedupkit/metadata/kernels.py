"""The compiled loops that hash addresses and captions of URL lists. Importing this file imports numba."""

from typing import Any

import numpy as np

from dedupkit.neighbors.hamming.kernels import njit
from dedupkit.neighbors.sets.splitmix import mix

__all__ = ["combine", "hash_captions", "hash_texts", "hash_urls"]

NULL, DONE, SLOW = 0, 1, 2
_A, _B = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xC2B2AE3D27D4EB4F)
_P, _Q = np.uint64(0x100000001B3), np.uint64(0x9FB21C651E98DF25)


@njit
def _add(high: Any, low: Any, byte: Any) -> Any:
    """Two independent multiplicative hashes, a byte further."""
    code = np.uint64(byte) + np.uint64(1)
    return (high ^ code) * _P, ((low << np.uint64(5)) ^ (low >> np.uint64(59)) ^ code) * _Q


@njit
def _close(high: Any, low: Any) -> Any:
    return mix(high + low * _A), mix(low ^ (high >> np.uint64(3)))


@njit
def hash_texts(data: Any, offsets: Any, rows: Any, out: Any) -> None:
    """The 128-bit hashes of byte strings as they are; text i belongs to row ``rows[i]`` of ``out`` (n, 2)."""
    for text in range(len(offsets) - 1):
        high, low = _A, _B
        for at in range(offsets[text], offsets[text + 1]):
            high, low = _add(high, low, data[at])
        out[rows[text], 0], out[rows[text], 1] = _close(high, low)


@njit
def _plain(byte: Any) -> Any:
    """Whether the URL Standard leaves a byte of a path or a query as it is."""
    if byte <= 32 or byte >= 127:
        return False
    if byte >= 123:
        return byte == 126
    return not (byte == 34 or byte == 39 or byte == 60 or byte == 62 or byte == 92 or byte == 94 or byte == 96)


@njit
def _host_end(data: Any, at: Any, end: Any) -> Any:
    """Where a host ends that the URL Standard only lower-cases; -1 for any other."""
    start, label = at, at
    while at < end:
        byte = data[at] | 32 if 65 <= data[at] <= 90 else data[at]
        if byte == 47 or byte == 63 or byte == 35:
            break
        if byte == 46:
            label = at + 1
        elif not (97 <= byte <= 122 or 48 <= byte <= 57 or byte == 45 or byte == 95):
            return -1
        if byte == 45 and at - label == 3 and data[at - 1] == 45 and data[label] | 32 == 120:  # xn--
            return -1
        at += 1
    # A last label that could be a number is one of an address of four numbers.
    if at == start or label == at or not 97 <= (data[label] | 32) <= 122:
        return -1
    return at


@njit
def _is_tracker(data: Any, begin: Any, end: Any, names: Any, bounds: Any, prefixes: Any) -> Any:
    """Whether data[begin:end] is one of the names, of which the first ``prefixes`` count as beginnings."""
    for name in range(len(bounds) - 1):
        size = bounds[name + 1] - bounds[name]
        if end - begin < size or (name >= prefixes and end - begin != size):
            continue
        place = 0
        while place < size and data[begin + place] == names[bounds[name] + place]:
            place += 1
        if place == size:
            return True
    return False


@njit
def hash_urls(
    data: Any,
    offsets: Any,
    valid: Any,
    names: Any,
    bounds: Any,
    prefixes: Any,
    drop_fragment: Any,
    out: Any,
    state: Any,
) -> None:
    """Hash the normal forms of plain URLs; others are left to Python.

    ``state`` (n,) receives NULL, DONE or SLOW.
    """
    for url in range(len(offsets) - 1):
        begin, end = offsets[url], offsets[url + 1]
        if not valid[url] or begin == end:
            state[url] = NULL
            continue
        state[url] = SLOW
        at = begin + 4
        if (
            end - begin < 9
            or data[begin] != 104
            or data[begin + 1] != 116
            or data[begin + 2] != 116
            or data[begin + 3] != 112
        ):
            continue
        if data[at] == 115:
            at += 1
        if data[at] != 58 or data[at + 1] != 47 or data[at + 2] != 47:
            continue
        host = at + 3
        path = _host_end(data, host, end)
        if path < 0:
            continue
        query, stop, plain = end, end, True
        for place in range(path, end):
            byte = data[place]
            if byte == 35:
                stop = place
                break
            if byte == 63 and query == end:
                query = place
            if not _plain(byte):
                plain = False
                break
            if query == end and (
                (byte == 46 and (data[place - 1] == 47))
                or (byte == 37 and place + 2 < end and data[place + 1] == 50 and data[place + 2] | 32 == 101)
            ):
                plain = False
                break
        if not plain or (stop < end and not drop_fragment):
            continue
        query = min(query, stop)
        high, low = _A, _B
        for place in range(begin, host):
            high, low = _add(high, low, data[place])
        for place in range(host, path):
            byte = data[place]
            high, low = _add(high, low, byte | 32 if 65 <= byte <= 90 else byte)
        if path == query:
            high, low = _add(high, low, 47)
        for place in range(path, query):
            high, low = _add(high, low, data[place])
        # Parameters from one & to the next; what is left of the query is joined by & again.
        kept, filled = 0, False
        if len(bounds) > 1 and query < stop:
            for counting in range(2):
                place, written = query + 1, 0
                if counting == 1:
                    if not (filled or kept > 1):
                        break
                    high, low = _add(high, low, 63)
                while place <= stop:
                    last, name = place, -1
                    while last < stop and data[last] != 38:
                        if data[last] == 61 and name < 0:
                            name = last
                        last += 1
                    name = last if name < 0 else name
                    if not _is_tracker(data, place, name, names, bounds, prefixes):
                        if counting == 0:
                            kept += 1
                            filled = filled or last > place
                        else:
                            if written:
                                high, low = _add(high, low, 38)
                            for letter in range(place, last):
                                high, low = _add(high, low, data[letter])
                            written += 1
                    place = last + 1
        else:
            for place in range(query, stop):
                high, low = _add(high, low, data[place])
        out[url, 0], out[url, 1] = _close(high, low)
        state[url] = DONE


@njit
def hash_captions(
    data: Any, offsets: Any, valid: Any, fold_case: Any, merge_spaces: Any, entities: Any, out: Any, state: Any
) -> None:
    """Hash folded captions of plain ASCII; others are left to Python. ``state`` as in :func:`hash_urls`."""
    for text in range(len(offsets) - 1):
        begin, end = offsets[text], offsets[text + 1]
        if not valid[text] or begin == end:
            state[text] = NULL
            continue
        high, low = _A, _B
        waiting, any_byte, plain = False, False, True
        for place in range(begin, end):
            byte = data[place]
            if byte >= 128 or (byte == 38 and entities):
                plain = False
                break
            if merge_spaces and (byte == 32 or 9 <= byte <= 13 or 28 <= byte <= 31):
                waiting = any_byte
                continue
            if waiting:
                high, low = _add(high, low, 32)
                waiting = False
            any_byte = True
            high, low = _add(high, low, byte | 32 if fold_case and 65 <= byte <= 90 else byte)
        if not plain:
            state[text] = SLOW
        elif not any_byte:
            state[text] = NULL
        else:
            out[text, 0], out[text, 1] = _close(high, low)
            state[text] = DONE


@njit
def combine(one: Any, other: Any, valid: Any) -> None:
    """Hashes of pairs of hashes, in place of the first."""
    for row in range(len(one)):
        if valid[row]:
            one[row, 0], one[row, 1] = _close(one[row, 0] * _P + other[row, 0], one[row, 1] * _Q + other[row, 1])
