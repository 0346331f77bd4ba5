"""CLIP models through open_clip: image vectors, and text vectors in the same space."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image

from dedupkit.embedding.embedder import Vectors
from dedupkit.embedding.keys import embedder_key
from dedupkit.embedding.pixels import Preprocess
from dedupkit.embedding.spec import Spec
from dedupkit.embedding.torch_model import TorchEmbedder
from dedupkit.errors import DedupkitError, import_optional

__all__ = ["OpenClipEmbedder", "load"]

_FITS = {"shortest": "crop", "squash": "squash", "longest": "pad"}
_TEXTS = 256  # encoded at once


class OpenClipEmbedder(TorchEmbedder):
    """A model of open_clip; ``encode_text`` embeds captions."""

    def __init__(self, model: Any, model_name: str, preprocess: Preprocess, **options: Any) -> None:
        self._model_name = model_name
        self._tokenizer: Any = None
        super().__init__(model, lambda module, images: module.encode_image(images), preprocess, **options)

    def encode_text(self, texts: Sequence[str]) -> Vectors:
        """Embed captions.

        Args:
            texts: any number; each is cut at the model's context length (77 tokens for CLIP).

        Returns:
            (len(texts), dim) float32, unit rows.
        """
        import numpy as np

        if self._tokenizer is None:
            self._tokenizer = import_optional("open_clip", "clip").get_tokenizer(self._model_name)
        parts = [np.empty((0, self.dim), np.float32)]
        with self._torch.inference_mode(), self._autocast():
            for start in range(0, len(texts), _TEXTS):
                tokens = self._tokenizer(list(texts[start : start + _TEXTS])).to(self.device)
                parts.append(self.to_rows(self._module.encode_text(tokens), len(tokens)))
        return np.concatenate(parts)


def load(spec: Spec, device: str | None = None, precision: str | None = None) -> OpenClipEmbedder:
    """Load ``openclip:MODEL/PRETRAINED``.

    Raises:
        DedupkitError: no such model, tag or file; weights that cannot be downloaded or belong to another model.
        MissingExtraError: open_clip is not installed.
    """
    open_clip = import_optional("open_clip", "clip")
    model_name, _, pretrained = spec.target.partition("/")
    known = open_clip.get_model_config(model_name)
    if known is None:
        close = _close(model_name, open_clip.list_models())
        raise DedupkitError(f"open_clip has no model {model_name!r} (in {spec.text!r}){close}")
    tags = open_clip.list_pretrained_tags_by_model(model_name)
    listed = f"tags of {model_name}: {', '.join(tags) or 'none'}; or name a local checkpoint: {model_name}/PATH"
    is_tag = open_clip.get_pretrained_cfg(model_name, pretrained) if pretrained else {}
    path = Path(pretrained).expanduser()
    if not is_tag and not (pretrained and path.is_file()):
        missing = f"{pretrained!r} is neither a file nor a tag of it" if pretrained else "no weights are named"
        raise DedupkitError(f"{spec.text!r}: {missing}; {listed}")
    try:
        with _quiet():
            model, _, _ = open_clip.create_model_and_transforms(
                model_name,
                pretrained=pretrained if is_tag else str(path),
                # Some tags were trained with another activation than the model's name says.
                force_quick_gelu=bool(is_tag.get("quick_gelu", False)),
            )
    except Exception as error:
        why = _last_line(error)
        if is_tag:
            raise DedupkitError(
                f"the weights of tag {pretrained!r} of {model_name} cannot be had ({why}); download them on a machine "
                f"with network access and name the file: openclip:{model_name}/PATH, or use lite, which needs none"
            ) from error
        raise DedupkitError(
            f"{path} holds no weights of {model_name} ({why}); name the model that the checkpoint was made with"
        ) from error
    preprocess = _preprocess(open_clip.get_model_preprocess_cfg(model))
    key = embedder_key(spec.text)
    return OpenClipEmbedder(
        model, model_name, preprocess, name=spec.name, key=key, device=device, precision=precision, extra="clip"
    )


def _preprocess(config: dict[str, Any]) -> Preprocess:
    """The inference transform of open_clip as a :class:`Preprocess`."""
    size = config["size"]
    height, width = (size, size) if isinstance(size, int) else size
    return Preprocess(
        height=height,
        width=width,
        fit=_FITS[config.get("resize_mode", "shortest")],
        resample=Image.Resampling[config.get("interpolation", "bicubic").upper()],
        mean=tuple(config["mean"]),
        std=tuple(config["std"]),
        fill=int(config.get("fill_color", 0)),
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """Without open_clip's progress on the root logger; what goes wrong is raised anyway."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        yield
    finally:
        logging.disable(before)


def _close(name: str, known: Sequence[str]) -> str:
    import difflib

    close = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    return f"; did you mean {' or '.join(close)}?" if close else "; open_clip.list_models() lists them"


def _last_line(error: BaseException) -> str:
    """What went wrong first: libraries wrap the cause several times, in messages of many lines."""
    while error.__cause__ is not None or error.__context__ is not None:
        error = error.__cause__ or error.__context__ or error
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return (lines[0] if len(lines) == 1 else f"{lines[0]} {lines[1]}")[:300]
