"""What the torch embedders share: the device, the number format, and the way from bytes to unit vectors."""

from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from dedupkit.embedding.embedder import Pixels, Vectors, unit_rows
from dedupkit.embedding.pixels import Preprocess
from dedupkit.errors import DedupkitError, import_optional
from dedupkit.startup.memory import keep_freed_memory

__all__ = ["MIN_AGREEMENT", "TorchEmbedder", "has_bfloat16_units", "pick_device", "probe_images"]

MIN_AGREEMENT = 0.999
"""Least cosine to float32 at which a shorter number format is used."""

Forward = Callable[[Any, Any], Any]
"""The model and a normalised (n, 3, height, width) tensor to its output."""


class TorchEmbedder:
    """An :class:`~dedupkit.embedding.embedder.Embedder` around a torch module.

    The module runs in half precision under autocast on a GPU, in bfloat16 on a CPU with matrix units for it, and in
    float32 elsewhere. At load, the shorter format must agree with float32 on a few images
    (:data:`MIN_AGREEMENT`), or float32 it is.

    Args:
        module: Model in evaluation mode, float32, on the CPU.
        forward: calls it.
        preprocess: its input.
        name: Name of the signal.
        key: fingerprint.
        device: ``cpu``, ``cuda``, …; a GPU where there is one by default.
        precision: ``float32`` or ``bfloat16`` instead of what suits the device.
        extra: the extra that brings torch, for error messages.

    Raises:
        DedupkitError: no such device, or the module does not take such images or give one finite vector for each.
    """

    def __init__(
        self,
        module: Any,
        forward: Forward,
        preprocess: Preprocess,
        *,
        name: str,
        key: str,
        device: str | None = None,
        precision: str | None = None,
        extra: str = "clip",
    ) -> None:
        self._torch = import_optional("torch", extra)
        self.name, self.key, self.device = name, key, pick_device(device, extra)
        self._preprocess = preprocess
        self.min_side = preprocess.min_side
        self.precision = "float32"
        self._forward = forward
        if self.device == "cpu":
            keep_freed_memory()
        self._module = module.eval().to(self.device)
        self._scale, self._shift = self._normalisation(preprocess)
        images = probe_images(preprocess.height, preprocess.width)
        reference = self._probe(images)
        self.dim = reference.shape[1]
        wanted = precision or self._preferred_precision()
        if wanted != "float32":
            self._try(wanted, images, reference)

    def preprocess(self, image: Image.Image) -> Pixels:
        """One RGB image at the model's input size; see the protocol."""
        return self._preprocess(image)

    def encode(self, batch: Pixels) -> Vectors:
        """Embed a batch; see the protocol."""
        torch = self._torch
        with torch.inference_mode(), self._autocast():
            # A view in channels-last order, which the convolutions of both devices like best.
            pixels = torch.from_numpy(np.require(batch, requirements=["C", "W"])).to(self.device).permute(0, 3, 1, 2)
            normalised = pixels.float().mul_(self._scale).add_(self._shift)
            if self.precision == "bfloat16":
                normalised = normalised.to(torch.bfloat16)
            return self.to_rows(self._forward(self._module, normalised), len(batch))

    def to_rows(self, output: Any, count: int) -> Vectors:
        """A model's output as unit rows.

        Raises:
            DedupkitError: it is not one vector for each of ``count`` inputs.
        """
        if isinstance(output, tuple | list) and output:
            output = output[0]
        if not isinstance(output, self._torch.Tensor):
            raise DedupkitError(f"the model of {self.name} gives a {type(output).__name__}, not a tensor of vectors")
        rows = output.float().flatten(1) if output.ndim in (2, 4) else output
        if rows.ndim != 2 or rows.shape[0] != count:
            shape = "x".join(map(str, output.shape))
            raise DedupkitError(f"the model of {self.name} gives {shape} values for {count} images, not a vector each")
        return unit_rows(rows.cpu().numpy())

    def _preferred_precision(self) -> str:
        if self.device.startswith("cuda"):
            return "float16"
        return "bfloat16" if self.device == "cpu" and has_bfloat16_units() else "float32"

    def _autocast(self) -> Any:
        if self.precision == "float16":
            return self._torch.autocast("cuda", dtype=self._torch.float16)
        return nullcontext()

    def _normalisation(self, preprocess: Preprocess) -> tuple[Any, Any]:
        mean, std = (self._torch.tensor(values).reshape(1, 3, 1, 1) for values in (preprocess.mean, preprocess.std))
        return (1 / (255 * std)).to(self.device), (-mean / std).to(self.device)

    def _probe(self, images: Pixels) -> Vectors:
        try:
            vectors = self.encode(images)
        except DedupkitError:
            raise
        except Exception as error:
            shape = "x".join(map(str, images.shape[1:3]))
            raise DedupkitError(
                f"the model of {self.name} fails on images of {shape} pixels ({_first_line(error)}); "
                "name the size that it takes, e.g. ?size=288"
            ) from error
        if not np.isfinite(vectors).all() or not vectors.any(axis=1).all():
            raise DedupkitError(f"the weights of {self.name} are broken: the model gives NaN or zero vectors")
        return vectors

    def _try(self, precision: str, images: Pixels, reference: Vectors) -> None:
        """Switch to a shorter format if the model still gives the same vectors in it."""
        full = self._module
        try:
            if precision == "bfloat16":
                self._module = copy.deepcopy(full).to(self._torch.bfloat16)
            self.precision = precision
            agrees = bool((np.sum(self.encode(images) * reference, axis=1) >= MIN_AGREEMENT).all())
        except Exception:  # a traced model may hold float32 constants that do not mix with another format
            agrees = False
        if not agrees:
            self._module, self.precision = full, "float32"


def probe_images(height: int, width: int, count: int = 8, seed: int = 0) -> Pixels:
    """Images with the amplitude spectrum of photos, 1/f (Field, 1987), of several contrasts; always the same."""
    rng = np.random.default_rng(seed)
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width))
    frequency[0, 0] = np.inf
    noise = np.fft.rfft2(rng.normal(size=(count, 3, height, width))) / frequency
    planes = np.fft.irfft2(noise, s=(height, width))
    planes = planes.mean(axis=1, keepdims=True) + planes / 3
    planes /= planes.std(axis=(1, 2, 3), keepdims=True)
    # Faint and bright images lose the most to a shorter number format.
    contrast, brightness = np.geomspace(8, 64, count), np.linspace(190, 60, count)
    planes = planes * contrast[:, None, None, None] + brightness[:, None, None, None]
    images: Pixels = np.clip(planes, 0, 255).astype(np.uint8).transpose(0, 2, 3, 1).copy()
    return images


def has_bfloat16_units() -> bool:
    """Whether this CPU has matrix units for bfloat16 (AMX); False where that cannot be told.

    The vector instructions alone (AVX512_BF16) do not count: on a Xeon whose AMX was switched off, ViT-B/32 in bfloat16
    took 1.6 times the CPU time of float32.
    """
    try:
        flags = Path("/proc/cpuinfo").read_text("utf-8", "replace").partition("\n\n")[0].split()
    except OSError:
        return False
    return "amx_bf16" in flags


def pick_device(device: str | None, extra: str) -> str:
    """The device to use: the one named, else a GPU where there is one.

    Raises:
        DedupkitError: there is no such device here.
    """
    torch = import_optional("torch", extra)
    if device is None:
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(1, device=device)
    except Exception as error:
        raise DedupkitError(f"device {device!r} cannot be used here ({_first_line(error)}); try cpu") from error
    return device


def _first_line(error: BaseException) -> str:
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__
