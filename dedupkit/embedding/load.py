"""Embedders loaded by their specification."""

from __future__ import annotations

import importlib
from functools import lru_cache

from dedupkit.embedding.embedder import Embedder
from dedupkit.embedding.keys import embedder_key, projection_file
from dedupkit.embedding.projected import Projected, check_model
from dedupkit.embedding.projection import load_projection
from dedupkit.embedding.spec import parse_spec
from dedupkit.errors import DedupkitError

__all__ = ["load_embedder", "shared_embedder"]


def load_embedder(spec: str, *, device: str | None = None) -> Embedder:
    """Load the embedder that a specification names.

    Args:
        spec: one of :data:`FORMS`, except ``precomputed``.
        device: ``cpu``, ``cuda``, ``cuda:1``, …; a GPU where there is one by default.

    Raises:
        DedupkitError: unknown form, weights that cannot be had or do not fit the model.
        MissingExtraError: a package is missing; the message names the extra.
    """
    parsed = parse_spec(spec)
    if parsed.scheme == "precomputed":
        raise DedupkitError(f"{spec!r} names vectors, not a model; read it with dedupkit.embedding.load_precomputed")
    if parsed.scheme == "python":
        raise DedupkitError(
            f"the embedder {parsed.name!r} was given as an object of Python; give it again: dedup(…, embed=embedder)"
        )
    if parsed.options.get("project"):
        key, path = embedder_key(spec), projection_file(parsed)
        base, projection = load_embedder(parsed.projected(None), device=device), load_projection(path)
        check_model(projection, base.key, base.dim, base.name, path)
        return Projected(base, projection, key)
    module = importlib.import_module(f"dedupkit.embedding.{parsed.scheme}")
    embedder: Embedder = module.load(parsed, device)
    return embedder


def shared_embedder(spec: str, device: str | None = None, *, key: str | None = None) -> Embedder:
    """:func:`load_embedder`, once for a process: tasks that follow one another use the same model.

    Args:
        spec: As for :func:`load_embedder`.
        device: As for :func:`load_embedder`.
        key: What :func:`~dedupkit.embedding.keys.embedder_key` says of the specification; by default it is asked. A
            model whose files were replaced is loaded anew.
    """
    return _loaded(spec, device, key or embedder_key(spec))


@lru_cache(maxsize=2)
def _loaded(spec: str, device: str | None, _key: str) -> Embedder:
    return load_embedder(spec, device=device)
