"""Whether a generated image copies a training image: a check for a generation loop."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from os import PathLike
from typing import Any, Literal

from dedupkit.clustering.grammar import parse_rule
from dedupkit.embedding import Embedder
from dedupkit.embedding.spec import parse_spec
from dedupkit.errors import DedupkitError
from dedupkit.memorization.neighbours import Neighbour, Neighbours
from dedupkit.memorization.queries import FLAT, NO_VECTOR, QueryLike, embed_one, hash_of, model_of, opened
from dedupkit.runfolder import RunConfig
from dedupkit.signals import known_signals

__all__ = [
    "DESCRIPTOR_COPY", "MAX_DISTANCE", "SSCD_COPY", "CopyCheck", "CopyGuard", "cosine_bound", "no_threshold",
    "published_bound", "rule_bound", "without_vectors",
]  # fmt: skip

MAX_DISTANCE = 31
"""PDQ's published match radius, in bits."""

SSCD_COPY = 0.75
"""Cosine of SSCD vectors at which 90 % of the matches on DISC are copies (Pizzi et al., arXiv 2202.10261)."""

DESCRIPTOR_COPY, _DESCRIPTOR_STRANGERS = 0.796, 5.9e-6
"""Cosine of the bundled descriptor that keeps 99 % of edited copies, and the share of stranger pairs above it
(docs/copy-descriptor.md, "How far it goes" and "Other strangers")."""

_STRANGERS = 0.1  # training images, at most, that an image which copies none reaches by chance


@dataclass(frozen=True, slots=True)
class CopyCheck:
    """What a guard says of an image.

    Attributes:
        copy: Whether the image copies a training image, as far as the signals tell.
        nearest: The training image that is nearest, with its group; None where nothing is near.
        threshold: The bound that was met, or missed, by the score of ``nearest``; None where none is known.
        note: What the check could not see, and what to add; None where nothing is missing.
    """

    copy: bool
    nearest: Neighbour | None = None
    threshold: float | None = None
    note: str | None = None

    def __bool__(self) -> bool:
        return self.copy

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready object."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> CopyCheck:
        """Read what :meth:`to_json` gives."""
        nearest = value["nearest"]
        return cls(**{**value, "nearest": None if nearest is None else Neighbour.from_json(nearest)})


class CopyGuard:
    """Says in milliseconds whether an image copies one of the training set's, from the run's hashes and vectors.

    The hash is asked first: it finds whole-image copies (re-encoded, resized, mirrored, turned) exactly. Where it finds
    none, the vector is asked, which also finds crops and heavy edits; it is slower, and its threshold is a choice. No
    training image is read. The guard may be used by several threads at once. It keeps about 96 bytes a training image
    for hashes and 2·d bytes for vectors of d values in files that are mapped, and keys, captions and groups in memory.

    Args:
        run: A finished run over the training set: the folder, or the object that ``dedup`` returns. Those that it
            updates are asked too.
        max_distance: Largest distance of PDQ hashes of a copy, in bits.
        min_cosine: Least cosine of the vectors of a copy. By default the bound that the rule of the run states for the
            embedder alone, or 0.75 for SSCD, or 0.796 for ``copy`` in runs of up to some 17,000 samples, of which an
            image that copies none reaches 0.1 by chance; other models and larger runs have none, and their vectors
            decide nothing until you give one (``dedupkit audit --real`` measures its false-alarm rate).
        embedder: Name of one of the run's embedders, the first by default; or the model behind the run's vectors, where
            it was given to the run as an object: of several embedders it takes the one of its name. False for hashes
            only.
        device: Device for torch, e.g. ``cuda``.

    Raises:
        DedupkitError: There is no finished run, the run has no vectors of the embedder, or ``max_distance`` or
            ``min_cosine`` is out of range.
        TypeError: ``embedder`` is none of these.

    Example::

        guard = dk.CopyGuard("runs/training")
        found = guard.check(image)
        if found:
            print("copies", found.nearest.key, "of group", found.nearest.group, found.nearest.in_words())
    """

    def __init__(
        self,
        run: str | PathLike[str],
        *,
        max_distance: int = MAX_DISTANCE,
        min_cosine: float | None = None,
        embedder: Embedder | str | Literal[False] | None = None,
        device: str | None = None,
    ) -> None:
        if not 0 <= max_distance <= 128 or not (min_cosine is None or -1 <= min_cosine <= 1):
            raise DedupkitError("max_distance lies between 0 and 128 bits, min_cosine between -1 and 1")
        self._near = Neighbours(run)
        self._max_distance = max_distance
        config = self._near.config
        self._name = _name_of(config, embedder)
        self._model: Embedder | None = None
        self._min_cosine: float | None = None
        if self._name is not None:
            self._model = embedder if isinstance(embedder, Embedder) else model_of(self._near, self._name, device)
            self._near.refuse_other_length(self._name, self._model.dim)
            known = cosine_bound(config, self._name, self._near.samples)
            self._min_cosine = known if min_cosine is None else min_cosine

    def __repr__(self) -> str:
        bound = "" if self._min_cosine is None else f" or {self._name}>={self._min_cosine:g}"
        of = f"{self._near.folder.shown}: {self._near.samples:,} samples"
        return f"<copy guard of {of}; a copy by pdq<={self._max_distance}{bound}>"

    @property
    def nbytes(self) -> int:
        """Memory in bytes, if every page of the mapped files is used; without the model."""
        return self._near.nbytes

    def check(self, image: QueryLike) -> CopyCheck:
        """Whether an image copies a training image.

        Args:
            image: A PIL image, an array (h, w) or (h, w, 3) uint8, the path of a file, or its bytes.

        Raises:
            ImageError: It is no image that can be used.
            DedupkitError: The file cannot be read.
            TypeError: It is none of these.
        """
        image = opened(image)
        code = hash_of(image)
        found = [] if code is None else self._near.by_hash(code, self._max_distance)
        if found:
            return CopyCheck(True, self._near.describe(found[0][0], "pdq", found[0][1]), float(self._max_distance))
        notes = self._near.notes(self._name) + ([] if code is not None else [FLAT])
        nearest = None
        if self._name is not None and self._model is not None:
            vector = embed_one(self._model, image)
            if vector is None:
                notes.append(NO_VECTOR)
            else:
                for sample, score in self._near.by_vector(self._name, vector, 1):
                    nearest = self._near.describe(sample, self._name, score)
            if self._min_cosine is None:
                notes.append(
                    f"{no_threshold(self._near.config, self._name, self._near.samples)}: give min_cosine=; dedupkit "
                    "audit --real measures its false-alarm rate"
                )
        else:
            notes.append(without_vectors(self._near))
        copy = nearest is not None and self._min_cosine is not None and nearest.score >= self._min_cosine
        return CopyCheck(copy, nearest, self._min_cosine, "; ".join(notes) or None)


