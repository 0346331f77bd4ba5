"""Joining captions: the exact join against SetSimilaritySearch and datasketch's LSH, and MinHash signatures.

    python benchmarks/captions.py --captions TEXTS [--sizes 4300000:0.5,10000000:0.8] [--peers 100000]

TEXTS are files of real captions: Parquet (its column ``text`` or ``caption``), TSV (of each line the longest field that
is no address) or one caption a line. Larger sets are made of them, see ``synthesize``. Peers run on as many sets as
``--peers`` says, ours on the same and on ``--sizes``. SetSimilaritySearch is optional (``pip install
SetSimilaritySearch``).
"""

from __future__ import annotations

import argparse
import resource
import sys
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from dedupkit.captions import caption_pairs, tokenize
from dedupkit.neighbors import jaccard_pairs
from dedupkit.neighbors.sets.minhash import minhash_signatures, sha1_hashes

WINDOW = 3


def read_captions(paths: list[str]) -> list[str]:
    """All captions of some files."""
    texts: list[str] = []
    for path in paths:
        if path.endswith(".parquet"):
            import pyarrow as pa
            import pyarrow.parquet as pq

            table = pq.read_table(path)
            name = next((name for name in table.column_names if name.lower() in ("text", "caption")), None)
            if name is None:
                raise SystemExit(f"{path} has no column text or caption; its columns: {', '.join(table.column_names)}")
            texts += [text for text in table[name].cast(pa.string()).to_pylist() if text]
            continue
        for line in Path(path).read_text("utf-8").splitlines():
            fields = line.split("\t")
            texts.append(max(fields, key=lambda field: (not field.startswith("http"), len(field))))
    return texts


