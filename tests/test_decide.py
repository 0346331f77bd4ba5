"""The keep-set and the decision, against definitions written out as loops (promises 2, 3 and 4)."""

import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dedupkit.clustering import Decision, Matches, components, decide, edges, keep_set, pairs_of_clauses, parse_rule

KINDS = {"exact": "identity", "pixels": "identity", "pdq": "distance", "phash": "distance", "caption": "distance"}
ORIGINS = {"exact": "bytes", "caption": "sample"}


@st.composite
def graphs(draw):
    count = draw(st.integers(1, 12))
    pair = st.tuples(st.integers(0, count - 1), st.integers(0, count - 1)).filter(lambda p: p[0] != p[1])
    edges = draw(st.lists(pair, max_size=30))
    order = draw(st.permutations(range(count)))
    return np.array([e[0] for e in edges], int), np.array([e[1] for e in edges], int), np.array(order)


@settings(deadline=None)  # the first call compiles
@given(graphs())
def test_keep_set_is_the_greedy_walk(graph):
    check_keep_set(*graph)


def check_keep_set(a, b, order):
    """The keep-set of a graph is the greedy walk, and each witness the best kept neighbour."""
    kept, witness_edge = keep_set(a, b, order)
    neighbours = [set(b[a == v]) | set(a[b == v]) for v in range(len(order))]
    expected: set[int] = set()
    for vertex in order.tolist():
        if not neighbours[vertex] & expected:
            expected.add(vertex)
    assert set(np.flatnonzero(kept).tolist()) == expected
    rank = np.argsort(order)
    for vertex in np.flatnonzero(~kept):
        edge = witness_edge[vertex]
        witness = b[edge] if a[edge] == vertex else a[edge]
        assert vertex in (a[edge], b[edge])
        assert witness == min(neighbours[vertex] & expected, key=lambda v: rank[v])


@settings(deadline=None)  # the first call compiles
@given(graphs(), st.data())
def test_protected_vertices_are_kept_and_the_others_keep_the_promises(graph, data):
    a, b, order = graph
    held = np.array(data.draw(st.lists(st.booleans(), min_size=len(order), max_size=len(order))))
    kept, witness_edge = keep_set(a, b, order, held)
    assert kept[held].all()
    for x, y in zip(a.tolist(), b.tolist(), strict=True):
        assert not (kept[x] and kept[y]) or (held[x] and held[y])
    for vertex in np.flatnonzero(~kept):
        edge = witness_edge[vertex]
        assert vertex in (a[edge], b[edge])
        assert kept[b[edge] if a[edge] == vertex else a[edge]]
    assert (witness_edge[kept] == -1).all()


@settings(deadline=None)  # the first call compiles
@given(graphs())
def test_components_are_labelled_by_their_smallest_vertex(graph):
    a, b, order = graph
    label = list(range(len(order)))
    for _ in order:
        for x, y in zip(a.tolist(), b.tolist(), strict=True):
            label[x] = label[y] = min(label[x], label[y])
    assert components(a, b, len(order)).tolist() == label


@pytest.mark.parametrize(
    ("a", "b", "message"),
    [([0], [3], "outside"), ([-1], [0], "outside"), ([1], [1], "itself"), ([0, 1], [1], "two ends")],
)
def test_edges_that_make_no_sense_are_refused(a, b, message):
    with pytest.raises(ValueError, match=message):
        keep_set(np.array(a), np.array(b), np.arange(3))


@pytest.mark.parametrize(
    ("order", "message"),
    [
        ([0, 0, 0], "no permutation of 0..2: it leaves out 1"),
        ([0, 1, 3], "order names a vertex outside 0..2"),
        ([0, 1, -1], "order names a vertex outside 0..2"),
        ([[0, 1, 2]], r"order is an array of shape \(1, 3\)"),
    ],
)
@pytest.mark.parametrize("a", [[], [0]])
@pytest.mark.parametrize("protected", [None, [True, False, False]])
def test_an_order_that_is_no_permutation_is_refused(a, order, message, protected):
    with pytest.raises(ValueError, match=message):
        keep_set(a, [1] * len(a), order, protected)


