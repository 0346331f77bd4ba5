"""Joins of hashes, vectors and sets, against comparing all with all."""

from __future__ import annotations

from pathlib import Path
from random import Random

import numpy as np
import test_cosine
import test_hamming
import test_sets

from dedupkit.neighbors import cosine_pairs, dihedral_distance, dihedral_pairs, hamming_pairs, jaccard_pairs
from hostile.section import Section, Tally


class JoinsSection(Section):
    """Skewed and clustered hashes, vectors with zeros, NaN and equal rows, sets with repeated and negative tokens."""

    name = "joins"
    oracle = "comparing all with all"
    volume = 30_000

    def open(self, folder: Path) -> None:
        """Compile the joins."""
        for join in _JOINS:
            join(Random(0), np.random.default_rng(0))

    def attempt(self, draw: Random, number: int) -> Tally:
        """One join."""
        rng = np.random.default_rng(draw.getrandbits(63))
        draw.choice(_JOINS)(draw, rng)
        return Tally()


def _hashes(draw: Random, rng: np.random.Generator, nbytes: int) -> np.ndarray:
    centres = rng.random((draw.randrange(1, 7), nbytes * 8)) < draw.choice((0.5, 0.1, 0.0))
    bits = centres[rng.integers(0, len(centres), draw.randrange(120))]
    return np.packbits(bits ^ (rng.random(bits.shape) < draw.choice((0.0, 0.03, 0.1, 0.5))), axis=1)


def _hamming(draw: Random, rng: np.random.Generator) -> None:
    nbytes, radius = draw.choice((8, 32)), draw.choice((0, 1, 5, 10, 31, 40, 64, 300))
    a = _hashes(draw, rng, nbytes)
    b = _hashes(draw, rng, nbytes) if draw.random() < 0.5 else None
    found = hamming_pairs(a, radius, b, workers=draw.choice((1, 3)), block_pairs=draw.choice((1, 1 << 20)))
    assert test_hamming.as_set(found) == test_hamming.brute_force(a, b, radius)


def _dihedral(draw: Random, rng: np.random.Generator) -> None:
    a, radius = _hashes(draw, rng, 32), draw.choice((0, 10, 31, 64))
    x, y = np.triu_indices(len(a), 1)
    distance = dihedral_distance(a[x], a[y])
    for i, j, least in list(zip(x, y, distance, strict=True))[:8]:
        written_out = min(int(np.unpackbits(a[i] ^ view).sum()) for view in test_hamming.orientations(a[j]))
        assert least == written_out
    expected = {(int(i), int(j), int(d)) for i, j, d in zip(x, y, distance, strict=True) if d <= radius}
    assert test_hamming.as_set(dihedral_pairs(a, radius, workers=draw.choice((1, 3)))) == expected


def _cosine(draw: Random, rng: np.random.Generator) -> None:
    dims = draw.choice((1, 3, 8, 33))

    def vectors() -> np.ndarray:
        centres = rng.standard_normal((draw.randrange(1, 5), dims))
        rows = centres[rng.integers(0, len(centres), draw.randrange(90))]
        rows = rows + draw.choice((0.0, 0.1, 1.0)) * rng.standard_normal(rows.shape)
        rows *= 10.0 ** rng.integers(-3, 3, (len(rows), 1))
        odd = rng.random(len(rows))
        rows[odd < 0.05] = 0
        rows[odd > 0.97] = np.nan
        return rows.astype(draw.choice((np.float32, np.float16)))

    a, floor = vectors(), draw.choice((-0.5, 0.0, 0.5, 0.9, 0.99, 1.0))
    b = vectors() if draw.random() < 0.5 else None
    found = cosine_pairs(a, floor, b, method="exact", device=None, workers=1)
    test_cosine.check(found, test_cosine.brute_force(a, b, floor), floor)


def _sets(draw: Random, rng: np.random.Generator) -> None:
    def collection() -> list[list[int]]:
        tokens = [draw.choice((n, -n, n * 10**14)) for n in range(draw.randrange(1, 41))]
        rows = [[draw.choice(tokens) for _ in range(draw.randrange(24))] for _ in range(draw.randrange(40))]
        return rows + rows[::3]

    rows, other = collection(), collection() if draw.random() < 0.5 else None
    threshold, flat = draw.choice(test_sets.THRESHOLDS), test_sets.flat
    found = test_sets.found(
        jaccard_pairs(*flat(rows), threshold, None if other is None else flat(other), workers=2,
                      memory=draw.choice((1, 400, 1 << 30)))
    )  # fmt: skip
    expected = test_sets.expected(rows, threshold, other)
    assert found.keys() == expected.keys()
    assert all(abs(found[pair] - score) < 1e-6 for pair, score in expected.items())


_JOINS = (_hamming, _dihedral, _cosine, _sets)
