"""The network of the copy descriptor in torch, and how it becomes the file that the package holds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import timm
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from dedupkit.embedding.keys import lite_weights

SIDE = 160
"""Pixels of a side of the input."""

POWER = 3.0
"""Of the generalised mean (Radenović et al. 2018)."""

STAGES: tuple[int, ...] = ()
"""Stages of the backbone whose maps are pooled, beside the 1,280 maps at its end."""


def backbone() -> nn.Module:
    """EfficientNet-Lite0 with the weights of its Python package, without the classifier."""
    module = timm.create_model("tf_efficientnet_lite0", pretrained=False, num_classes=0)
    stored = torch.load(lite_weights(), map_location="cpu", weights_only=True)
    values = [value for name, value in stored.items() if not name.startswith("_fc.")]
    module.load_state_dict(dict(zip(module.state_dict(), values, strict=True)))
    return module.eval()


class Features(nn.Module):
    """(n, side, side, 3) pixels to the means and generalised means of the maps of several stages, (n, width)."""

    def __init__(self, stages: tuple[int, ...] = STAGES) -> None:
        super().__init__()
        self.net, self.stages = backbone(), stages

    def forward(self, pixels: Any) -> Any:
        """Pixels of 0 to 255, uint8 or float."""
        maps = self.net.bn1(self.net.conv_stem(pixels.float().permute(0, 3, 1, 2) / 127.5 - 1))
        pooled = []
        for number, block in enumerate(self.net.blocks):
            maps = block(maps)
            if number in self.stages:
                pooled += pool(maps)
        return torch.cat(pooled + pool(self.net.bn2(self.net.conv_head(maps))), 1)


def pool(maps: Any) -> list[Any]:
    """The mean and the generalised mean of the magnitudes of each map."""
    return [maps.mean((2, 3)), maps.abs().clamp(min=1e-6).pow(POWER).mean((2, 3)).pow(1 / POWER)]


class Descriptor(nn.Module):
    """Features, and a projection of them to a vector of unit length."""

    def __init__(self, features: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.features, self.head = features, head

    def forward(self, pixels: Any) -> Any:
        """(n, side, side, 3) to (n, dim)."""
        return nn.functional.normalize(self.head(self.features(pixels)))


def write(module: nn.Module, path: Path, side: int = SIDE) -> None:
    """Write the descriptor as ONNX: uint8 pixels in, vectors out, weights in 8 bits or in 16.

    onnxruntime turns the weights back when it opens the file, so it computes in float32 and is as fast as with them.
    """
    pixels = torch.zeros((2, side, side, 3), dtype=torch.uint8)
    names = {"input_names": ["pixels"], "output_names": ["vectors"]}
    axes = {"pixels": {0: "n"}, "vectors": {0: "n"}}
    torch.onnx.export(module.eval(), (pixels,), str(path), dynamic_axes=axes, dynamo=False, opset_version=17, **names)
    model = onnx.load(str(path))
    graph = model.graph
    nodes, kept = [], []
    for tensor in graph.initializer:
        values = numpy_helper.to_array(tensor)
        if values.dtype != np.float32 or values.size < 4096:
            kept.append(tensor)
            continue
        made, added = _short(tensor.name, values)
        kept += made
        nodes += added
    del graph.initializer[:]
    graph.initializer.extend(kept)
    for node in reversed(nodes):
        graph.node.insert(0, node)
    model.doc_string = "Copy descriptor of dedupkit; docs/copy-descriptor.md says what it was made from."
    onnx.checker.check_model(model)
    onnx.save(model, str(path))


def _short(name: str, values: np.ndarray) -> tuple[list[Any], list[Any]]:
    """A weight in fewer bits: its tensors, and the nodes that turn it back.

    Matrices, which are most of the weights, take 8 bits and a scale for each output; kernels with an extent, which are
    few and lose more, take 16.
    """
    if values.ndim == 4 and values.shape[2:] != (1, 1):
        half = numpy_helper.from_array(values.astype(np.float16), f"{name}.half")
        return [half], [helper.make_node("Cast", [half.name], [name], to=TensorProto.FLOAT)]
    axis = tuple(range(1, values.ndim))
    scale = np.abs(values).max(axis=axis, keepdims=True) / 127
    scale = np.where(scale > 0, scale, 1).astype(np.float32)
    codes = np.round(values / scale).astype(np.int8)
    tensors = [numpy_helper.from_array(codes, f"{name}.codes"), numpy_helper.from_array(scale, f"{name}.scale")]
    nodes = [
        helper.make_node("Cast", [f"{name}.codes"], [f"{name}.float"], to=TensorProto.FLOAT),
        helper.make_node("Mul", [f"{name}.float", f"{name}.scale"], [name]),
    ]
    return tensors, nodes
