"""The joins against brute force."""

import itertools
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from dedupkit.neighbors.hamming.dihedral import class_words, dihedral_distance, dihedral_pairs, join_turned, transpose
from dedupkit.neighbors.hamming.join import Pairs, Settings, as_words, hamming_pairs, iter_hamming_pairs, join
from dedupkit.neighbors.hamming.plan import Chunk, ball, cost, make_plan, split_radius, split_word


def popcounts(differing):
    return np.unpackbits(differing, axis=-1).sum(axis=-1)


def brute_force(a, b, radius):
    distance = popcounts(a[:, None] ^ (a if b is None else b)[None])
    within = distance <= radius
    if b is None:
        within &= np.triu(np.ones_like(within), 1)
    return {(int(i), int(j), int(distance[i, j])) for i, j in zip(*np.nonzero(within), strict=True)}


def as_set(pairs):
    rows = list(zip(pairs.a.tolist(), pairs.b.tolist(), pairs.distance.tolist(), strict=True))
    assert len(set(rows)) == len(rows)
    assert rows == sorted(rows)
    return set(rows)


def join_with(chunks, a, b, how):
    """The blocks of the join with so many chunks in a word, 0 for brute force."""
    return join(
        as_words(a), None if b is None else as_words(b), how._replace(chunks=chunks), (False,) * (a.shape[1] // 8)
    )


def pairs_with(chunks, a, radius, b=None, workers=1):
    """The same pairs as those of `hamming_pairs`, which chooses the number of chunks; None leaves it to that."""
    if chunks is None:
        return hamming_pairs(a, radius, b, workers=workers)
    return Pairs.gather(join_with(chunks, a, b, Settings(radius, workers)))


def turned_pairs_with(chunks, a, radius, b=None, workers=1):
    """The same in any orientation."""
    if chunks is None:
        return dihedral_pairs(a, radius, b, workers=workers)
    how = Settings(radius, workers, chunks=chunks)
    return Pairs.gather(join_turned(class_words(a), None if b is None else class_words(b), how))


def orientations(row):
    """The eight group elements, written out on the bit matrix."""
    bits = np.unpackbits(row).reshape(16, 16)
    odd = np.arange(16) % 2 == 1
    for matrix in (bits, bits.T):
        for flip_rows in (False, True):
            for flip_columns in (False, True):
                yield np.packbits(matrix ^ (odd & flip_rows)[:, None] ^ (odd & flip_columns)[None])


@st.composite
def hash_sets(draw, nbytes=None, most=120):
    """Random, clustered or skewed hashes: a few centres, bits drawn with a bias, few flips each."""
    nbytes = nbytes or draw(st.sampled_from([8, 32]))
    n = draw(st.integers(0, most))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    centres = rng.random((draw(st.integers(1, 6)), nbytes * 8)) < draw(st.sampled_from([0.5, 0.1, 0.0]))
    bits = centres[rng.integers(0, len(centres), n)]
    flips = draw(st.sampled_from([0.0, 0.03, 0.1, 0.5]))
    return np.packbits(bits ^ (rng.random(bits.shape) < flips), axis=1)


RADII = st.one_of(st.integers(0, 40), st.sampled_from([60, 64, 100, 300]))
CHUNKS = st.sampled_from([None, 0, 1, 2, 3, 4, 5, 8])


@settings(max_examples=200, deadline=None)
@given(data=st.data(), radius=RADII, chunks=CHUNKS, two=st.booleans(), workers=st.sampled_from([1, 3]))
def test_join_is_brute_force(data, radius, chunks, two, workers):
    a = data.draw(hash_sets())
    b = data.draw(hash_sets(nbytes=a.shape[1])) if two else None
    if chunks is not None and radius > 40:  # a ball of that radius in a wide chunk has no end of keys
        chunks = 0
    if chunks == 1 and radius > (3 if a.shape[1] == 8 else 12):
        chunks = 2
    if chunks == 2 and radius > (8 if a.shape[1] == 8 else 32):
        chunks = 4
    pairs = pairs_with(chunks, a, radius, b, workers)
    assert as_set(pairs) == brute_force(a, b, radius)


@settings(max_examples=100, deadline=None)
@given(data=st.data(), radius=RADII, chunks=CHUNKS, workers=st.sampled_from([1, 3]))
def test_dihedral_join_is_brute_force(data, radius, chunks, workers):
    hashes = data.draw(hash_sets(nbytes=32, most=60))
    for row in range(0, len(hashes), 3):  # turn some of them
        hashes[row] = list(orientations(hashes[row]))[data.draw(st.integers(0, 7))]
    if chunks is not None and (radius > 40 or (chunks <= 2 and radius > 12)):
        chunks = 0
    a, b = np.triu_indices(len(hashes), 1)
    distance = dihedral_distance(hashes[a], hashes[b])
    expected = {(int(i), int(j), int(d)) for i, j, d in zip(a, b, distance, strict=True) if d <= radius}
    assert as_set(turned_pairs_with(chunks, hashes, radius, workers=workers)) == expected


@settings(max_examples=30, deadline=None)
@given(a=hash_sets(nbytes=32, most=1), b=hash_sets(nbytes=32, most=1))
def test_dihedral_distance_is_the_least_over_the_group(a, b):
    a, b = a[: len(b)], b[: len(a)]
    expected = [min(popcounts(x ^ y) for y in orientations(row)) for x, row in zip(a, b, strict=True)]
    assert dihedral_distance(a, b).tolist() == expected
    assert dihedral_distance(b, a).tolist() == expected


def test_dihedral_distance_to_own_orientations_is_zero():
    rng = np.random.default_rng(1)
    row = rng.integers(0, 256, 32, dtype=np.uint8)
    turned = np.array(list(orientations(row)))
    assert dihedral_distance(np.repeat(row[None], 8, axis=0), turned).tolist() == [0] * 8
    assert len(dihedral_pairs(turned, 0)) == 28
    assert np.array_equal(transpose(class_words(turned[:1])), class_words(turned[4:5]))


@pytest.mark.parametrize("block_pairs", [1, 50, 1000])
@pytest.mark.parametrize("chunks", [0, 4])
def test_small_blocks_lose_nothing(block_pairs, chunks):
    rng = np.random.default_rng(2)
    hashes = np.repeat(rng.integers(0, 256, (3, 32), dtype=np.uint8), 70, axis=0)
    blocks = list(join_with(chunks, hashes, None, Settings(31, 2, block_pairs)))
    assert max(map(len, blocks)) <= max(16, block_pairs)
    assert as_set(Pairs.gather(blocks)) == brute_force(hashes, None, 31)


def test_identical_hashes_stream():
    hashes = np.zeros((100_000, 32), np.uint8)
    blocks = iter_hamming_pairs(hashes, 31, block_pairs=10_000)
    seen = [next(blocks) for _ in range(20)]
    blocks.close()
    assert all(0 < len(block) <= 10_000 and not block.distance.any() for block in seen)
    n = 3000
    assert sum(map(len, iter_hamming_pairs(hashes[:n], 31, block_pairs=100_000))) == n * (n - 1) // 2


@pytest.mark.parametrize("chunks", [None, 4])
def test_agrees_with_faiss(chunks):
    import faiss

    rng = np.random.default_rng(3)
    hashes = rng.integers(0, 256, (5000, 32), dtype=np.uint8)
    hashes[2500:] = hashes[:2500] ^ np.packbits(rng.random((2500, 256)) < 0.11, axis=1)
    index = faiss.IndexBinaryFlat(256)
    index.add(hashes)
    limits, _, rows = index.range_search(hashes, 32)  # faiss: below the radius
    queries = np.repeat(np.arange(len(hashes)), np.diff(limits.astype(np.int64)))
    pairs = pairs_with(chunks, hashes, 31)
    assert set(zip(pairs.a, pairs.b, strict=True)) == {(q, r) for q, r in zip(queries, rows, strict=True) if q < r}
    assert len(pairs) > 500


def test_the_number_of_workers_changes_nothing():
    rng = np.random.default_rng(4)
    hashes = (rng.random((20_000, 8)) * 256).astype(np.uint8)
    one, three = hamming_pairs(hashes, 10, workers=1), hamming_pairs(hashes, 10, workers=3)
    assert len(one) > 0
    assert all(np.array_equal(getattr(one, f), getattr(three, f)) for f in ("a", "b", "distance"))


def test_arrays_of_any_layout():
    rng = np.random.default_rng(5)
    hashes = rng.integers(0, 2, (50, 8), dtype=np.uint8)
    expected = as_set(hamming_pairs(hashes, 3))
    frozen = hashes.copy()
    frozen.setflags(write=False)
    unaligned = np.frombuffer(b"x" + hashes.tobytes(), np.uint8, offset=1).reshape(50, 8)
    for layout in (
        np.asfortranarray(hashes),
        np.repeat(hashes, 2, axis=0)[::2],
        frozen,
        unaligned,
        hashes.tolist(),
    ):
        layout = np.asarray(layout, np.uint8) if isinstance(layout, list) else layout
        assert as_set(hamming_pairs(layout, 3)) == expected


def test_types_and_empty_inputs():
    empty, some = np.empty((0, 8), np.uint8), np.zeros((3, 8), np.uint8)
    for pairs in (hamming_pairs(empty, 5), hamming_pairs(empty, 5, some), hamming_pairs(some, 5, empty)):
        assert len(pairs) == 0
    pairs = hamming_pairs(some, 500)
    assert (pairs.a.dtype, pairs.b.dtype, pairs.distance.dtype) == (np.int64, np.int64, np.uint16)
    assert pairs.b.tolist() == [1, 2, 2]
    assert len(dihedral_pairs(np.empty((0, 32), np.uint8), 5)) == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((np.zeros((2, 16), np.uint8), 3), "shape"),
        ((np.zeros(8, np.uint8), 3), "shape"),
        ((np.zeros((2, 8), np.int64), 3), "uint8"),
        ((np.zeros((2, 8), np.uint8), -1), "max_distance"),
        ((np.zeros((2, 8), np.uint8), 3, np.zeros((2, 32), np.uint8)), "bytes a row"),
    ],
)
def test_wrong_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        iter_hamming_pairs(*arguments)


