"""Embedders by name: ``openclip:ViT-B-32/laion2b_s34b_b79k``, ``onnx:sscd.onnx?size=288``, ``lite``, and so on."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, quote, urlencode

from dedupkit.errors import DedupkitError

if TYPE_CHECKING:
    from dedupkit.embedding.pixels import Preprocess

__all__ = ["FORMS", "LEAST_IMAGES", "Spec", "check_name", "embedder_name", "parse_spec", "stated_floor"]

FORMS = """\
openclip:MODEL/PRETRAINED   PRETRAINED is a tag of open_clip or a local checkpoint
torchscript:PATH            a TorchScript file, e.g. a published SSCD model
onnx:PATH                   an ONNX file
copy                        dedupkit's own copy descriptor, in the package
lite                        EfficientNet-Lite0 from a Python package, no download
precomputed:PATH            vectors that exist: clip-retrieval, DataComp, .npy, .npz, Parquet
options after a question mark: ?name=sscd&size=288&preprocess=sscd
and for each: ?project=copies, a projection learned from transformed copies of the run's images (with &dims= and
&sample=), or ?project=FILE.npz, one that was learned before
?background=VECTORS.npy, images that are no copies, to normalise scores by"""
"""What ``--embed`` and ``embed=`` take."""

_FITTING = {"project", "dims", "sample"}
_EACH = {"name", "background", *_FITTING}
_OPTIONS = {
    "openclip": _EACH,
    "torchscript": {"size", "preprocess", *_EACH},
    "onnx": {"size", "preprocess", *_EACH},
    "copy": _EACH,
    "lite": {"size", *_EACH},
    "precomputed": {"array", *_EACH},
    "python": {"key"},  # given as an object; the target is its name
}
_ALONE = ("copy", "lite")  # name no file: their weights are in a package
_FLOORS = {"copy": 0.35, "lite": 0.6}
_FLOOR = 0.45
_NAME = re.compile(r"[A-Za-z_][\w\-]*")
_RESERVED = {"and", "or", "not", "exact", "verified", "template"}


LEAST_IMAGES = 64
"""Images that a projection is fitted to at least: half of them fit the one that the other half tests."""

_DIMS, _SAMPLE = 512, 512


@dataclass(frozen=True, slots=True)
class Spec:
    """A parsed specification.

    Attributes:
        text: Specification as it was written.
        scheme: ``copy``, ``lite``, ``openclip``, ``torchscript``, ``onnx`` or ``precomputed``; or ``python`` for an
            object that was given in Python, whose vectors a later call can use, but not compute.
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
        if self.scheme == "python":
            return self.target
        if self.scheme in ("openclip", *_ALONE):
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

    @property
    def given(self) -> bool:
        """Whether vectors, or an object of Python, were given to the run: then no model can be loaded by it."""
        return self.scheme in ("precomputed", "python")

    @property
    def made_elsewhere(self) -> bool:
        """Whether vectors were given to the run, so that the model behind them is not known."""
        return self.scheme == "precomputed" or (self.scheme == "python" and self.target == "vectors")

    @property
    def fits(self) -> bool:
        """Whether a run fits a projection for it, to its own images."""
        return self.options.get("project") == "copies"

    @property
    def projection(self) -> Path | None:
        """The file of its projection; None where it names none."""
        named = self.options.get("project")
        return None if named is None or self.fits else Path(named).expanduser()

    @property
    def dims(self) -> int:
        """Values of a projected vector, at most."""
        return int(self.options.get("dims", _DIMS))

    @property
    def sample(self) -> int:
        """Number of images that a projection is fitted to, at most."""
        return int(self.options.get("sample", _SAMPLE))

    def projected(self, file: Path | None) -> str:
        """The specification of the same embedder with the projection in a file, or without one."""
        kept = {name: value for name, value in self.options.items() if name not in _FITTING}
        if file is not None:
            kept["project"] = str(file)
        head = f"{self.scheme}:{self.target}" if self.target else self.scheme
        return f"{head}?{urlencode(kept, quote_via=quote, safe='/')}" if kept else head

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
        from dedupkit.embedding.pixels import Preprocess

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
    if scheme not in _OPTIONS or bool(target) == (scheme in _ALONE):
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
    if name is not None:
        check_name(name, text)
    _check_fitting(text, options)
    return Spec(text, scheme, target, options)


def stated_floor(text: str) -> float:
    """The cosine from which on a descriptor's pairs are candidates for verification, where no fit says so.

    Cosines of different models cannot be compared: a copy descriptor's pairs of different photos lie below 0.45, which
    stands for every model that states none; those of ``lite`` lie higher. The floor of ``copy`` is one that hardly any
    copy falls below, those reduced to a quarter of a small image included: the lists of nearest neighbours bound the
    work in all but small sets.

    Args:
        text: A specification, or the name of an embedder.
    """
    return _FLOORS.get(text.partition("?")[0].partition(":")[0], _FLOOR)


def _check_fitting(text: str, options: dict[str, str]) -> None:
    """Raise DedupkitError for options of a fit that mean nothing."""
    for name, least in (("dims", 2), ("sample", LEAST_IMAGES)):
        value = options.get(name)
        if value is None:
            continue
        if options.get("project") != "copies":
            raise DedupkitError(f"{name}= in {text!r} is for ?project=copies, which fits a projection")
        if not value.isascii() or not value.isdigit() or int(value) < least or len(value) > 9:
            raise DedupkitError(f"{name}={value} in {text!r} is no whole number of at least {least}")


def check_name(name: str, where: str) -> None:
    """Raise DedupkitError unless a name can stand in a rule."""
    if not _NAME.fullmatch(name) or name in _RESERVED:
        raise DedupkitError(f"name={name} in {where!r} cannot stand in a rule; use letters, digits and _: name=sscd")


def embedder_name(spec: str) -> str:
    """The signal's name, without loading the model.

    Raises:
        DedupkitError: as :func:`parse_spec`.
    """
    return parse_spec(spec).name
