"""The cosine join against brute force, its cells against exact search, and score normalisation."""

import os
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dedupkit.neighbors.cosine import join as cosine
from dedupkit.neighbors.cosine import sample
from dedupkit.neighbors.cosine.join import Join, cosine_pairs, iter_cosine_pairs
from dedupkit.neighbors.cosine.normalise import ScoreNormaliser, normalise_scores
from dedupkit.neighbors.cosine.overlap import Overlap
from dedupkit.neighbors.cosine.recall import effective, wilson
from dedupkit.neighbors.cosine.rows import Rows
from dedupkit.neighbors.cosine.settings import Settings
from dedupkit.neighbors.cosine.tiles import Engine, has_matrix_units, join_tiles


def unit(x):
    x = np.asarray(x, np.float64)
    with np.errstate(all="ignore"):
        return x / np.linalg.norm(x, axis=1, keepdims=True)


def brute_force(a, b, floor):
    """Pairs and scores in float64; scores within rounding of the floor are uncertain."""
    same = b is None
    scores = np.nan_to_num(unit(a) @ unit(a if same else b).T, nan=-9)
    if same:
        scores[np.tril_indices(len(a))] = -9
    return scores


def check(pairs, scores, floor):
    found = list(zip(pairs.a.tolist(), pairs.b.tolist(), strict=True))
    assert found == sorted(set(found))
    expected = scores[pairs.a, pairs.b]
    assert np.allclose(pairs.score, expected, atol=3e-6)
    assert (pairs.score >= np.float32(floor)).all()
    missing = scores >= floor + 3e-6
    missing[pairs.a, pairs.b] = False
    assert not missing.any()


def keys(pairs):
    return set(zip(pairs.a.tolist(), pairs.b.tolist(), strict=True))


def clustered(n, dims=48, seed=0, clusters=40):
    """Clusters of unequal size, a third of the rows near copies of others."""
    rng = np.random.default_rng(seed)
    centres = unit(rng.standard_normal((clusters, dims)))
    weight = np.arange(1, clusters + 1) ** -0.7
    x = unit(centres[rng.choice(clusters, n, p=weight / weight.sum())] + unit(rng.standard_normal((n, dims))))
    copies = n // 3
    cos = rng.uniform(0.8, 0.99, (copies, 1))
    x[-copies:] = cos * x[:copies] + np.sqrt(1 - cos**2) * unit(rng.standard_normal((copies, dims)))
    return rng.permutation(unit(x)).astype(np.float16)


@st.composite
def vector_sets(draw, dims=None, most=90):
    """A few centres with noise, of any length; equal rows, zero rows and rows with NaN among them."""
    dims = dims or draw(st.sampled_from([1, 3, 8, 33]))
    n = draw(st.integers(0, most))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    centres = rng.standard_normal((draw(st.integers(1, 8)), dims))
    x = centres[rng.integers(0, len(centres), n)]
    x = x + rng.standard_normal((n, dims)) * draw(st.sampled_from([0.0, 0.1, 0.5]))
    if draw(st.booleans()):
        x *= rng.uniform(0.1, 30, (n, 1))
    x = x.astype(draw(st.sampled_from([np.float16, np.float32])))
    if n and draw(st.booleans()):
        x[rng.integers(0, n, 3)] = 0
        x[rng.integers(0, n, 2), 0] = draw(st.sampled_from([np.nan, np.inf]))
    return x


@settings(max_examples=100, deadline=None)
@given(data=st.data(), floor=st.sampled_from([-0.9, 0.0, 0.3, 0.7, 0.95]), two=st.booleans())
def test_exact_is_brute_force(data, floor, two):
    a = data.draw(vector_sets())
    b = data.draw(vector_sets(dims=a.shape[1])) if two else None
    pairs = cosine_pairs(a, floor, b, method="exact")
    check(pairs, brute_force(a, b, floor), floor)
    assert pairs.recall[:3] == (1, 1, 1)
    assert pairs.skipped.tolist() == [i for i, row in enumerate(a) if not row.any() or not np.isfinite(row).all()]


@settings(max_examples=20, deadline=None)
@given(data=st.data(), floor=st.sampled_from([0.3, 0.7, 0.95]), two=st.booleans(), cap=st.sampled_from([1, 3]))
def test_cells_emit_true_pairs_once_and_all_equal_rows(data, floor, two, cap):
    a = data.draw(vector_sets())
    b = data.draw(vector_sets(dims=a.shape[1])) if two else None
    pairs = Join(a, b, Settings(floor, "cells", overlap=Overlap(cap, 0.1))).pairs()
    exact = cosine_pairs(a, floor, b, method="exact")
    assert len(keys(pairs)) == len(pairs)
    assert keys(pairs) <= keys(exact)
    lookup = dict(zip(zip(exact.a.tolist(), exact.b.tolist(), strict=True), exact.score.tolist(), strict=True))
    assert all(
        lookup[a, b] == s for a, b, s in zip(pairs.a.tolist(), pairs.b.tolist(), pairs.score.tolist(), strict=True)
    )


