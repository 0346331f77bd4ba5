"""ONNX files through onnxruntime: the input's type and shape say how images go in."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dedupkit.embedding.embedder import Pixels, Vectors, unit_rows
from dedupkit.embedding.keys import embedder_key, model_file
from dedupkit.embedding.pixels import Preprocess
from dedupkit.embedding.spec import Spec
from dedupkit.embedding.torch_model import probe_images
from dedupkit.errors import DedupkitError, import_optional

__all__ = ["InputLayout", "OnnxEmbedder", "load", "open_model"]

_SIDE = 288  # where neither the model nor the options say
_TYPES: dict[str, Any] = {"tensor(uint8)": np.uint8, "tensor(float)": np.float32, "tensor(float16)": np.float16}


@dataclass(frozen=True, slots=True)
class InputLayout:
    """What a model's input asks for.

    Attributes:
        name: Name of the input.
        dtype: uint8 takes plain pixels; float32 and float16 take normalised ones.
        channels_last: NHWC, else NCHW.
        height: None where any will do.
        width: None where any will do.
        batch: images a call, None where any number will do.
    """

    name: str
    dtype: type[np.generic]
    channels_last: bool
    height: int | None
    width: int | None
    batch: int | None

    @classmethod
    def of(cls, node: Any, where: str) -> InputLayout:
        """Read an input of onnxruntime: its name, type and shape.

        Raises:
            DedupkitError: it takes no images.
        """
        shape = [size if isinstance(size, int) and size > 0 else None for size in node.shape]
        if node.type not in _TYPES or len(shape) != 4 or 3 not in (shape[1], shape[3]):
            raise DedupkitError(
                f"{where} takes {node.type} {list(node.shape)}; expected images: uint8 or float, "
                "(n, height, width, 3) or (n, 3, height, width)"
            )
        channels_last = shape[3] == 3 and (shape[1] != 3 or _TYPES[node.type] is np.uint8)
        height, width = shape[1:3] if channels_last else shape[2:4]
        return cls(node.name, _TYPES[node.type], channels_last, height, width, shape[0])

    def arrange(self, batch: Pixels, scale: NDArray[np.float32], shift: NDArray[np.float32]) -> NDArray[Any]:
        """(n, height, width, 3) uint8 as the input wants it."""
        values: NDArray[Any] = batch
        if self.dtype is not np.uint8:
            values = (batch * scale + shift).astype(self.dtype, copy=False)
        return np.ascontiguousarray(values if self.channels_last else values.transpose(0, 3, 1, 2))


class OnnxEmbedder:
    """An :class:`~dedupkit.embedding.embedder.Embedder` around an onnxruntime session."""

    def __init__(self, session: Any, layout: InputLayout, preprocess: Preprocess, name: str, key: str) -> None:
        self._session, self._layout, self._preprocess = session, layout, preprocess
        self._scale = (1 / (255 * np.asarray(preprocess.std))).astype(np.float32)
        self._shift = (-np.asarray(preprocess.mean) / np.asarray(preprocess.std)).astype(np.float32)
        self.name, self.key, self.min_side = name, key, preprocess.min_side
        self.device = "cuda" if "CUDAExecutionProvider" in session.get_providers() else "cpu"
        self.precision = "float16" if layout.dtype is np.float16 else "float32"
        self.dim = self.encode(probe_images(preprocess.height, preprocess.width, count=2)).shape[1]

    def preprocess(self, image: Image.Image) -> Pixels:
        """One RGB image at the model's input size; see the protocol."""
        return self._preprocess(image)

    def encode(self, batch: Pixels) -> Vectors:
        """Embed a batch; see the protocol."""
        step = self._layout.batch or len(batch)
        return np.concatenate([self._run(batch[start : start + step], step) for start in range(0, len(batch), step)])

    def _run(self, batch: Pixels, step: int) -> Vectors:
        count = len(batch)
        if self._layout.batch and count < step:  # a model of fixed batch size: the rest is filled up
            batch = np.concatenate([batch, np.repeat(batch[-1:], step - count, axis=0)])
        values = self._layout.arrange(batch, self._scale, self._shift)
        output = np.asarray(self._session.run(None, {self._layout.name: values})[0], np.float32)
        rows = output.reshape(len(output), -1) if output.ndim in (2, 4) else output
        if rows.ndim != 2 or len(rows) != len(batch):
            raise DedupkitError(f"the first output of {self.name} has the shape {output.shape}, not a vector an image")
        return unit_rows(rows[:count])


