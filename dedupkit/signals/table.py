"""The signals that a rule can name."""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["HASHES", "MIN_PDQ_QUALITY", "SIGNALS", "is_hash", "signal_kinds"]

HASHES = (
    "pixels",
    "crops",
    *(f"{kind}{definition}" for definition in ("", "_imagededup") for kind in ("phash", "dhash", "ahash", "whash")),
)
"""The hashes that the scan computes on request, beside SHA-256 and PDQ; a rule that names one requests it."""

MIN_PDQ_QUALITY = 50
"""PDQ hashes of lower quality say too little (flat images) and match nothing; the bound is PDQ's own."""

SIGNALS: dict[str, str] = {
    "exact": "identity",
    "pixels": "identity",
    "verified": "identity",
    "pdq": "distance",
    **dict.fromkeys((name for name in HASHES if name != "pixels"), "distance"),
}
"""What each signal is: an identity, a Hamming distance, or (embedders, see ``signal_kinds``) a similarity."""


def signal_kinds(embedders: Iterable[str]) -> dict[str, str]:
    """The signals that a rule over these embedders can name, as ``parse_rule`` takes them."""
    return {**SIGNALS, **dict.fromkeys(embedders, "similarity")}


def is_hash(signal: str) -> bool:
    """Whether the signal is a Hamming distance between hashes that the scan computes."""
    return SIGNALS.get(signal) == "distance"
