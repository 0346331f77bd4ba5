"""dedupkit: de-duplicate image-caption shards before training.

``dedup`` runs the whole job; the rooms (``sources``, ``hashing``, ``neighbors``, ``clustering``, ``manifest``, …) are
importable each alone. Importing this package loads nothing heavy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dedupkit.lazy import lazy_names

if TYPE_CHECKING:
    from dedupkit.compat import encode_images, find_duplicates, find_duplicates_to_remove, plot_duplicates
    from dedupkit.errors import DedupkitError, MissingExtraError, RuleError
    from dedupkit.manifest.filter import keep_filter
    from dedupkit.pipeline.job import dedup
    from dedupkit.pipeline.run import Run

__all__ = [
    "DedupkitError", "MissingExtraError", "RuleError", "Run", "dedup", "encode_images", "find_duplicates",
    "find_duplicates_to_remove", "keep_filter", "plot_duplicates",
]  # fmt: skip

__version__ = "0.1.0"

__getattr__ = lazy_names(
    __name__,
    {
        "DedupkitError": "errors",
        "MissingExtraError": "errors",
        "RuleError": "errors",
        "Run": "pipeline.run",
        "dedup": "pipeline.job",
        "encode_images": "compat",
        "find_duplicates": "compat",
        "find_duplicates_to_remove": "compat",
        "keep_filter": "manifest.filter",
        "plot_duplicates": "compat",
    },
)


def __dir__() -> list[str]:
    return sorted(__all__)