def test_wrong_numbers():
    hashes = np.zeros((2, 8), np.uint8)
    with pytest.raises(ValueError, match="workers"):
        hamming_pairs(hashes, 1, workers=0)
    with pytest.raises(ValueError, match="block_pairs"):
        hamming_pairs(hashes, 1, block_pairs=0)
    with pytest.raises(ValueError, match="32 bytes"):
        dihedral_pairs(hashes, 1)


@given(radius=st.integers(0, 300), parts=st.integers(1, 8), widest=st.integers(1, 24))
def test_plans_satisfy_the_pigeonhole(radius, parts, widest):
    assert sum(r + 1 for r in split_radius(radius, parts)) == radius + 1
    chunks = split_word(0, radius, parts, widest, folded=False)
    assert sum(c.radius + 1 for c in chunks) == radius + 1
    assert all(x.shift + x.width == y.shift for x, y in itertools.pairwise(chunks))
    assert chunks[-1].shift + chunks[-1].width <= 64


def test_plans_grow_with_the_data():
    widths = [make_plan(31, [n], (False,) * 4)[1][0].width for n in (100, 10**4, 10**6)]
    assert widths == sorted(widths)
    assert widths[0] == 0
    assert widths[-1] >= 16


def sums(total, most, parts):
    """All ways to write a number as a sum of so many numbers from `most` downwards, none larger than the one before."""
    if parts == 0:
        return [()] if total == 0 else []
    return [
        (first, *rest) for first in range(min(total, most), 0, -1) for rest in sums(total - first, first, parts - 1)
    ]


