"""MinHash signatures, bit for bit those of the datasketch package, a hundred times as fast.

Source: Broder, "On the resemblance and containment of documents" (1997); the permutations are datasketch's, version 2:
``affine32``, its default, and ``legacy``, that of versions before 2.0.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dedupkit.startup.cores import worker_count

__all__ = ["from_datasketch", "minhash_signatures", "permutations", "sha1_hashes", "to_datasketch"]

_MERSENNE = (1 << 61) - 1
_ROWS_A_TASK = 1 << 14
SCHEMES = ("affine32", "legacy")


def sha1_hashes(words: Iterable[str | bytes]) -> NDArray[np.uint32]:
    """The 32-bit hashes of words that datasketch uses by default: the first four bytes of SHA-1, little-endian.

    Example:
        >>> sha1_hashes(["fox"]).tolist()
        [2332692479]
    """
    coded = (word.encode("utf-8", "surrogatepass") if isinstance(word, str) else word for word in words)
    first = b"".join(hashlib.sha1(word, usedforsecurity=False).digest()[:4] for word in coded)
    return np.frombuffer(first, "<u4").astype(np.uint32)


def permutations(count: int, seed: int, scheme: str = "affine32") -> tuple[NDArray[Any], NDArray[Any]]:
    """The factors and summands of datasketch's permutations, (count,) uint32 each, or uint64 for ``legacy``."""
    generator = np.random.RandomState(seed)
    if scheme == "legacy":
        drawn = [(generator.randint(1, _MERSENNE, dtype=np.uint64), generator.randint(0, _MERSENNE, dtype=np.uint64))
                 for _ in range(count)]  # fmt: skip
        return np.array([a for a, _ in drawn], np.uint64), np.array([b for _, b in drawn], np.uint64)
    if scheme != "affine32":
        raise ValueError(f"scheme must be one of {SCHEMES}, not {scheme!r}")
    factors = generator.randint(0, 1 << 31, count, dtype=np.uint32) * np.uint32(2) + np.uint32(1)
    return factors, generator.randint(0, 1 << 32, count, dtype=np.uint32)


def minhash_signatures(
    offsets: NDArray[np.integer],
    hashes: NDArray[np.uint32],
    *,
    num_perm: int = 128,
    seed: int = 1,
    scheme: str = "affine32",
    workers: int | None = None,
) -> NDArray[np.uint32]:
    """MinHash signatures of sets.

    Args:
        offsets: (n + 1,) integers; set i holds ``hashes[offsets[i]:offsets[i + 1]]``.
        hashes: (t,) uint32, the hash of each token (:func:`sha1_hashes` for datasketch's).
        num_perm: number of permutations.
        seed: Seed for the permutations, as datasketch's.
        scheme: ``affine32`` or ``legacy``.
        workers: number of threads, at least 1; by default one for each core that this process may use.

    Returns:
        (n, num_perm) uint32: ``MinHash(num_perm, seed, scheme=scheme).hashvalues`` of each set.

    Raises:
        ValueError: an unknown scheme.

    Example:
        >>> import datasketch
        >>> words = ["a", "red", "fox"]
        >>> ours = minhash_signatures(np.array([0, 3]), sha1_hashes(words), num_perm=8)
        >>> theirs = datasketch.MinHash(8)
        >>> theirs.update_batch([word.encode() for word in words])
        >>> bool((ours[0] == theirs.hashvalues).all())
        True
    """
    from dedupkit.neighbors.sets import minhash_kernels as kernels

    width = -(-num_perm // kernels.LANES) * kernels.LANES
    a, b = (np.pad(numbers, (0, width - num_perm)) for numbers in permutations(num_perm, seed, scheme))
    kernel = kernels.minhash_legacy if scheme == "legacy" else kernels.minhash_affine32
    starts = np.ascontiguousarray(offsets, np.int64)
    values = np.ascontiguousarray(hashes, np.uint32)
    rows = len(starts) - 1
    out = np.full(rows * width, 2**32 - 1, np.uint32)

    def fill(first: int) -> None:
        kernel(starts, values, a, b, first, min(first + _ROWS_A_TASK, rows), out)

    with ThreadPoolExecutor(worker_count(workers, least=1)) as pool:
        list(pool.map(fill, range(0, rows, _ROWS_A_TASK)))
    return out.reshape(rows, width)[:, :num_perm]


def to_datasketch(signatures: NDArray[np.uint32], *, seed: int = 1, scheme: str = "affine32") -> list[Any]:
    """Signatures as datasketch's ``MinHash`` objects, e.g. for its LSH index.

    Args:
        signatures: (n, num_perm) uint32.
        seed: Seed they were made with.
        scheme: scheme they were made with.
    """
    from datasketch import MinHash

    kind = np.uint64 if scheme == "legacy" else np.uint32
    shared = MinHash(signatures.shape[1], seed=seed, scheme=scheme).permutations
    return [MinHash(seed=seed, hashvalues=row.astype(kind), permutations=shared, scheme=scheme) for row in signatures]


def from_datasketch(minhashes: Sequence[Any]) -> NDArray[np.uint32]:
    """The signatures of datasketch's ``MinHash`` objects, (n, num_perm) uint32.

    Raises:
        ValueError: none, or objects of different seeds, schemes or numbers of permutations.
    """
    made = {(minhash.seed, minhash.scheme, len(minhash.hashvalues)) for minhash in minhashes}
    if len(made) != 1:
        raise ValueError("the signatures must be some, of one seed, scheme and number of permutations")
    if next(iter(made))[1] not in SCHEMES:
        raise ValueError(f"scheme must be one of {SCHEMES}, not {next(iter(made))[1]!r}")
    return np.array([minhash.hashvalues for minhash in minhashes]).astype(np.uint32)