def synthesize(texts: list[str], count: int, seed: int = 0) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Sets of word numbers like the captions': 60 % new, 30 % repeats after Zipf, 10 % repeats with one other word.

    A new caption has the length of a real one and consists of windows of three words from random places in the real
    ones, in which one word of twenty is replaced by a number drawn after Zipf (names, codes, typing errors).
    """
    draw = np.random.default_rng(seed)
    offsets, tokens, vocabulary = tokenize(texts)
    lengths = np.diff(offsets)
    lengths = np.clip(draw.choice(lengths[lengths > 0], count), 1, 40)
    starts = np.concatenate([[0], np.cumsum(lengths)])
    places = draw.integers(0, len(tokens) - WINDOW, starts[-1] // WINDOW + 1)
    words = tokens[(places[:, None] + np.arange(WINDOW)).ravel()[: starts[-1]]].astype(np.int64)
    rare = draw.random(starts[-1]) < 0.05
    words[rare] = len(vocabulary) + draw.zipf(1.3, int(rare.sum())) % 2_000_000
    kind = draw.random(count)
    earlier = np.where(
        kind < 0.1, (draw.random(count) * np.arange(count)).astype(np.int64), draw.zipf(1.2, count) % count
    )
    origin = np.where(kind < 0.4, np.minimum(earlier, np.arange(count)), np.arange(count))
    sizes = lengths[origin]
    ends = np.concatenate([[0], np.cumsum(sizes)])
    words = words[np.repeat(starts[origin] - ends[:-1], sizes) + np.arange(ends[-1])]
    changed = np.flatnonzero((kind < 0.1) & (sizes > 3))
    words[ends[changed] + draw.integers(0, sizes[changed])] = tokens[draw.integers(0, len(tokens), len(changed))]
    return ends, words


def timed(label: str, work: Callable[[], Any]) -> tuple[float, Any]:
    """Run something and print how long it took."""
    begin = time.perf_counter()
    result = work()
    seconds = time.perf_counter() - begin
    print(f"{label:<58} {seconds:9.2f} s", flush=True)
    return seconds, result


def brute_force(offsets: np.ndarray[Any, Any], tokens: np.ndarray[Any, Any], threshold: float) -> set[tuple[int, int]]:
    """The pairs of first rows of distinct sets, by products of indicator matrices: all are compared with all."""
    from scipy.sparse import csr_matrix

    rows = [frozenset(tokens[a:b].tolist()) for a, b in pairwise(offsets)]
    first: dict[frozenset[int], int] = {}
    for number, row in enumerate(rows):
        if row:
            first.setdefault(row, number)
    ids = np.array(list(first.values()))
    sizes = np.array([len(row) for row in first])
    columns = np.concatenate([np.fromiter(row, np.int64) for row in first])
    matrix = csr_matrix((np.ones(len(columns), np.int32), columns, np.concatenate([[0], np.cumsum(sizes)])))
    found = {(first[row], number) for number, row in enumerate(rows) if row and first[row] != number}
    for begin in range(0, len(ids), 2000):
        common = (matrix[begin : begin + 2000] @ matrix.T).tocoo()
        one, other = common.row + begin, common.col
        held = (one < other) & (common.data / (sizes[one] + sizes[other] - common.data) >= threshold)
        a, b = ids[one[held]], ids[other[held]]
        found |= set(zip(np.minimum(a, b).tolist(), np.maximum(a, b).tolist(), strict=True))
    return found


def compare_with_peers(texts: list[str], count: int, threshold: float) -> None:
    """The same sets through the peers."""
    offsets, tokens = synthesize(texts, count)
    ours, pairs = timed(
        f"dedupkit, {count:,} sets, J >= {threshold}", lambda: jaccard_pairs(offsets, tokens, threshold)
    )
    distinct = sorted({tuple(sorted(set(tokens[a:b].tolist()))) for a, b in pairwise(offsets)})
    near = int((pairs.score < 1).sum())
    try:
        from SetSimilaritySearch import all_pairs

        theirs, found = timed("SetSimilaritySearch, the distinct ones", lambda: list(all_pairs(
            [*map(list, distinct)], similarity_func_name="jaccard", similarity_threshold=threshold)))  # fmt: skip
        print(f"  pairs {len(found):,} of {near:,}; {theirs / ours:.0f} times our time")
    except ImportError:
        print("SetSimilaritySearch is not installed")
    from datasketch import MinHash, MinHashLSH

    def lsh() -> set[tuple[int, int]]:
        index = MinHashLSH(threshold=threshold, num_perm=128)
        hashes = MinHash.bulk([[str(word).encode() for word in row] for row in distinct], num_perm=128)
        found = set()
        for number, minhash in enumerate(hashes):
            found |= {(other, number) for other in index.query(minhash)}
            index.insert(number, minhash)
        sets = [set(row) for row in distinct]
        return {(a, b) for a, b in found if len(sets[a] & sets[b]) / len(sets[a] | sets[b]) >= threshold}

    theirs, found = timed("datasketch MinHashLSH, 128 permutations, verified", lsh)
    print(f"  recall {len(found) / max(1, near):.3f}; {theirs / ours:.0f} times our time")


def signatures(texts: list[str]) -> None:
    """MinHash signatures of the real captions."""
    from datasketch import MinHash

    offsets, tokens, vocabulary = tokenize(texts)
    hashes = sha1_hashes(vocabulary.words())[tokens]
    words = [word.encode() for word in vocabulary.words()]
    sets = [[words[token] for token in tokens[a:b]] for a, b in pairwise(offsets)]
    minhash_signatures(offsets[:2], hashes, workers=1)
    ours, mine = timed(
        f"MinHash of {len(texts):,} captions, one thread", lambda: minhash_signatures(offsets, hashes, workers=1)
    )
    theirs, other = timed("datasketch MinHash.bulk", lambda: MinHash.bulk(sets, num_perm=128))
    same = all(np.array_equal(row, minhash.hashvalues) for row, minhash in zip(mine, other, strict=True))
    print(f"  identical: {same}; {theirs / ours:.0f} times our time")


def measure(texts: list[str], count: int, threshold: float) -> None:
    """One large join."""
    offsets, tokens = synthesize(texts, count)
    seconds, pairs = timed(f"{count:,} sets, J >= {threshold}", lambda: jaccard_pairs(offsets, tokens, threshold))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    near = int((pairs.score < 1).sum())
    print(f"  {near:,} near pairs, {len(pairs) - near:,} copies; {count / seconds:,.0f} sets/s; {peak / 2**30:.2f} GiB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--captions", nargs="+", required=True, help="files of real captions")
    parser.add_argument("--sizes", default="4300000:0.5,10000000:0.8", help="sets and threshold of each large join")
    parser.add_argument("--peers", type=int, default=100_000, help="sets that the peers are given")
    parser.add_argument("--exact", type=int, default=50_000, help="sets that are also compared by brute force")
    arguments = parser.parse_args()
    texts = read_captions(arguments.captions)
    jaccard_pairs([0, 2, 4], [1, 2, 1, 3], 0.3)  # compile
    print(f"{len(texts):,} real captions, {np.mean([len(text.split()) for text in texts]):.1f} words on average")
    _, pairs = timed("caption_pairs of the real captions, J >= 0.5", lambda: caption_pairs(texts, 0.5))
    print(f"  {len(pairs):,} pairs")
    if arguments.exact:
        offsets, tokens = synthesize(texts, arguments.exact, seed=1)
        pairs = jaccard_pairs(offsets, tokens, 0.5)
        expected = brute_force(offsets, tokens, 0.5)
        same = set(zip(pairs.a.tolist(), pairs.b.tolist(), strict=True)) == expected
        print(f"{arguments.exact:,} sets by brute force: {len(expected):,} pairs, the same: {same}")
    signatures(texts)
    if arguments.peers:
        compare_with_peers(texts, arguments.peers, 0.5)
    for size in filter(None, arguments.sizes.split(",")):
        count, threshold = int(size.split(":")[0]), float(size.split(":")[1])
        measure(texts, count, threshold)


if __name__ == "__main__":
    main()