def chunks_of(radii, widest):
    """A word cut into chunks of some radii: each bit goes where it saves most candidates."""
    widths = [1] * len(radii)
    while sum(widths) < 64 and min(widths) < widest:
        free = [place for place, width in enumerate(widths) if width < widest]
        widths[max(free, key=lambda place: ball(widths[place], radii[place]) / 2 ** widths[place])] += 1
    return [Chunk(0, 0, width, radius, False) for width, radius in zip(widths, radii, strict=True)]


@pytest.mark.parametrize("rows", [10**6, 3 * 10**6, 10**7, 3 * 10**7, 10**8, 10**9])
@pytest.mark.parametrize("widest", [24, 28])
def test_no_other_split_of_the_radius_costs_less(rows, widest):
    """By the cost model: uneven radii of words or chunks, words left out, and wider keys gain nothing at 31 of 256."""
    cuts = {
        total: [[r - 1 for r in cut] for k in range(1, 8) for cut in sums(total, total, k)] for total in range(1, 17)
    }
    word = {
        total: min(
            sum(cost(chunk, total - 1, rows / 2, rows) for chunk in chunks_of(cut, widest)) for cut in cuts[total]
        )
        for total in cuts
    }
    least = min(sum(word[total] for total in split) for k in range(2, 5) for split in sums(32, 16, k))
    radii, chunks = make_plan(31, [rows], (False,) * 4)
    assert sum(cost(chunk, radii[chunk.word], rows / 2, rows) for chunk in chunks) <= least * (1 + 1e-9)


