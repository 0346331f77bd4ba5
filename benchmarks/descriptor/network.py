"""The network of the copy descriptor in torch, and how it becomes the file that the package holds.

Most of its convolutions are computed in 8 bits (static quantisation of onnxruntime: a scale for each output channel of
a weight, a scale and a zero point for each activation). The sums are of whole numbers, so neither the number of images
in a batch nor that of threads changes them. The first convolution and the first stage stay in float32: half of what
8 bits lose is lost there, and little time is saved.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import timm
import torch
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static
from torch import nn

from dedupkit.embedding.keys import lite_weights

SIDE = 160
"""Pixels of a side of the input."""

POWER = 3.0
"""Of the generalised mean (Radenović et al. 2018)."""

LUMINANCE = (0.299, 0.587, 0.114)
"""Of red, green and blue, as in JPEG."""

MIDDLE, WEIGHT = 4, 2.0
"""Stage whose widest maps are kept too, counted from 0, and the weight of what is kept of them beside the last maps."""

CELL = 8
"""Pixels of a side of the cells whose colours are averaged."""

RINGS = ((0.02, 0.06), (0.05, 0.12), (0.10, 0.40))
"""Bounds of the rings of chroma, where 0 is grey and 0.5 the most that a pixel has."""

HUES = 12
"""Directions of a ring."""

BATCH = 16
"""Images of a call while the ranges of activations are measured."""

_QUANTISED = ("Conv", "Clip", "Add")
_FLOAT = ("/conv_stem/", "/features/bn1/", "/blocks.0/", "/colours/")


def backbone() -> nn.Module:
    """EfficientNet-Lite0 with the weights of its Python package, without the classifier."""
    module = timm.create_model("tf_efficientnet_lite0", pretrained=False, num_classes=0)
    stored = torch.load(lite_weights(), map_location="cpu", weights_only=True)
    values = [value for name, value in stored.items() if not name.startswith("_fc.")]
    module.load_state_dict(dict(zip(module.state_dict(), values, strict=True)))
    return module.eval()


class Features(nn.Module):
    """(n, side, side, 3) pixels to features of their luminance, (n, 3296), and to their colours, (n, 36).

    The network sees luminance alone: a copy that was turned grey has the features of its original. The generalised
    means of the 1,280 last maps tell what is shown. Mean, deviation and generalised mean of 672 maps in the middle tell
    how it looks: two streets are alike in the former only. Roots are taken, so that no map counts for too much.
    """

    def __init__(self) -> None:
        super().__init__()
        self.features = backbone()
        stem = self.features.conv_stem
        stem.weight = nn.Parameter(stem.weight.sum(1, keepdim=True))  # its three channels would be alike
        self.register_buffer("luminance", torch.tensor(LUMINANCE).reshape(3, 1))
        self.colours = Colours()

    def forward(self, pixels: Any) -> Any:
        """Pixels of 0 to 255, uint8 or float."""
        net, pixels = self.features, pixels.float()
        maps = net.bn1(net.conv_stem((pixels @ self.luminance).permute(0, 3, 1, 2) / 127.5 - 1))
        for number, stage in enumerate(net.blocks):
            if number == MIDDLE:
                maps = stage[:-1](maps)
                block = stage[-1]
                wide = block.bn2(block.conv_dw(block.bn1(block.conv_pw(maps))))
                maps = maps + block.bn3(block.conv_pwl(wide))
            else:
                maps = stage(maps)
        last = generalised_mean(net.bn2(net.conv_head(maps)))
        return torch.cat([rooted(last), WEIGHT * rooted(statistics(wide))], 1), self.colours(pixels)


class Colours(nn.Module):
    """(n, side, side, 3) pixels to the roots of the shares of the picture that have a colour, (n, 36).

    A colour is a ring of chroma and a direction of hue, with soft bounds. Grey has none, so that a copy turned grey is
    as far from its original as the picture is colourful, and no farther.
    """

    def __init__(self) -> None:
        super().__init__()
        angle = torch.arange(HUES) * (2 * math.pi / HUES)
        self.register_buffer("across", torch.cos(angle).reshape(1, HUES, 1, 1))
        self.register_buffer("up", torch.sin(angle).reshape(1, HUES, 1, 1))

    def forward(self, pixels: Any) -> Any:
        """Pixels of 0 to 255, float."""
        cells = nn.functional.avg_pool2d(pixels.permute(0, 3, 1, 2), CELL) / 255
        red, green, blue = cells[:, 0:1], cells[:, 1:2], cells[:, 2:3]
        luminance = LUMINANCE[0] * red + LUMINANCE[1] * green + LUMINANCE[2] * blue
        across, up = 0.564 * (blue - luminance), 0.713 * (red - luminance)  # Cb and Cr of JPEG
        chroma = (across * across + up * up).sqrt()
        like = (across * self.across + up * self.up).relu() / (chroma + 1e-6)
        like = like * like
        hue = like * like * like
        shares = []
        for low, high in RINGS:
            ring = ((chroma - low) / low).clamp(0, 1) * ((high - chroma) / (high - low) * 2).clamp(0, 1)
            shares.append((ring * hue).mean((2, 3)))
        return torch.cat(shares, 1).sqrt()


def rooted(values: Any) -> Any:
    """The roots of values that are not negative, in rows of unit length."""
    roots = values.clamp(min=0).sqrt()
    return roots / roots.norm(dim=1, keepdim=True)


def generalised_mean(maps: Any) -> Any:
    """The generalised mean of each map's absolute values, (n, maps)."""
    return maps.abs().pow(POWER).mean((2, 3)).pow(1 / POWER)


