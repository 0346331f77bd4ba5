"""What the samples of a run are compared with beside one another: earlier runs and reference sets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

__all__ = ["Reference"]

_ROLES = ("earlier", "against")
_KINDS = ("run", "images", "list")


@dataclass(frozen=True, slots=True)
class Reference:
    """An earlier run or a reference set, as ``run.json`` names it.

    Attributes:
        role: ``earlier``: its samples are kept and stand for duplicates among the run's; ``against``: the run's
            samples that duplicate it are blocked.
        kind: ``run`` (a run folder), ``images`` (shards or folders of images) or ``list`` (hashes, URLs, domains).
        name: How ``kept_source`` and ``reason`` of the manifest name it: as the user did.
        path: Where it lies; for ``list`` the file.
        digest: Digest of what it holds; empty for images, whose markers have it.
        reads: What the lines of a list are read as, empty for all that they can be.
    """

    role: str
    kind: str
    name: str
    path: str
    digest: str = ""
    reads: str = ""

    def to_json(self) -> dict[str, str]:
        """As it stands in ``run.json``."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Reference:
        """Read what :meth:`to_json` gives.

        Raises:
            ValueError: It is something else.

        >>> reference = Reference("against", "list", "hashes.txt", "hashes.txt")
        >>> Reference.from_json(reference.to_json()) == reference
        True
        """
        if not all(isinstance(text, str) for text in value.values()):
            raise ValueError("a reference is made of texts")
        found = cls(**value)
        if found.role not in _ROLES or found.kind not in _KINDS:
            raise ValueError(f"no reference of role {found.role!r} and kind {found.kind!r}")
        return found