@pytest.mark.parametrize("kind", ["torch", "bfloat16"])
def test_every_engine_gives_the_same_pairs_bit_for_bit(kind):
    pytest.importorskip("torch")
    x = clustered(5000)
    rows = Rows(x, np.arange(len(x)), (1 / np.linalg.norm(x.astype(np.float64), axis=1)).astype(np.float32))
    columns = []
    for engine in (Engine("numpy", 48), Engine(kind, 48)):
        engine.tile = 512 if engine.kind == kind else 2048
        blocks = list(join_tiles(engine, rows, None, None, None, 0.6, 1000))
        i, j, score = (np.concatenate(column) for column in zip(*blocks, strict=True))
        order = np.lexsort((j, i))
        columns.append((i[order], j[order], score[order]))
    assert len(columns[0][0]) > 1000
    assert all(np.array_equal(x, y) for x, y in zip(*columns, strict=True))
    assert has_matrix_units() in (True, False)


@pytest.mark.parametrize("method", ["exact", "cells"])
def test_memmap_of_float16_with_little_memory(tmp_path, method):
    x = clustered(4000)
    np.save(tmp_path / "x.npy", x)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    blocks = list(Join(mapped, None, Settings(0.75, method, memory=2**16, overlap=Overlap(64, 2.0))).blocks())
    found = [pair for block in blocks for pair in zip(block.a.tolist(), block.b.tolist(), strict=True)]
    assert len(found) == len(set(found))
    assert set(found) == keys(cosine_pairs(x, 0.75, method="exact"))


@pytest.mark.parametrize("method", ["exact", "cells"])
def test_identical_vectors_by_the_thousand(method):
    x = np.repeat(clustered(300), [2000] + [1] * 299, axis=0)
    x = np.random.default_rng(0).permutation(x)
    count, seen = 0, np.zeros(len(x), np.int64)
    for block in iter_cosine_pairs(x, 0.95, method=method):
        assert len(block) <= cosine.BLOCK_PAIRS
        assert (block.a < block.b).all()
        count += len(block)
        seen += np.bincount(block.a, minlength=len(x)) + np.bincount(block.b, minlength=len(x))
    scores = brute_force(x, None, 0.95)
    assert count == (scores >= 0.95).sum()
    assert (np.sort(seen)[-2000:] >= 1999).all()


def test_equal_rows_of_two_sets():
    x, y = np.repeat(clustered(40), 5, axis=0), np.repeat(clustered(40), 3, axis=0)
    pairs = cosine_pairs(x, 0.9, y, method="exact")
    check(pairs, brute_force(x, y, 0.9), 0.9)
    assert len(pairs) >= 40 * 15


def test_zero_and_nan_rows_are_named_and_match_nothing_at_any_floor():
    x = clustered(50).astype(np.float32)
    x[3], x[7, 2], x[9, 0] = 0, np.nan, np.inf
    other = x[:8].copy()
    pairs = cosine_pairs(x, -0.99, other)
    assert pairs.skipped.tolist() == [3, 7, 9]
    assert pairs.skipped_other.tolist() == [3, 7]
    assert not set(pairs.a.tolist()) & {3, 7, 9}
    assert len(pairs) == 47 * 6
    nothing = cosine_pairs(np.zeros((5, 4), np.float32), 0.5)
    assert len(nothing) == 0 and len(nothing.skipped) == 5
    assert len(cosine_pairs(np.zeros((5, 4), np.float32), 0.5, method="cells")) == 0
    assert len(cosine_pairs(np.empty((0, 4), np.float32), 0.5, method="cells")) == 0


def test_lengths_at_the_ends_of_float32():
    direction = np.array([[1, 2, 3, 4]], np.float32)
    pairs = cosine_pairs(np.concatenate([direction * 1e-30, direction * 1e30, direction]), 0.999)
    assert keys(pairs) == {(0, 1), (0, 2), (1, 2)}


def agrees(recall, true):
    """Within the 95 % interval, made half as wide again so that one test in a thousand fails rather than in twenty."""
    return (
        recall.estimate - 1.5 * (recall.estimate - recall.low)
        <= true
        <= recall.estimate + 1.5 * (recall.high - recall.estimate)
    )