def load(spec: Spec, device: str | None = None) -> OnnxEmbedder:
    """Load ``onnx:PATH``.

    uint8 inputs get plain pixels. Float inputs get what ``?preprocess=`` names (``sscd`` by default: squashed,
    ImageNet's mean and deviation). The size is the input's, else ``?size=``, else 288.

    Raises:
        DedupkitError: no such file, not ONNX, or a model that takes no images.
        MissingExtraError: onnxruntime is not installed.
    """
    return open_model(model_file(spec), spec, embedder_key(spec.text), device)


def open_model(
    path: Path, spec: Spec, key: str, device: str | None = None, *, default: str = "sscd", extra: str = "onnx"
) -> OnnxEmbedder:
    """An ONNX file as an embedder.

    Args:
        path: The file.
        spec: What named it; its options say the preprocessing and the size.
        key: Fingerprint of the embedder.
        device: As for :func:`load`.
        default: Preprocessing where the specification names none.
        extra: Extra that brings onnxruntime.

    Raises:
        DedupkitError: As for :func:`load`.
        MissingExtraError: onnxruntime is not installed.
    """
    runtime = import_optional("onnxruntime", extra)
    options = runtime.SessionOptions()
    options.intra_op_num_threads = _threads(os.environ.get("OMP_NUM_THREADS", ""))  # as the workers ask every library
    options.log_severity_level = 3
    if not _adds_bytes():
        options.add_session_config_entry("session.x64quantprecision", "1")
    available = runtime.get_available_providers()
    providers: list[Any] = ["CPUExecutionProvider"]
    gpu = re.fullmatch(r"cuda(?::(\d+))?", device or "cuda")
    if gpu and "CUDAExecutionProvider" in available:
        providers.insert(0, ("CUDAExecutionProvider", {"device_id": int(gpu[1] or 0)}))
    elif device not in (None, "cpu"):
        raise DedupkitError(f"device {device!r} cannot be used for {spec.text!r}: this onnxruntime runs on {available}")
    try:
        session = runtime.InferenceSession(str(path), options, providers=providers)
    except Exception as error:
        raise DedupkitError(f"{path} cannot be loaded as ONNX ({str(error).strip().splitlines()[0][:200]})") from error
    layout = InputLayout.of(session.get_inputs()[0], str(path))
    preprocess = spec.preprocess(default, layout.height or _SIDE, layout.width or _SIDE)
    size = preprocess.height, preprocess.width
    if (layout.height or size[0], layout.width or size[1]) != size:
        raise DedupkitError(
            f"{path} takes {layout.height}x{layout.width} pixels only; leave out ?size= in {spec.text!r}"
        )
    try:
        return OnnxEmbedder(session, layout, preprocess, spec.name, key)
    except DedupkitError:
        raise
    except Exception as error:
        raise DedupkitError(
            f"{path} fails on images of {preprocess.height}x{preprocess.width} pixels "
            f"({str(error).strip().splitlines()[0][:200]}); name the size that it takes, e.g. ?size=224"
        ) from error


def _threads(asked: str) -> int:
    """The number of threads that ``OMP_NUM_THREADS`` states; 0 where it states none.

    >>> _threads("4"), _threads("4,2"), _threads("")
    (4, 4, 0)
    """
    first = asked.partition(",")[0].strip()
    return int(first) if first.isdecimal() else 0


def _adds_bytes() -> bool:
    """Whether this processor adds products of 8-bit numbers in 32 bits.

    Where it does not, onnxruntime adds two of them in 16 bits, which overflows for some weights, unless it is asked for
    slower products that do not. Processors other than x86 have none of this and ignore the request.
    """
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    return "avx512_vnni" in flags or "avx_vnni" in flags