def _name_of(config: RunConfig, embedder: Embedder | str | Literal[False] | None) -> str | None:
    """Whose vectors are asked, None where the run has none or hashes alone are wanted."""
    if embedder is False:
        return None
    if not (embedder is None or isinstance(embedder, str | Embedder)):
        raise TypeError(
            f"embedder is the name of one of the run's embedders, a model, or False, not {type(embedder).__name__}"
        )
    names = list(config.embedders)
    if isinstance(embedder, str) or (embedder is not None and len(names) > 1):
        name = embedder if isinstance(embedder, str) else embedder.name  # a single one may go by another name
        if name not in names:
            raise DedupkitError(f"the run has no vectors of {name}; it has those of {', '.join(names) or 'none'}")
        return name
    return names[0] if names else None


def rule_bound(config: RunConfig, name: str) -> float | None:
    """The cosine from which the rule of a run takes two images for copies; None where it states none for it alone."""
    known = known_signals(config.embedders)
    if not known[name].ranks:  # bounds of scores that a background normalises are no cosines
        return None
    alone = [
        clause[0].bound
        for clause in parse_rule(config.rule_expanded, known).clauses
        if len(clause) == 1 and clause[0].signal == name
    ]  # with other signals, such as a verification, a bound says less
    return min((bound for bound in alone if bound is not None), default=None)


def cosine_bound(config: RunConfig, name: str, samples: int) -> float | None:
    """The cosine from which a run of so many samples takes two images for copies, None where nothing states one."""
    stated = rule_bound(config, name)
    return published_bound(config, name, samples)[0] if stated is None else stated


def is_sscd(config: RunConfig, name: str) -> bool:
    """Whether an embedder is SSCD as it was published, without a projection."""
    spec = parse_spec(config.embedders[name])
    return "sscd" in f"{name} {spec.text}".lower() and "project" not in spec.options


def published_bound(config: RunConfig, name: str, samples: int) -> tuple[float | None, str]:
    """The cosine from which images are copies by what was measured of a model, and what that was, in words.

    The cosine is None where nothing was measured, or where an image that copies none would reach it by chance.
    """
    if is_sscd(config, name):
        return SSCD_COPY, "as published for SSCD (arXiv 2202.10261)"
    spec = parse_spec(config.embedders[name])
    if spec.scheme != "copy" or "project" in spec.options:
        return None, ""
    strangers = _DESCRIPTOR_STRANGERS * samples
    chance = f"an image that copies none reaches it by chance with {strangers:.2g} of {samples:,} training images"
    if strangers > _STRANGERS:
        return None, f"99 % of edited copies reach {DESCRIPTOR_COPY}, but {chance}"
    return DESCRIPTOR_COPY, f"which 99 % of edited copies reach; {chance} (docs/copy-descriptor.md)"


def no_threshold(config: RunConfig, name: str, samples: int) -> str:
    """That no cosine is known from which images are copies, and why, for notes."""
    words = published_bound(config, name, samples)[1]
    return f"no threshold is known for vectors of {name}" + (f" among so many images ({words})" if words else "")


def without_vectors(near: Neighbours, remedy: str = "") -> str:
    """What is not seen where no vectors are asked, and what to add.

    Args:
        near: The run.
        remedy: How to give a model whose vectors the run has; empty where the caller asked for none.
    """
    config = near.config
    if config.embedders and not remedy:
        return "vectors were not asked, so crops and heavy edits are not seen"
    if config.embedders:
        return (
            f"the vectors of {next(iter(config.embedders))} were given to the run, so the model behind them is not "
            f"known and crops and heavy edits are not seen; {remedy}"
        )
    return (
        "the run has no vectors, so crops and heavy edits are not seen; add them with: "
        f"{near.folder.again(config, ['copy'])} (or --embed 'torchscript:SSCD.pt?name=sscd&size=288'); only "
        "vectors are computed"
    )
