"""dedupkit: de-duplicate image-caption shards before training.

``dedup`` runs the whole job; the rooms (``sources``, ``hashing``, ``neighbors``, ``clustering``, ``manifest``, …) are
importable each alone. Importing this package loads nothing heavy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dedupkit.startup.lazy import lazy_names

if TYPE_CHECKING:
    from dedupkit.errors import DedupkitError, MissingExtraError, RuleError
    from dedupkit.interop.imagededup import (
        encode_image,
        encode_images,
        find_duplicates,
        find_duplicates_to_remove,
        plot_duplicates,
    )
    from dedupkit.manifest.filter import keep_filter
    from dedupkit.memorization.guard import CopyGuard
    from dedupkit.sources.memory import Images
    from dedupkit.workflows.dedup import dedup
    from dedupkit.workflows.run import Run
    from dedupkit.workflows.update import update

__all__ = [
    "CopyGuard", "DedupkitError", "Images", "MissingExtraError", "RuleError", "Run", "dedup", "encode_image",
    "encode_images", "find_duplicates", "find_duplicates_to_remove", "keep_filter", "plot_duplicates",
    "update",
]  # fmt: skip

__version__ = "0.1.0"

__getattr__ = lazy_names(
    __name__,
    {
        "CopyGuard": "memorization.guard",
        "DedupkitError": "errors",
        "Images": "sources.memory",
        "MissingExtraError": "errors",
        "RuleError": "errors",
        "Run": "workflows.run",
        "dedup": "workflows.dedup",
        "encode_image": "interop.imagededup",
        "encode_images": "interop.imagededup",
        "find_duplicates": "interop.imagededup",
        "find_duplicates_to_remove": "interop.imagededup",
        "keep_filter": "manifest.filter",
        "plot_duplicates": "interop.imagededup",
        "update": "workflows.update",
    },
)


def __dir__() -> list[str]:
    return sorted(__all__)
