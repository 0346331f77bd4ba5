"""TorchScript files, such as the published SSCD models (Pizzi et al., 2022, arXiv:2202.10261)."""

from __future__ import annotations

import zipfile
from typing import Any

from dedupkit.embedding.keys import embedder_key, model_file
from dedupkit.embedding.spec import Spec
from dedupkit.embedding.torch_model import TorchEmbedder
from dedupkit.errors import DedupkitError, import_optional

__all__ = ["load"]

_SIDE = 288
"""SSCD's training and evaluation size."""


def load(spec: Spec, device: str | None = None, precision: str | None = None) -> TorchEmbedder:
    """Load ``torchscript:PATH``: normalised float (n, 3, height, width) in, (n, dim) out.

    ``?preprocess=`` takes the names of :class:`~dedupkit.embedding.pixels.Preprocess` (``sscd`` by default: squashed
    to a square, ImageNet's mean and deviation), ``?size=`` the input size (288 by default).

    Raises:
        DedupkitError: no such file, no TorchScript in it, or a model that takes other input.
        MissingExtraError: torch is not installed.
    """
    path = model_file(spec)
    torch = import_optional("torch", "clip")
    try:
        module = torch.jit.load(str(path), map_location="cpu")
    except Exception as error:
        kind = "a checkpoint of weights without a model" if zipfile.is_zipfile(path) else "no TorchScript file"
        raise DedupkitError(
            f"{path} cannot be loaded as TorchScript: it seems to be {kind}; "
            "torch.jit.save writes the kind that is needed, openclip:MODEL/PATH takes checkpoints"
        ) from error
    preprocess = spec.preprocess("sscd", _SIDE, _SIDE)
    key = embedder_key(spec.text)
    return TorchEmbedder(module, _call, preprocess, name=spec.name, key=key, device=device, precision=precision)


def _call(module: Any, images: Any) -> Any:
    return module(images)
