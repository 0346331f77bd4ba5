"""Near conditions over URL lists: ``caption>=0.8`` and ``image_phash<=4``, joined exactly, in memory.

The lists are read once more, for the first row with each value. Captions are joined as
:func:`dedupkit.captions.caption_pairs` does, but exactly whatever their length; hashes as
:func:`dedupkit.neighbors.hamming_pairs` does.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from dedupkit.captions.folding import Folding
from dedupkit.captions.tokens import tokenize
from dedupkit.clustering.rules import Atom
from dedupkit.errors import DedupkitError
from dedupkit.metadata.keys import LONG, text_column
from dedupkit.metadata.lists import UrlList
from dedupkit.metadata.room import HASH_BYTES, PAIR_BYTES, ROW_BYTES, TEXT_BYTES, WORD_BYTES, Room
from dedupkit.neighbors.hamming.join import iter_hamming_pairs
from dedupkit.neighbors.sets.join import Sets, iter_jaccard_pairs
from dedupkit.signals.matches import Matches, leading

__all__ = ["NearJoin", "check_hashes", "near_matches"]

_HEX = r"^\s*[0-9A-Fa-f]{16}\s*$"


@dataclass(frozen=True, slots=True)
class NearJoin:
    """How near conditions are computed.

    Attributes:
        lists: The lists.
        folding: Steps applied to captions.
        room: What memory is left.
        workers: Number of threads.
    """

    lists: Sequence[UrlList]
    folding: Folding
    room: Room
    workers: int


def near_matches(atom: Atom, equal: NDArray[np.int32], how: NearJoin) -> tuple[Matches, int]:
    """The pairs of rows that satisfy a near condition.

    Args:
        atom: The condition, at its loosest bound.
        equal: (n,) int32, for each row the first with an equal value, -1 where it has none.
        how: How it is computed.

    Returns:
        Labels and pairs of rows; and the number of distinct values that cannot be compared: hashes that are not of 64
        bits.

    Raises:
        DedupkitError: More memory is needed than there may be.
    """
    rows = leading(equal).astype(np.int32)
    how.room.take(ROW_BYTES * len(equal), f"{len(equal):,} rows")
    join, texts = (_join_captions, text_column) if atom.similarity else (_join_hashes, _hash_column)
    leader, blocks = join(atom, _values(how.lists, atom.signal, rows, texts), len(rows), how)
    a, b, score = _gather(blocks, how.room, atom)
    place = np.full(len(equal), -1, np.int32)
    place[rows] = np.arange(len(rows), dtype=np.int32)
    first = np.full(len(equal), -1, np.int32)
    mine = np.flatnonzero(equal >= 0)
    found = leader[place[equal[mine]]]
    first[mine] = np.where(found >= 0, rows[np.maximum(found, 0)] if len(rows) else -1, -1)
    return Matches(first, rows[a], rows[b], score, "sample"), int((leader < 0).sum())


def check_hashes(lists: Sequence[UrlList], name: str) -> None:
    """Look through the lists until there is a hash of 64 bits, or nothing is left.

    Raises:
        DedupkitError: There are only other values.
    """
    shown = None
    for one, batch in ((each, batch) for each in lists for batch in each.batches([name])):
        column = batch.columns.get(name)
        if column is None:
            continue
        if pc.any(_is_hash(_hash_column(column))).as_py():
            return
        texts = text_column(column)
        filled = texts.filter(pc.greater(pc.binary_length(texts), 0))
        if shown is None and len(filled):
            kind = "" if column.type in (pa.string(), pa.large_string()) else f" of type {column.type}"
            shown = f"the column {one.columns[name]} of {one.path} holds values{kind} such as {filled[0].as_py()!r:.60}"
    if shown is not None:
        raise DedupkitError(f"{name}<= compares hashes of 64 bits, written as 16 hexadecimal digits; {shown}")


def _join_captions(
    atom: Atom, values: Iterator[tuple[int, Any]], count: int, how: NearJoin
) -> tuple[NDArray[np.int32], Iterable[Any]]:
    """For each value the first with the same words, -1 for one without any; and the pairs of such."""
    how.room.take(TEXT_BYTES * count, f"{count:,} different captions")

    def texts() -> Iterator[str]:
        for _, column in values:
            coded = column.cast(pa.large_binary()).to_pylist()
            block = [_text(data) for data in coded]
            words = sum(text.count(" ") + 1 if text.isascii() else len(text) for text in block)
            how.room.take(WORD_BYTES * words, f"the words of {count:,} different captions")
            yield from block

    offsets, tokens, _ = tokenize(texts(), how.folding)
    sets = Sets.of(offsets, tokens)
    del offsets, tokens
    leader = np.where(sets.row >= 0, sets.first[np.maximum(sets.row, 0)] if len(sets.first) else -1, -1)
    found = iter_jaccard_pairs([sets], atom.bound or 1.0, workers=how.workers, memory=how.room.limit // 4)
    return leader.astype(np.int32), ((block.a, block.b, block.score) for block in found)


def _join_hashes(
    atom: Atom, values: Iterator[tuple[int, Any]], count: int, how: NearJoin
) -> tuple[NDArray[np.int32], Iterable[Any]]:
    """For each value its number, -1 for one that is no hash of 64 bits; and the pairs."""
    how.room.take(HASH_BYTES * count, f"{count:,} different hashes")
    hashes = np.zeros((count, 8), np.uint8)
    valid = np.zeros(count, bool)
    for start, column in values:
        texts = column.cast(pa.large_binary())
        fit = _is_hash(texts).to_numpy(zero_copy_only=False)
        digits = b"".join(text.strip() for text in texts.filter(pa.array(fit)).to_pylist())
        rows = start + np.flatnonzero(fit)
        hashes[rows] = np.frombuffer(bytes.fromhex(digits.decode()), np.uint8).reshape(-1, 8)
        valid[rows] = True
    numbers = np.flatnonzero(valid)
    leader = np.where(valid, np.arange(count), -1).astype(np.int32)
    found = iter_hamming_pairs(hashes[numbers], int(atom.bound or 0), workers=how.workers)
    return leader, ((numbers[block.a], numbers[block.b], block.distance) for block in found)


def _text(data: bytes) -> str:
    """A caption; one that is too long to be taken apart is one word, near its copies alone."""
    return data.decode("utf-8", "replace") if len(data) <= LONG else hashlib.sha256(data).hexdigest()


def _hash_column(column: Any) -> Any:
    """A column as the texts among which hashes are; a number is none, though some are written with 16 digits."""
    kind = str(column.type.value_type if pa.types.is_dictionary(column.type) else column.type)
    holds_text = "string" in kind or "binary" in kind
    return text_column(column) if holds_text else pa.nulls(len(column), pa.large_string())


def _is_hash(texts: Any) -> Any:
    return pc.fill_null(pc.match_substring_regex(texts.cast(pa.large_binary()), _HEX), False)


def _values(
    lists: Sequence[UrlList], name: str, rows: NDArray[np.int32], texts: Callable[[Any], Any]
) -> Iterator[tuple[int, Any]]:
    """The values of some rows, ascending, as texts, a batch at a time; and the number of the first of them."""
    start = 0
    for one in lists:
        for batch in one.batches([name]):
            low, high = np.searchsorted(rows, [start, start + batch.rows]).tolist()
            if high > low:
                if name not in batch.columns:
                    raise DedupkitError(f"{one.path} changed, or cannot be read a second time: {batch.problem}")
                yield low, texts(batch.columns[name]).take(pa.array(rows[low:high] - start))
            start += batch.rows


def _gather(
    blocks: Iterable[Any], room: Room, atom: Atom
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
    """Blocks of pairs, which threads give in any order, as three sorted arrays."""
    found: list[Any] = [(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.float32))]
    count = 0
    for a, b, score in blocks:
        count += len(a)
        room.take(PAIR_BYTES * len(a), f"the pairs of {atom}, {count:,} and more,")
        found.append((a, b, score.astype(np.float32)))
    a, b, score = (np.concatenate(column) for column in zip(*found, strict=True))
    order = np.lexsort((b, a))
    return a[order], b[order], score[order]
