"""Rows of URL lists to 128-bit keys: equal keys stand for equal addresses, published hashes or captions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from dedupkit.captions.folding import Folding
from dedupkit.metadata.columns import HASH_COLUMNS
from dedupkit.metadata.urls import TRACKER_PREFIXES, TRACKERS, UrlSteps, normalize_url, url_family

__all__ = ["LONG", "KeySettings", "Keys", "batch_keys", "caption_keys", "text_column"]

LONG = 1 << 20
"""Bytes of a text up to which it is folded; a longer one, beyond ASCII, is compared as it is."""

NULL, DONE, SLOW = 0, 1, 2


@dataclass(frozen=True, slots=True)
class KeySettings:
    """How URLs and captions are brought to a form in which copies are equal."""

    urls: UrlSteps = field(default_factory=UrlSteps)
    captions: Folding = field(default_factory=Folding)


@dataclass(slots=True)
class Keys:
    """Keys of some rows.

    Attributes:
        hashes: (n, 2) uint64.
        state: (n,) uint8, 1 where the row has a key, else 0.
        odd: rows whose URL is none by the standard; their key is that of the text as it is.
    """

    hashes: NDArray[np.uint64]
    state: NDArray[np.uint8]
    odd: int = 0


def batch_keys(
    columns: dict[str, Any], rows: int, wanted: Sequence[tuple[str, ...]], settings: KeySettings
) -> list[Keys]:
    """Keys of rows under single identities or combinations of them.

    Args:
        columns: Columns by role, pyarrow arrays of ``rows`` values.
        rows: number of rows.
        wanted: identities to combine, e.g. ``[("url",), ("hash", "caption")]``; a row that lacks one of a combination
            has no key under it.
        settings: How they are normalised.
    """
    from dedupkit.metadata import kernels

    single: dict[str, Keys] = {}
    for name in dict.fromkeys(name for names in wanted for name in names):
        column = columns.get("url" if name == "url_family" else name)
        single[name] = _nothing(rows) if column is None else _MAKERS[name](column, settings)
    found = []
    for first, *others in wanted:
        keys = single[first]
        if others:
            keys = Keys(keys.hashes.copy(), keys.state.copy())
            for name in others:
                keys.state &= single[name].state
                kernels.combine(keys.hashes, single[name].hashes, keys.state)
        found.append(keys)
    return found


def _nothing(rows: int) -> Keys:
    return Keys(np.zeros((rows, 2), np.uint64), np.zeros(rows, np.uint8))


def _url_keys(column: Any, settings: KeySettings) -> Keys:
    from dedupkit.metadata import kernels

    data, offsets, valid = _buffers(column)
    keys = _nothing(len(valid))
    steps = settings.urls
    if steps.standard:
        names, bounds = _names() if steps.trackers else (np.zeros(1, np.uint8), np.zeros(1, np.int64))
        kernels.hash_urls(
            data, offsets, valid, names, bounds, len(TRACKER_PREFIXES), steps.fragment, keys.hashes, keys.state
        )
    else:
        keys.state[valid] = SLOW

    def normal(text: str) -> str:
        form = normalize_url(text, steps)
        keys.odd += form is None
        return text if form is None else form

    _finish(keys, data, offsets, normal)
    return keys


def _family_keys(column: Any, settings: KeySettings) -> Keys:
    data, offsets, valid = _buffers(column)
    keys = _nothing(len(valid))
    keys.state[valid] = SLOW

    def family(text: str) -> str:
        form = normalize_url(text, settings.urls)
        return text if form is None else url_family(form)

    _finish(keys, data, offsets, family)
    return keys


def _caption_keys(column: Any, settings: KeySettings) -> Keys:
    return caption_keys(column, settings.captions)


def caption_keys(column: Any, folding: Folding) -> Keys:
    """Keys of a pyarrow array of captions: equal where they are equal after folding; an empty one has none."""
    from dedupkit.metadata import kernels

    data, offsets, valid = _buffers(column)
    keys = _nothing(len(valid))
    kernels.hash_captions(
        data, offsets, valid, folding.casefold, folding.spaces, folding.entities, keys.hashes, keys.state
    )
    _finish(keys, data, offsets, folding)
    return keys


def _hash_keys(column: Any, settings: KeySettings) -> Keys:
    """Published hashes: numbers by value (also where they are stored as floats), texts without regard to case."""
    if pa.types.is_floating(column.type) or pa.types.is_integer(column.type):
        valid = column.is_valid().to_numpy(zero_copy_only=False)
        if pa.types.is_floating(column.type):
            numbers = column.fill_null(0).to_numpy(zero_copy_only=False)
            valid &= np.isfinite(numbers) & (np.abs(numbers) < 2.0**63)
            values = np.where(valid, numbers, 0).astype(np.int64)
        else:
            values = column.fill_null(0).to_numpy(zero_copy_only=False).astype(np.int64)
        keys = _nothing(len(values))
        rows = np.flatnonzero(valid)
        _hash(keys, rows, values[rows].tobytes(), np.arange(len(rows) + 1) * 8)
        keys.state[rows] = DONE
        return keys
    data, offsets, valid = _buffers(column)
    keys = _nothing(len(valid))
    lengths = np.diff(offsets)
    keys.state[valid & (lengths > 0)] = SLOW
    _finish(keys, data, offsets, lambda text: text.strip().lower())
    return keys


_MAKERS: dict[str, Callable[[Any, KeySettings], Keys]] = {
    "url": _url_keys,
    "caption": _caption_keys,
    "url_family": _family_keys,
    **dict.fromkeys(HASH_COLUMNS, _hash_keys),
}


def _finish(keys: Keys, data: NDArray[np.uint8], offsets: NDArray[np.int64], normal: Callable[[str], str]) -> None:
    """Give the rows that the compiled loop left their keys; what normalises to nothing has none."""
    rows = np.flatnonzero(keys.state == SLOW)
    if not len(rows):
        return
    kept: list[int] = []
    texts: list[bytes] = []
    for row, begin, end in zip(rows.tolist(), offsets[rows].tolist(), offsets[rows + 1].tolist(), strict=True):
        if end - begin > LONG:
            kept.append(row)
            texts.append(data[begin:end].tobytes())
            continue
        text = normal(data[begin:end].tobytes().decode("utf-8", "surrogateescape"))
        if text:
            kept.append(row)
            texts.append(text.encode("utf-8", "surrogatepass" if text.isascii() else "surrogateescape"))
    keys.state[rows] = NULL
    keys.state[kept] = DONE
    bounds = np.concatenate([[0], np.cumsum([len(text) for text in texts])]).astype(np.int64)
    _hash(keys, np.array(kept, np.int64), b"".join(texts), bounds)


def _hash(keys: Keys, rows: NDArray[np.int64], data: bytes, bounds: NDArray[np.int64]) -> None:
    from dedupkit.metadata import kernels

    kernels.hash_texts(np.frombuffer(data or b"\0", np.uint8), bounds, rows, keys.hashes)


def _buffers(column: Any) -> tuple[NDArray[np.uint8], NDArray[np.int64], NDArray[np.bool_]]:
    """The bytes of a column of texts, where each begins and ends, and which are not null."""
    column = text_column(column)
    _, offsets, data = column.buffers()
    starts = np.frombuffer(offsets, np.int64)[column.offset : column.offset + len(column) + 1]
    content = np.zeros(1, np.uint8) if data is None or not data.size else np.frombuffer(data, np.uint8)
    return content, starts, column.is_valid().to_numpy(zero_copy_only=False)


def text_column(column: Any) -> Any:
    """A column as ``large_string``, or as ``large_binary`` where it holds bytes."""
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    return column.cast(pa.large_binary() if "binary" in str(column.type) else pa.large_string())


def _names() -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    coded = [name.encode() for name in (*TRACKER_PREFIXES, *TRACKERS)]
    return np.frombuffer(b"".join(coded), np.uint8), np.cumsum([0, *map(len, coded)]).astype(np.int64)
