"""Hashes of images: exact (stored bytes, decoded pixels) and perceptual (PDQ, pHash, dHash, aHash, wHash)."""

from dedupkit.hashing.exact import pixel_hash, stored_hash
from dedupkit.hashing.pdq import pdq, pdq_dihedral
from dedupkit.hashing.perceptual import ahash, dhash, perceptual_hash, perceptual_hashes, phash, whash

__all__ = [
    "ahash", "dhash", "pdq", "pdq_dihedral", "perceptual_hash", "perceptual_hashes", "phash", "pixel_hash",
    "stored_hash", "whash",
]  # fmt: skip
