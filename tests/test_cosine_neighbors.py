"""The k nearest neighbours against brute force, on every engine, and what cells find of them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_cosine import clustered, keys, vector_sets

from dedupkit.neighbors import KnownPairs, cosine_neighbors
from dedupkit.neighbors.cosine import neighbors
from dedupkit.neighbors.cosine.distinct import collapse
from dedupkit.neighbors.cosine.lists import NeighborLists
from dedupkit.neighbors.cosine.nearest import nearest_of, nearest_tiles
from dedupkit.neighbors.cosine.neighbors import search
from dedupkit.neighbors.cosine.overlap import Overlap
from dedupkit.neighbors.cosine.recall import EXACT
from dedupkit.neighbors.cosine.settings import Settings
from dedupkit.neighbors.cosine.tiles import Engine, Sets


def scores_of(x):
    """All cosines as the join scores them: float64 sums of products of float32 unit rows, equal rows 1."""
    distinct = collapse(x)
    unit = np.full(x.shape, np.nan, np.float64)
    unit[distinct.rows.ids] = distinct.rows.take(slice(None))
    for start, end in zip(distinct.starts[:-1], distinct.starts[1:], strict=True):
        unit[distinct.members[start:end]] = unit[distinct.members[start]]
    total = np.zeros((len(x), len(x)))
    for column in range(x.shape[1]):
        total += unit[:, column, None] * unit[:, column]
    scores = np.clip(total, -1, 1).astype(np.float32)
    for start, end in zip(distinct.starts[:-1], distinct.starts[1:], strict=True):
        same = distinct.members[start:end]
        scores[np.ix_(same, same)] = 1
    return scores


def brute_force(scores, k, floor):
    """The k nearest of each row, ties by number; scores within rounding of one another count as ties of any order."""
    found = []
    for row, values in enumerate(scores):
        others = [j for j in range(len(values)) if j != row and values[j] >= floor]
        found.append(sorted(others, key=lambda j: (-values[j], j))[:k])
    return found


@settings(max_examples=60, deadline=None)
@given(x=vector_sets(most=60), k=st.sampled_from([1, 2, 5, 70]), floor=st.sampled_from([-0.9, 0.3, 0.8]))
def test_exact_neighbours_are_those_of_brute_force(x, k, floor):
    found = cosine_neighbors(x, k, floor, method="exact")
    scores = scores_of(x)
    pairs = list(zip(found.a.tolist(), found.b.tolist(), strict=True))
    assert pairs == sorted(set(pairs)) and (found.a < found.b).all()
    assert np.allclose(found.score, scores[found.a, found.b], atol=1e-6)
    sure, possible = set(), set()
    for row, values in enumerate(scores):
        others = np.array([j for j in range(len(values)) if j != row and values[j] >= floor - 1e-6], int)
        if not len(others):
            continue
        kth = np.sort(values[others])[::-1][min(k, len(others)) - 1]
        near = others[values[others] > kth + 1e-6] if len(others) > k else others[values[others] >= floor + 1e-6]
        sure |= {(min(row, j), max(row, j)) for j in near.tolist()}
        possible |= {(min(row, j), max(row, j)) for j in others[values[others] >= kth - 1e-6].tolist()}
    assert sure <= set(pairs) <= possible
    assert found.skipped.tolist() == [i for i, row in enumerate(x) if not row.any() or not np.isfinite(row).all()]


@settings(max_examples=30, deadline=None)
@given(data=st.data(), k=st.integers(1, 4))
def test_ties_go_to_the_smaller_row(data, k):
    kinds = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0], [0, 1, 1]], np.float32)
    x = kinds[data.draw(st.lists(st.integers(0, 4), min_size=2, max_size=30))]
    scores = scores_of(x)
    expected = {(min(i, j), max(i, j)) for i, row in enumerate(brute_force(scores, k, 0.5)) for j in row}
    found = cosine_neighbors(x, k, 0.5)
    assert keys(found) == expected
    for row, near in enumerate(brute_force(scores, k, 0.5)):
        assert found.last[row] == (scores[row, near[-1]] if len(near) == k else -np.inf)


@pytest.mark.parametrize("kind", ["numpy", "torch", "bfloat16", "cuda"])
def test_every_engine_and_tiling_gives_the_same_lists(kind):
    if kind != "numpy":
        pytest.importorskip("torch")
    x = clustered(3000)
    reference = cosine_neighbors(x, 4, 0.3, method="exact", device="cpu")
    distinct = collapse(x)
    engine = Engine(kind, x.shape[1], "cpu")
    engine.tile = 300
    sets = Sets(engine, distinct.rows, None, 700)
    lists = NeighborLists(len(distinct.rows), 4, 0.3)
    nearest_tiles(sets, None, lists)
    row, other, _ = lists.pairs()
    ids = distinct.rows.ids
    if len(ids) == len(x):
        pairs = set(
            zip(np.minimum(ids[row], ids[other]).tolist(), np.maximum(ids[row], ids[other]).tolist(), strict=True)
        )
        assert pairs == keys(reference)
    queries = np.array([5, 17, 2000, 2999])
    few = NeighborLists(len(queries), 4, 0.3)
    nearest_of(sets, queries, few)
    np.testing.assert_array_equal(few.ids, lists.ids[queries])
    np.testing.assert_array_equal(few.scores, lists.scores[queries])


def test_lists_do_not_depend_on_the_order_of_offers():
    rng = np.random.default_rng(3)
    rows, others = rng.integers(0, 5, 200), rng.integers(0, 40, 200)
    scores = ((rows * 40 + others) % 7 / 7).astype(np.float32)
    lists = [NeighborLists(5, 3, 0.0) for _ in range(2)]
    lists[0].add(rows, others, scores)
    order = rng.permutation(200)
    for part in np.array_split(order, 9):
        lists[1].add(rows[part], others[part], scores[part])
    np.testing.assert_array_equal(lists[0].ids, lists[1].ids)


@settings(max_examples=20, deadline=None)
@given(x=vector_sets(most=40), data=st.data())
def test_neighbours_of_some_rows_are_among_those_of_all(x, data):
    rows = np.array(sorted(data.draw(st.sets(st.integers(0, len(x) - 1), max_size=5))) if len(x) else [], np.int64)
    every, some = cosine_neighbors(x, 3, 0.3), cosine_neighbors(x, 3, 0.3, rows=rows)
    np.testing.assert_array_equal(some.last[rows], every.last[rows])
    mine = {pair for pair in keys(every) if set(pair) & set(rows.tolist())}
    assert keys(some) <= mine
    for row in rows.tolist():
        near = {
            (a, b)
            for a, b, s in zip(every.a, every.b, every.score, strict=True)
            if row in (a, b) and s > every.last[row]
        }
        assert near <= keys(some)


@settings(max_examples=60, deadline=None)
@given(x=vector_sets(most=40), data=st.data(), k=st.sampled_from([1, 2, 5, 70]), floor=st.sampled_from([-0.9, 0.3]))
def test_neighbours_in_another_set_are_those_of_brute_force(x, data, k, floor):
    count = data.draw(st.integers(0, len(x)))
    order = data.draw(st.permutations(range(len(x))))  # equal rows fall on both sides
    x = x[np.array(order, int)]
    rows = None
    if data.draw(st.booleans()):
        rows = np.flatnonzero(data.draw(st.lists(st.booleans(), min_size=count, max_size=count)))
    found = cosine_neighbors(x[:count], k, floor, x[count:], rows=rows, method="exact")
    scores = scores_of(x)[:count, count:]
    pairs = list(zip(found.a.tolist(), found.b.tolist(), strict=True))
    assert pairs == sorted(set(pairs))
    assert np.allclose(found.score, scores[found.a, found.b], atol=1e-6)
    listed = np.bincount(found.a, minlength=count)
    for row, values in enumerate(scores):
        if rows is not None and row not in rows:
            assert listed[row] == 0
            continue
        near = np.flatnonzero(values >= floor)  # False where a row cannot be used
        if (np.abs(values - floor) < 1e-6).any():
            continue
        assert listed[row] == min(k, len(near))
        mine = np.sort(scores[row, found.b[found.a == row]])
        np.testing.assert_allclose(mine, np.sort(values[near])[-k:], atol=1e-6)
        assert found.last[row] == pytest.approx(mine[0] if listed[row] == k else -np.inf)


@settings(max_examples=30, deadline=None)
@given(data=st.data(), k=st.integers(1, 4))
def test_ties_in_another_set_go_to_the_smaller_row(data, k):
    kinds = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0], [0, 1, 1]], np.float32)
    one, two = (kinds[data.draw(st.lists(st.integers(0, 4), min_size=1, max_size=20))] for _ in range(2))
    scores = scores_of(np.concatenate([one, two]))[: len(one), len(one) :]
    expected = {
        (row, int(j))
        for row, values in enumerate(scores)
        for j in sorted(np.flatnonzero(values >= 0.5), key=lambda j, v=values: (-v[j], j))[:k]
    }
    assert keys(cosine_neighbors(one, k, 0.5, two)) == expected


def test_cells_of_two_sets_find_what_they_say(monkeypatch):
    x = clustered(9000, dims=24, clusters=200)
    one, two = x[::3], np.delete(x, np.s_[::3], axis=0)
    exact = cosine_neighbors(one, 3, 0.5, two, method="exact")
    found = search(one, 3, Settings(0.5, "cells", overlap=Overlap(3, 0.1)), None, two)
    share = len(keys(found) & keys(exact)) / len(exact)
    assert 0.3 < found.recall.estimate < 1
    assert found.recall.low - 0.03 <= share <= found.recall.high + 0.03
    some = np.arange(0, len(one), 7)
    monkeypatch.setattr(neighbors, "EXACT_PAIRS", 0)
    few = search(one, 3, Settings(0.5, "cells", overlap=Overlap(3, 0.1)), some, two)
    assert keys(few) == {pair for pair in keys(found) if pair[0] % 7 == 0}


def test_what_cells_find_is_what_they_say():
    x = clustered(6000, dims=24, clusters=200)
    exact = cosine_neighbors(x, 3, 0.5, method="exact")
    found = search(x, 3, Settings(0.5, "cells", overlap=Overlap(3, 0.1)))
    share = len(keys(found) & keys(exact)) / len(exact)
    assert 0.3 < found.recall.estimate < 1
    assert found.recall.low - 0.03 <= share <= found.recall.high + 0.03  # pairs of either side are counted once
    again = search(x, 3, Settings(0.5, "cells", overlap=Overlap(3, 0.1)))
    assert keys(found) == keys(again)


def test_known_pairs_choose_cells_where_all_neighbours_would_need_an_exact_search():
    """Copies are much nearer than the nearest strangers, and it is copies that a search is there to find."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((12_000, 48)).astype(np.float32)
    x[:600] = x[6000:6600] + 0.4 * rng.standard_normal((600, 48))
    known = KnownPairs(x[7000:7500], x[7000:7500] + 0.4 * rng.standard_normal((500, 48)), np.arange(500))
    exact = cosine_neighbors(x, 3, 0.3, method="cells")
    assert exact.recall == EXACT  # no cells hold the strangers together
    found = cosine_neighbors(x, 3, 0.3, method="cells", known=known)
    assert 0.98 <= found.recall.estimate <= 1
    assert found.recall.sampled_rows == 500
    copies = {(row, row + 6000) for row in range(600)}
    assert len(copies & keys(found)) >= 0.97 * len(copies & keys(exact)) > 500
    assert len(keys(exact) - keys(found)) > 1000
    few = KnownPairs(known.left[:300], known.right[:300], known.of[:300])
    assert keys(cosine_neighbors(x, 3, 0.3, method="cells", known=few)) == keys(exact)
    with pytest.raises(ValueError, match="vectors have 48 dimensions, known pairs others"):
        cosine_neighbors(x, 3, 0.3, known=KnownPairs(x[:, :8], x[:, :8], known.of))


def test_a_thousand_equal_rows_have_neighbours_among_themselves():
    x = np.tile(np.array([[1, 2, 3]], np.float32), (3000, 1))
    found = cosine_neighbors(x, 2, 0.9)
    assert keys(found) == {(0, row) for row in range(1, 3000)} | {(1, row) for row in range(2, 3000)}


@pytest.mark.parametrize(
    ("message", "change"),
    [("k must be", {"k": 0}), ("floor must be", {"floor": 2.0}), ("fewer neighbours", {"memory": 100})],
)
def test_errors_say_what_to_change(message, change):
    with pytest.raises(ValueError, match=message):
        cosine_neighbors(clustered(50), **{"k": 2, "floor": 0.5, **change})


def test_two_sets_of_other_lengths_are_refused():
    with pytest.raises(ValueError, match="16 dimensions, other has 8"):
        cosine_neighbors(np.ones((2, 16), np.float32), 1, 0.5, np.ones((2, 8), np.float32))
