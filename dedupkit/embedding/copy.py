"""``copy``: dedupkit's own copy descriptor, in the package, with nothing to download and no torch.

A uniform frame is taken off, and what was rotated within one is turned upright (:mod:`~dedupkit.embedding.frame`). Then
come an EfficientNet-Lite0 at 160 pixels that sees the luminance, pooled after two of its stages, a projection that was
fitted to bring transformed copies of a photo together and other photos apart, and a histogram of the colours;
docs/copy-descriptor.md is the model card. The file takes plain pixels, (n, 160, 160, 3) uint8, so what happens to them
is in one place.
"""

from __future__ import annotations

from dedupkit.embedding.keys import copy_weights, embedder_key
from dedupkit.embedding.onnx import OnnxEmbedder, open_model
from dedupkit.embedding.spec import Spec

__all__ = ["load"]


def load(spec: Spec, device: str | None = None) -> OnnxEmbedder:
    """Load ``copy``: (n, 160, 160, 3) uint8 in, unit vectors out.

    Raises:
        DedupkitError: The file in the package does not load, or there is no such device.
        MissingExtraError: onnxruntime is not installed.

    Example:
        >>> from dedupkit.embedding import load_embedder
        >>> load_embedder("copy").preprocess(Image.open("a.jpg").convert("RGB")).shape   # doctest: +SKIP
        (160, 160, 3)
    """
    return open_model(copy_weights(), spec, embedder_key(spec.text), device, default="copy", extra="verify")