def test_import_leaves_numba_alone():
    code = "import sys, dedupkit.neighbors.hamming.dihedral; print('numba' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "False"


@given(hashes=arrays(np.uint8, st.tuples(st.integers(0, 30), st.just(32)), elements=st.sampled_from([0, 1, 85, 255])))
@settings(deadline=None, max_examples=30)
def test_comparing_all_with_all_finds_the_same_pairs(hashes):
    from dedupkit.neighbors.hamming.flat import flat_dihedral_pairs

    for radius in (0, 31, 60):
        flat, joined = flat_dihedral_pairs(hashes, radius), dihedral_pairs(hashes, radius)
        assert (flat.a.tolist(), flat.b.tolist()) == (joined.a.tolist(), joined.b.tolist())
        assert flat.distance.tolist() == joined.distance.tolist()


@pytest.mark.parametrize("radius", [0, 31, 60])
def test_two_sets_of_pdq_hashes_are_joined_exactly_in_every_orientation(radius):
    from dedupkit.neighbors.hamming.flat import flat_dihedral_pairs_of_two, orientations

    draw = np.random.default_rng(radius)
    one, other = (draw.integers(0, 256, (count, 32), dtype=np.uint8) for count in (90, 140))
    for row, view in enumerate(orientations(one)[draw.integers(8, size=90), np.arange(90)]):
        changed = np.unpackbits(view)
        changed[draw.choice(256, draw.integers(0, 70), replace=False)] ^= 1
        other[row] = np.packbits(changed)
    i, j = (axis.ravel() for axis in np.meshgrid(np.arange(90), np.arange(140), indexing="ij"))
    distance = dihedral_distance(one[i], other[j])
    near = distance <= radius
    expected = list(zip(i[near], j[near], distance[near], strict=True))
    joins = [turned_pairs_with(chunks, one, radius, other) for chunks in (None, 0, 3)]
    for found in (*joins, flat_dihedral_pairs_of_two(one, other, radius)):
        assert list(zip(found.a, found.b, found.distance, strict=True)) == expected
    assert expected