def test_vertices_may_be_lists_and_are_whole_numbers():
    kept, witness_edge = keep_set([0, 1], [1, 2], [0, 1, 2])
    assert kept.tolist() == [True, False, True] and witness_edge.tolist() == [-1, 0, -1]
    assert keep_set([0, 1], [1, 2], [0, 1, 2], [False, True, False])[0].tolist() == [False, True, False]
    assert components([0], [1], 3).tolist() == [0, 0, 2]
    with pytest.raises(TypeError, match="float64; vertex numbers are integers"):
        keep_set([0.5], [1.0], [0, 1, 2])
    with pytest.raises(TypeError, match="order holds float64"):
        keep_set([0], [1], [0.0, 1.0, 2.0])
    with pytest.raises(TypeError, match="vertex numbers are integers"):
        components([0.5], [1.5], 3)
    with pytest.raises(ValueError, match=r"protected has shape \(2,\), and there are 3 vertices"):
        keep_set([0], [1], [0, 1, 2], [True, False])


RULES = [
    "exact",
    "exact or pdq<=2",
    "pdq<=2",
    "pdq<=2 and phash<=1",
    "exact or (pdq<=3 and phash<=1)",
    "(exact and phash<=5) or pdq<=1 or phash<=0",
    "pixels or exact",
    "exact or caption<=1",
    "(exact and caption<=1) or pdq<=1",
    "caption<=0 or pdq<=0",
]


@st.composite
def fingerprints(draw):
    """Samples with small integers as hashes; equal bytes imply equal hashes, but not equal captions."""
    count = draw(st.integers(1, 14))
    files = draw(
        st.lists(
            st.tuples(st.integers(0, 2), st.none() | st.integers(0, 5), st.none() | st.integers(0, 4)),
            min_size=1,
            max_size=6,
        )
    )
    which = draw(st.lists(st.integers(0, len(files) - 1), min_size=count, max_size=count))
    usable = draw(st.lists(st.booleans(), min_size=count, max_size=count))
    order = draw(st.permutations(range(count)))
    values = {
        "exact": [which[i] if usable[i] else None for i in range(count)],
        "pixels": [files[which[i]][0] if usable[i] else None for i in range(count)],
        "pdq": [files[which[i]][1] if usable[i] else None for i in range(count)],
        "phash": [files[which[i]][2] if usable[i] else None for i in range(count)],
        "caption": [draw(st.none() | st.integers(0, 4)) if usable[i] else None for i in range(count)],
    }
    return values, np.array(usable), np.array(order)


def signal_of(values, joined, origin="image"):
    first: dict[int, int] = {}
    label = []
    for position, value in enumerate(values):
        label.append(-1 if value is None else first.setdefault(value, position))
    if not joined:
        return Matches.identity(np.array(label, np.int32), origin)
    pairs = [(first[x], first[y], abs(x - y)) for x in first for y in first if first[x] < first[y]]
    a, b, d = (np.array([p[i] for p in pairs]) for i in range(3))
    return Matches(np.array(label, np.int32), a.astype(np.int32), b.astype(np.int32), d.astype(np.float32), origin)


def clause_that_holds(rule, values, x, y):
    """The definition: the first clause all of whose atoms hold between two samples, and its first atom's score."""
    for number, clause in enumerate(rule.clauses):
        scores = []
        for atom in clause:
            left, right = values[atom.signal][x], values[atom.signal][y]
            if left is None or right is None:
                break
            distance = abs(left - right)
            if distance > (atom.bound or 0):
                break
            scores.append(distance)
        else:
            return number, scores[0]
    return None


@settings(max_examples=400, deadline=None)
@given(fingerprints(), st.sampled_from(RULES), st.sampled_from([1, 3, edges._BLOCK]))
def test_the_decision_is_the_greedy_walk_over_all_pairs(data, text, block):
    values, usable, order = data
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(edges, "_BLOCK", block)
        check_decision(values, usable, order, text)


