"""How an audit decides, and by which model."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from dedupkit.embedding import Embedder
from dedupkit.embedding.fitted import refuse_other_model
from dedupkit.embedding.given import as_given
from dedupkit.errors import DedupkitError
from dedupkit.memorization.extraction import Filter
from dedupkit.memorization.guard import without_vectors
from dedupkit.memorization.neighbours import Neighbours
from dedupkit.memorization.queries import first_model

__all__ = ["AuditOptions", "embedder_of", "no_vectors"]


@dataclass(frozen=True, slots=True)
class AuditOptions:
    """How an audit decides, and what it shows.

    Attributes:
        min_cosine: Least cosine of a copy. By default what the real images calibrate, else the bound that the rule of
            the run states for the embedder alone, else 0.75 for SSCD, or 0.796 for ``copy`` in runs of up to some
            17,000 samples; with ``verify`` no cosine is enough.
        false_alarms: Greatest share of real images that reach the calibrated cosine.
        verify: Whether an image is a copy where local features show the training image whose vector is nearest to its
            own. These training images are read, down to the cosine from which the rule of the run verifies, or 0.5.
        show: Greatest number of pairs on the page.
        filter: When generations of one prompt count as near-copies of each other.
        adaptive: Whether to compare small images by the distance of arXiv 2301.13188, section 5, which reads all kept
            training images.

    Raises:
        DedupkitError: One of them is out of range.
    """

    min_cosine: float | None = None
    false_alarms: float = 0.001
    verify: bool = False
    show: int = 60
    filter: Filter = field(default_factory=Filter)
    adaptive: bool = False

    def __post_init__(self) -> None:
        cosine = 0.0 if self.min_cosine is None else self.min_cosine
        if not -1 <= cosine <= 1 or not 0 < self.false_alarms < 1 or self.show < 0:
            raise DedupkitError(
                "the least cosine lies between -1 and 1, the rate of false alarms between 0 and 1, and the number of "
                "pairs is at least 0"
            )


def embedder_of(near: Neighbours, embed: str | Embedder | None) -> tuple[str | None, Any]:
    """The embedder whose vectors are compared, and what computes those of the generated images; None for none.

    Raises:
        DedupkitError: The run has no vectors of it or of its length, or the model that it names is another one by now.
    """
    embedders = near.config.embedders
    if embed is not None:
        name = as_given(embed).name
        if name not in embedders:
            has = f"its vectors are of {', '.join(embedders)}" if embedders else "it has no vectors"
            raise DedupkitError(f"the run has no vectors of {name}; {has}. Name the model that made them (?name=…)")
        if isinstance(embed, Embedder):
            near.refuse_other_length(name, embed.dim)
        if embed == embedders[name]:
            refuse_other_model(near.folder, near.config, name)
        return name, embed
    first = first_model(near.config)
    if first is None:
        return None, None
    refuse_other_model(near.folder, near.config, first)
    return first, embedders[first]


def no_vectors(near: Neighbours) -> str:
    """What an audit without vectors cannot see, and what to add."""
    return without_vectors(near, "name it with --embed")
