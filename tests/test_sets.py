"""Joins of sets by Jaccard similarity: the same pairs as comparing all with all, and datasketch's own signatures."""

from __future__ import annotations

import datasketch
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dedupkit.neighbors import jaccard_pairs
from dedupkit.neighbors.sets.lsh import join_sets
from dedupkit.neighbors.sets.minhash import from_datasketch, minhash_signatures, sha1_hashes, to_datasketch

Collection = list[list[int]]
THRESHOLDS = (0.1, 0.3, 1 / 3, 0.5, 0.6, 2 / 3, 0.75, 0.8, 0.9, 1.0)


def flat(rows: Collection) -> tuple[np.ndarray, np.ndarray]:
    offsets = np.cumsum([0, *map(len, rows)])
    return offsets, np.array([token for row in rows for token in row], np.int64)


def firsts(rows: Collection) -> dict[frozenset[int], int]:
    found: dict[frozenset[int], int] = {}
    for number, row in enumerate(rows):
        if row:
            found.setdefault(frozenset(row), number)
    return found


def expected(rows: Collection, threshold: float, other: Collection | None = None) -> dict[tuple[int, int], float]:
    """Every pair by comparing all with all."""
    left, right = firsts(rows), firsts(rows if other is None else other)
    pairs = {}
    for one, a in left.items():
        for two, b in right.items():
            score = len(one & two) / len(one | two)
            if score >= threshold and (other is not None or a < b):
                pairs[a, b] = score
    if other is None:
        pairs |= {(left[frozenset(row)], b): 1.0 for b, row in enumerate(rows) if row and left[frozenset(row)] != b}
    return pairs


def found(pairs) -> dict[tuple[int, int], float]:
    assert len(set(zip(pairs.a.tolist(), pairs.b.tolist(), strict=True))) == len(pairs), "a pair was listed twice"
    assert (np.diff(pairs.a) >= 0).all()
    return dict(zip(zip(pairs.a.tolist(), pairs.b.tolist(), strict=True), pairs.score.tolist(), strict=True))


collections = st.integers(1, 40).flatmap(
    lambda words: st.lists(st.lists(st.integers(0, words), max_size=24), max_size=40)
)


@given(collections, collections, st.sampled_from(THRESHOLDS), st.booleans(), st.sampled_from([1, 400, 1 << 30]))
@settings(max_examples=150, deadline=None)
def test_the_pairs_are_those_of_comparing_all_with_all(rows, others, threshold, two_sets, memory):
    rows = rows + rows[::3]
    other = others if two_sets else None
    result = jaccard_pairs(*flat(rows), threshold, None if other is None else flat(other), workers=2, memory=memory)
    assert found(result) == pytest.approx(expected(rows, threshold, other))


def test_tokens_may_be_any_integers():
    rows = [[-7, 10**15, 3], [3, -7, 10**15, 3], [10**15, 3], [4]]
    assert found(jaccard_pairs(*flat(rows), 0.6)) == pytest.approx({(0, 1): 1.0, (0, 2): 2 / 3})


def test_a_set_that_occurs_often_is_paired_with_its_first_row_alone():
    rows = [[1, 2, 3]] * 2000 + [[1, 2, 3, 4]]
    pairs = jaccard_pairs(*flat(rows), 0.7)
    assert len(pairs) == 2000
    assert set(pairs.a.tolist()) == {0}


def test_one_set_may_have_more_partners_than_a_buffer_holds():
    rows = [[0, *range(10, 40), 100 + number] for number in range(600)]
    assert len(jaccard_pairs(*flat(rows), 0.9)) == 600 * 599 // 2


@pytest.mark.parametrize("workers", [1, 3])
def test_the_result_does_not_depend_on_threads(workers):
    generator = np.random.default_rng(3)
    rows = [generator.integers(0, 300, generator.integers(1, 15)).tolist() for _ in range(9000)]
    one, other = (jaccard_pairs(*flat(rows), 0.4, workers=count) for count in (2, workers))
    assert all(np.array_equal(getattr(one, name), getattr(other, name)) for name in ("a", "b", "score"))


@pytest.mark.parametrize(
    ("offsets", "tokens", "threshold", "message"),
    [
        ([0, 2], [1], 0.5, "offsets must ascend from 0 to the number of tokens, 1"),
        ([1, 2], [1, 2], 0.5, "offsets must ascend"),
        ([0, 2, 1, 2], [1, 2], 0.5, "offsets must ascend"),
        ([], [], 0.5, "offsets must be integers"),
        ([0, 1], [0.5], 0.5, "tokens must be integers"),
        ([0, 1], [1], 0.0, "threshold must be a similarity"),
        ([0, 1], [1], 1.1, "threshold must be a similarity"),
    ],
)
def test_what_is_no_collection_of_sets_is_refused(offsets, tokens, threshold, message):
    with pytest.raises(ValueError, match=message):
        jaccard_pairs(np.array(offsets, int), np.array(tokens), threshold)


def test_no_sets_make_no_pairs():
    assert len(jaccard_pairs([0], [], 0.5)) == 0
    assert len(jaccard_pairs([0, 0, 0], [], 0.5)) == 0


@pytest.mark.parametrize("scheme", ["affine32", "legacy"])
@pytest.mark.parametrize(("num_perm", "seed"), [(128, 1), (100, 7), (3, 1)])
def test_signatures_are_those_of_datasketch(scheme, num_perm, seed):
    generator = np.random.default_rng(5)
    texts = [[f"word{w}" for w in generator.integers(0, 50, size)] for size in (1, 5, 0, 40)]
    offsets = np.cumsum([0, *map(len, texts)])
    ours = minhash_signatures(
        offsets, sha1_hashes(w for text in texts for w in text), num_perm=num_perm, seed=seed, scheme=scheme
    )
    for row, text in zip(ours, texts, strict=True):
        theirs = datasketch.MinHash(num_perm, seed=seed, scheme=scheme)
        theirs.update_batch([word.encode() for word in text])
        assert np.array_equal(row, theirs.hashvalues)
    there = to_datasketch(ours, seed=seed, scheme=scheme)
    assert there[0].jaccard(there[0]) == 1.0
    theirs = datasketch.MinHash(num_perm, seed=seed, scheme=scheme)
    theirs.update(texts[0][0].encode())
    assert theirs.jaccard(there[0]) == 1.0
    assert np.array_equal(from_datasketch(there), ours)


def test_signatures_of_different_kinds_are_not_mixed():
    with pytest.raises(ValueError, match="one seed"):
        from_datasketch([datasketch.MinHash(8), datasketch.MinHash(8, seed=2)])


def test_long_sets_are_found_by_bands_and_verified():
    generator = np.random.default_rng(11)
    rows: Collection = []
    for _ in range(60):
        base = generator.integers(0, 4000, 300).tolist()
        rows += [base, [*base[:-20], *generator.integers(0, 4000, 20).tolist()]]
    rows.append(rows[0][:128])
    pairs = join_sets(*flat(rows), 0.7, longest=100)
    truth = expected(rows, 0.7)
    assert "MinHash-LSH above" in pairs.method
    got = found(pairs)
    assert got.keys() <= truth.keys()
    assert len(got) >= 0.95 * len(truth)
    assert found(join_sets(*flat(rows), 0.7, longest=1000)) == pytest.approx(truth)


def test_a_pair_whose_smaller_set_is_short_is_found_for_certain():
    rows = [list(range(100)), list(range(125)), list(range(156))]
    assert found(join_sets(*flat(rows), 0.8, longest=100)) == pytest.approx({(0, 1): 0.8, (1, 2): 125 / 156})