def check_decision(values, usable, order, text):
    """Kept samples, witnesses, clauses, scores and groups are those of the definition."""
    rule = parse_rule(text, KINDS)
    signals = {
        name: signal_of(values[name], KINDS[name] == "distance", ORIGINS.get(name, "image")) for name in rule.signals
    }
    decision = decide(rule, signals, order, usable)

    count = len(order)
    expected_kept: list[int] = []
    for sample in order.tolist():
        if usable[sample] and not any(clause_that_holds(rule, values, sample, kept) for kept in expected_kept):
            expected_kept.append(sample)
    kept = [s for s in range(count) if usable[s] and decision.witness[s] < 0]
    assert sorted(kept) == sorted(expected_kept)
    for sample in range(count):
        witness = decision.witness[sample]
        if witness < 0:
            assert decision.clause[sample] == -1
            assert np.isnan(decision.score[sample])
            continue
        assert usable[sample]
        assert witness in expected_kept
        assert (decision.clause[sample], decision.score[sample]) == clause_that_holds(rule, values, sample, witness)

    label = list(range(count))
    for _ in range(count):
        for x in range(count):
            for y in range(count):
                if usable[x] and usable[y] and x != y and clause_that_holds(rule, values, x, y):
                    label[x] = label[y] = min(label[x], label[y])
    assert decision.group.tolist() == label


@settings(max_examples=200, deadline=None)
@given(fingerprints(), st.sampled_from(RULES), st.data())
def test_protected_samples_are_kept_whatever_the_order_says(data, text, more):
    values, usable, order = data
    held = usable & np.array(more.draw(st.lists(st.booleans(), min_size=len(usable), max_size=len(usable))))
    rule = parse_rule(text, KINDS)
    signals = {
        name: signal_of(values[name], KINDS[name] == "distance", ORIGINS.get(name, "image")) for name in rule.signals
    }
    witness = decide(rule, signals, order, usable, held).witness
    kept = [sample for sample in range(len(usable)) if usable[sample] and witness[sample] < 0]
    assert set(np.flatnonzero(held).tolist()) <= set(kept)
    for x in kept:
        for y in kept:
            if x < y and not (held[x] and held[y]):
                assert not clause_that_holds(rule, values, x, y)
    for sample in np.flatnonzero(witness >= 0).tolist():
        assert witness[sample] in kept
        assert clause_that_holds(rule, values, sample, witness[sample])


def test_a_photo_with_a_hundred_thousand_copies_is_one_vertex():
    count = 100_000
    rule = parse_rule("exact or pdq<=31", KINDS)
    same = Matches.identity(np.zeros(count, np.int32))
    decision = decide(
        rule, {"exact": replace(same, origin="bytes"), "pdq": same}, np.arange(count)[::-1], np.ones(count, bool)
    )
    assert decision.vertices == 1
    assert decision.edges == 0
    assert (decision.witness[:-1] == count - 1).all()
    assert decision.witness[-1] == -1


def test_an_image_under_many_captions_and_a_caption_on_many_images_take_no_room_for_their_pairs():
    half = 2_000
    image = np.append(np.zeros(half, np.int32), np.arange(half, 2 * half, dtype=np.int32))
    caption = np.append(np.arange(half, dtype=np.int32), np.full(half, half, np.int32))
    signals = {"pdq": Matches.identity(image), "caption": Matches.identity(caption, "sample")}
    rule = parse_rule("pdq<=31 and caption<=1", KINDS)
    tracemalloc.start()
    try:
        decision = decide(rule, signals, np.arange(2 * half), np.ones(2 * half, bool))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert (decision.witness == -1).all()
    assert peak < 100e6  # with all pairs of one fingerprint at once, 176 MB


def test_without_shared_fingerprints_only_scored_pairs_are_pairs():
    count = 100_000
    first = np.append(np.zeros(count, np.int32), np.int32(count))
    ends = np.zeros(1, np.int32), np.full(1, count, np.int32)
    scored = Matches(first, *ends, np.full(1, 7, np.float32))
    clause = parse_rule("pdq<=31 and phash<=5", KINDS).clauses[0]
    for phash, found in ((scored, 0), (replace(scored, score=np.full(1, 5, np.float32)), count)):
        everything = np.arange(count + 1, dtype=np.int32)
        a, b = pairs_of_clauses([clause], {"pdq": scored, "phash": phash}, everything, shared=False)
        assert a.tolist() == list(range(found))
        assert (b == count).all()


def test_members_of_a_million_groups_are_counted_as_those_of_a_few():
    rng = np.random.default_rng(0)
    group = rng.integers(0, 1_000_001, 1_000_001).astype(np.int32)
    none = np.zeros(0)
    sizes = Decision(none, none, none, group, 0, 0).sizes()
    assert (sizes == np.bincount(group, minlength=len(group))).all()
    assert sizes.dtype == np.int32
