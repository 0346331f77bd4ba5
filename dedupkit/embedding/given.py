"""Embedders as a run takes them: by specification, as an object, or as an array with identifiers."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

import numpy as np
from numpy.typing import NDArray

from dedupkit.embedding.embedder import Embedder
from dedupkit.embedding.precomputed import Precomputed
from dedupkit.embedding.spec import check_name, embedder_name
from dedupkit.embedding.vectors import IDENTIFIERS, ArrayPart
from dedupkit.errors import DedupkitError

__all__ = ["ArrayWithIds", "Given", "as_given", "listed"]

ArrayWithIds = tuple[NDArray[Any], Sequence[str | int] | Mapping[str, Sequence[str | int | None]]]
"""Vectors (n, d) and the keys of their samples; or a mapping with ``key``, ``uid`` or ``url``, (n,) each."""

_ARRAY_NAME = "vectors"


@dataclass(frozen=True, slots=True, eq=False)
class Given:
    """An embedder of a run.

    Attributes:
        name: Name of the signal.
        spec: Specification; for an object one that names it and its key, so that its vectors are known again.
        source: The object, where one was given.
    """

    name: str
    spec: str
    source: Embedder | Precomputed | None = None


def listed(embed: Any) -> list[Any]:
    """One embedder or a sequence of them as a list."""
    one = isinstance(embed, str | Precomputed | Embedder) or _is_array_with_ids(embed)
    return [embed] if one else list(embed)


def as_given(embed: str | Embedder | Precomputed | ArrayWithIds) -> Given:
    """Take what a user names an embedder by.

    Raises:
        DedupkitError: An unknown form, an object without a usable name, or an array that its identifiers do not fit.
    """
    if isinstance(embed, str):
        return Given(embedder_name(embed), embed)
    if _is_array_with_ids(embed):
        embed = _precomputed(*embed)  # type: ignore[misc]
    if not isinstance(embed, Embedder | Precomputed):
        raise DedupkitError(
            f"a {type(embed).__name__} is no embedder; give a specification such as 'lite', an object with the methods "
            "of dedupkit.embedding.Embedder, or (vectors, keys)"
        )
    check_name(embed.name, f"{type(embed).__name__}.name")
    return Given(embed.name, f"python:{embed.name}?{urlencode({'key': embed.key})}", embed)


def _is_array_with_ids(embed: Any) -> bool:
    return isinstance(embed, tuple) and len(embed) == 2 and isinstance(embed[0], np.ndarray)


def _precomputed(
    vectors: NDArray[Any], ids: Sequence[str | int] | Mapping[str, Sequence[str | int | None]]
) -> Precomputed:
    given = ids if isinstance(ids, Mapping) else {"key": ids}
    names = {kind: [_as_text(value) for value in values] for kind, values in given.items()}
    if vectors.ndim != 2 or not vectors.shape[1] or vectors.dtype.kind != "f":
        raise DedupkitError(f"vectors must be floating-point (n, d), not {vectors.dtype} {vectors.shape}")
    if not names or not set(names) <= set(IDENTIFIERS):
        raise DedupkitError(f"identifiers must be among {', '.join(IDENTIFIERS)}, not {', '.join(map(str, names))}")
    digest = hashlib.sha256(f"{vectors.dtype} {vectors.shape} {names}".encode())
    digest.update(np.ascontiguousarray(vectors).data)
    return Precomputed([ArrayPart(vectors, names)], [], _ARRAY_NAME, digest.hexdigest()[:16])


def _as_text(value: Any) -> str | None:
    """An identifier as samples have it: numbers as text."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, int | np.integer):
        return str(value)
    raise DedupkitError(f"an identifier is text or a whole number, not {value!r} of the type {type(value).__name__}")