def statistics(maps: Any) -> Any:
    """The mean, the deviation and the generalised mean of each map, (n, 3 * maps)."""
    mean = maps.mean((2, 3))
    deviation = (maps.pow(2).mean((2, 3)) - mean.pow(2)).relu().sqrt()
    return torch.cat([mean, deviation, generalised_mean(maps)], 1)


def quantised(pixels: np.ndarray) -> onnx.ModelProto:
    """The features as ONNX in 8 bits, and the colours.

    Args:
        pixels: (n, side, side, 3) uint8, photos that the ranges of the activations are measured on.
    """
    with tempfile.TemporaryDirectory() as folder:
        plain, short = Path(folder, "plain.onnx"), Path(folder, "short.onnx")
        model = exported(folder)
        onnx.save(model, plain)
        kept = [node.name for node in model.graph.node if any(part in node.name for part in _FLOAT)]
        quantize_static(
            plain,
            short,
            _Photos(pixels),
            op_types_to_quantize=list(_QUANTISED),
            nodes_to_exclude=kept,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )
        return onnx.load(short)


class _Photos(CalibrationDataReader):
    """Photos in batches, as the calibration of onnxruntime asks for them."""

    def __init__(self, pixels: np.ndarray) -> None:
        self._batches: Iterator[np.ndarray] = iter(
            pixels[start : start + BATCH] for start in range(0, len(pixels), BATCH)
        )

    def get_next(self) -> dict[str, np.ndarray] | None:
        """The next batch."""
        batch = next(self._batches, None)
        return None if batch is None else {"pixels": batch}


def exported(folder: str) -> onnx.ModelProto:
    """The features and the colours as ONNX in float32, for any number of images.

    The padding of TensorFlow's convolutions depends on the size of the image, which is known here: it becomes an
    attribute of the convolutions, and costs nothing.
    """
    raw, folded = Path(folder, "raw.onnx"), Path(folder, "folded.onnx")
    pixels = torch.zeros((1, SIDE, SIDE, 3), dtype=torch.uint8)
    names = {"input_names": ["pixels"], "output_names": ["features", "colours"]}
    torch.onnx.export(Features().eval(), (pixels,), str(raw), dynamo=False, opset_version=17, **names)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(folded)
    onnxruntime.InferenceSession(str(raw), options, providers=["CPUExecutionProvider"])
    model = onnx.load(folded)
    graph = model.graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    pads = {node.output[0]: node for node in graph.node if node.op_type == "Pad"}
    for node in graph.node:
        if node.op_type == "Conv" and node.input[0] in pads:
            pad = pads[node.input[0]]
            _, _, top, left, _, _, bottom, right = numpy_helper.to_array(constants[pad.input[1]]).tolist()
            attributes = [item for item in node.attribute if item.name not in ("pads", "auto_pad")]
            del node.attribute[:]
            node.attribute.extend([*attributes, helper.make_attribute("pads", [top, left, bottom, right])])
            node.input[0] = pad.input[0]
            graph.node.remove(pad)
    for value in (*graph.input, *graph.output):
        value.type.tensor_type.shape.dim[0].Clear()
        value.type.tensor_type.shape.dim[0].dim_param = "n"
    del graph.value_info[:]
    return model


def with_head(model: onnx.ModelProto, matrix: np.ndarray, weight: float) -> onnx.ModelProto:
    """The descriptor: a projection of the features in unit length, the colours behind it, and unit length.

    Args:
        model: What :func:`quantised` gave.
        matrix: (features, dim) float32. It is stored in 8 bits and a scale for each column, and turned back when the
            file is opened.
        weight: What the colours are multiplied by.
    """
    made = onnx.ModelProto()
    made.CopyFrom(model)
    graph = made.graph
    scale = (np.abs(matrix).max(axis=0, keepdims=True) / 127).astype(np.float32)
    codes = np.round(matrix / scale).astype(np.int8)
    graph.initializer.extend(
        [
            numpy_helper.from_array(codes, "head.codes"),
            numpy_helper.from_array(scale, "head.scale"),
            numpy_helper.from_array(np.float32(weight), "head.weight"),
        ]
    )
    features, colours = (value.name for value in graph.output)
    dim = matrix.shape[1] + graph.output[1].type.tensor_type.shape.dim[1].dim_value
    graph.node.extend(
        [
            helper.make_node("Cast", ["head.codes"], ["head.float"], to=TensorProto.FLOAT),
            helper.make_node("Mul", ["head.float", "head.scale"], ["head"]),
            helper.make_node("MatMul", [features, "head"], ["projected"]),
            helper.make_node("LpNormalization", ["projected"], ["looks"], axis=1, p=2),
            helper.make_node("Mul", [colours, "head.weight"], ["weighted"]),
            helper.make_node("Concat", ["looks", "weighted"], ["joined"], axis=1),
            helper.make_node("LpNormalization", ["joined"], ["vectors"], axis=1, p=2),
        ]
    )
    del graph.output[:]
    graph.output.append(helper.make_tensor_value_info("vectors", TensorProto.FLOAT, ["n", dim]))
    made.doc_string = "Copy descriptor of dedupkit; docs/copy-descriptor.md says what it was made from."
    onnx.checker.check_model(made)
    return made


class Session:
    """The first output of a model as a function of pixels, (n, side, side, 3) uint8 to float32."""

    def __init__(self, model: onnx.ModelProto) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )

    def __call__(self, pixels: np.ndarray) -> np.ndarray:
        """Compute."""
        values: np.ndarray = self._session.run(None, {"pixels": pixels})[0]
        return values