@pytest.mark.parametrize("two", [False, True])
def test_measured_recall_agrees_with_the_true_recall(two):
    x = clustered(12000)
    y = None
    if two:
        noise = 0.5 * unit(np.random.default_rng(1).standard_normal((9000, 48)))
        y = (x[:9000].astype(np.float64) + noise).astype(np.float16)
    exact = keys(cosine_pairs(x, 0.78, y, method="exact"))
    pairs = cosine_pairs(x, 0.78, y, method="cells", target_recall=0.97)
    true = len(keys(pairs) & exact) / len(exact)
    assert keys(pairs) <= exact
    assert pairs.recall.sampled_pairs > 100
    assert pairs.recall.estimate >= 0.97
    assert agrees(pairs.recall, true)
    assert true >= 0.95
    single = Join(x, y, Settings(0.78, "cells", overlap=Overlap(1, 0.0))).pairs()
    true = len(keys(single) & exact) / len(exact)
    assert agrees(single.recall, true)
    assert true < 0.97


def test_a_target_that_cells_cannot_reach_is_searched_exactly():
    x = unit(np.random.default_rng(0).standard_normal((1500, 8))).astype(np.float32)
    pairs = cosine_pairs(x, 0.3, method="cells", target_recall=0.999, memory=2**30)
    assert pairs.recall.estimate == 1
    check(pairs, brute_force(x, None, 0.3), 0.3)


def test_too_few_true_pairs_is_said():
    x = unit(np.random.default_rng(0).standard_normal((4000, 128))).astype(np.float32)
    x[1] = x[0] + 0.01
    recall = Join(x, None, Settings(0.9, "cells", overlap=Overlap(4, 0.1))).pairs().recall
    assert "true pairs to measure by" in recall.note
    assert recall.high - recall.low > 0.1


def test_the_seed_decides():
    x = clustered(8000)
    runs = [cosine_pairs(x, 0.8, method="cells", target_recall=0.9, seed=seed) for seed in (5, 5, 6)]
    assert runs[0].recall == runs[1].recall
    assert np.array_equal(runs[0].a, runs[1].a) and np.array_equal(runs[0].score, runs[1].score)
    assert runs[0].recall != runs[2].recall


def test_a_giant_cell_streams():
    """Three quarters of the vectors in one tight cluster, no two equal: its pairs come in blocks, each once."""
    rng = np.random.default_rng(0)
    tight = unit(np.ones(32) + 0.02 * rng.standard_normal((1500, 32)))
    x = np.concatenate([tight, unit(rng.standard_normal((500, 32)))]).astype(np.float32)
    blocks = list(iter_cosine_pairs(x, 0.9, method="cells", memory=2**20, target_recall=0.95))
    seen = np.concatenate([block.a * len(x) + block.b for block in blocks])
    assert max(map(len, blocks)) <= cosine.BLOCK_PAIRS
    assert len(np.unique(seen)) == len(seen)
    assert 0.93 * 1500 * 1499 / 2 <= len(seen) <= 1500 * 1499 / 2 + 1000


def test_too_many_pairs_proposes_a_floor_that_works():
    x = clustered(3000)
    with pytest.raises(ValueError, match="try a floor of") as error:
        cosine_pairs(x, 0.2, memory=2**20)
    floor = float(str(error.value).rsplit(" ", 1)[1])
    assert 0.2 < floor < 1
    assert 0 < len(cosine_pairs(x, floor, memory=2**20)) <= 2**20 // cosine.PAIR_BYTES
    with pytest.raises(ValueError, match="equal rows alone make"):
        cosine_pairs(np.ones((2000, 4), np.float16), 0.9, memory=2**20)
    with pytest.raises(ValueError, match="room for 10;"):
        iter_cosine_pairs(x, 0.8, max_pairs=10)


def test_a_floor_that_is_far_too_low_is_noticed_by_a_few_rows(monkeypatch):
    monkeypatch.setattr(sample, "MOST_OF_FEW", 1 << 14)
    x = clustered(3000)
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match="try a floor of"):
            iter_cosine_pairs(x, -0.99, max_pairs=1000)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 20e6  # with the three million pairs of the whole sample, more than 100 MB


@pytest.mark.parametrize(
    ("message", "change"),
    [
        ("float16 or float32 of shape", {"vectors": np.zeros(3, np.float32)}),
        ("float16 or float32 of shape", {"vectors": np.zeros((3, 4), np.float64)}),
        ("float16 or float32 of shape", {"vectors": np.zeros((3, 0), np.float32)}),
        ("vectors have 4 dimensions, other has 5", {"other": np.ones((3, 5), np.float32)}),
        ("floor must be", {"floor": -1}),
        ("floor must be", {"floor": 1.01}),
        ("floor must be", {"floor": float("nan")}),
        ("method must be", {"method": "fast"}),
        ("target_recall", {"target_recall": 1.0}),
        ("at least 1", {"memory": 0}),
        ("at least 1", {"workers": 0}),
    ],
)
def test_errors_come_at_once(message, change):
    arguments = {"vectors": np.ones((3, 4), np.float32), "floor": 0.5} | change
    with pytest.raises(ValueError, match=message):
        iter_cosine_pairs(**arguments)


def test_a_device_that_is_not_there():
    torch = pytest.importorskip("torch")
    if torch.cuda.is_available():
        assert len(cosine_pairs(clustered(500), 0.8, device="cuda")) == len(cosine_pairs(clustered(500), 0.8))
    else:
        with pytest.raises(ValueError, match="not available"):
            cosine_pairs(clustered(50), 0.8, device="cuda")


def test_workers_are_given_back():
    torch = pytest.importorskip("torch")
    before = torch.get_num_threads()
    x = clustered(3000)
    one = cosine_pairs(x, 0.8, method="cells", workers=1)
    assert torch.get_num_threads() == before
    assert keys(one) <= keys(cosine_pairs(x, 0.8, method="exact"))


def test_importing_is_light():
    code = "import sys, dedupkit.neighbors.cosine.join; print({'numba', 'faiss', 'torch'} & set(sys.modules))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "set()"


def test_interval_and_effective_size():
    low, high = wilson(0.9, 100, 1.96)
    assert (round(low, 4), round(high, 4)) == (0.8256, 0.9448)  # by the published formula
    assert wilson(0.5, 0, 1.96) == (0, 1)
    assert effective(np.arange(50)) == 50
    assert effective(np.zeros(50, np.int64)) == 1


@pytest.mark.skipif("DEDUPKIT_DATA" not in os.environ, reason="DEDUPKIT_DATA names no data")
def test_genuine_embeddings():
    path = Path(os.environ["DEDUPKIT_DATA"]) / "embeddings" / "mobileclip2_products_1454x512.npy"
    x = np.load(path, mmap_mode="r")
    if x.dtype == np.float64:
        x = x.astype(np.float32)
    exact = cosine_pairs(x, 0.85, method="exact")
    check(exact, brute_force(x, None, 0.85), 0.85)
    cells = cosine_pairs(x, 0.85, method="cells", target_recall=0.95)
    assert len(exact) > 500
    assert keys(cells) <= keys(exact)
    assert len(cells) >= 0.93 * len(exact)


def test_score_normalisation_is_the_formula():
    rng = np.random.default_rng(0)
    x, background = rng.standard_normal((30, 16)).astype(np.float16), rng.standard_normal((200, 16)).astype(np.float32)
    background[5] = 0
    scores = unit(x) @ unit(np.delete(background, 5, axis=0)).T
    nearest = -np.sort(-scores, axis=1)
    bias = ScoreNormaliser(background).bias(x)
    assert np.allclose(bias, nearest[:, :3].mean(axis=1), atol=1e-5)
    assert np.allclose(ScoreNormaliser(background, 0.5, 1, 4).bias(x), 0.5 * nearest[:, 1:5].mean(axis=1), atol=1e-5)
    a, b, score = np.array([0, 1]), np.array([2, 3]), np.array([0.9, 0.8], np.float32)
    assert np.allclose(normalise_scores(score, a, b, bias), score - bias[:2])
    both = normalise_scores(score, a, b, bias, bias)
    assert np.allclose(both, normalise_scores(score, b, a, bias, bias))
    assert np.allclose(both, score - (bias[:2] + bias[2:4]) / 2)
    assert both.dtype == np.float32


def test_score_normalisation_refuses():
    background = np.eye(4, dtype=np.float32)
    with pytest.raises(ValueError, match="usable vectors"):
        ScoreNormaliser(np.zeros((9, 4), np.float32))
    with pytest.raises(ValueError, match="first <= last"):
        ScoreNormaliser(background, first=2, last=1)
    with pytest.raises(ValueError, match="dimensions"):
        ScoreNormaliser(background).bias(np.ones((2, 5), np.float32))
    assert ScoreNormaliser(background).bias(np.full((1, 4), np.nan, np.float32)).tolist() == [0]
