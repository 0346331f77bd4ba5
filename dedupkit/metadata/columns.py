"""The columns of URL lists that are looked at: the names under which data sets store them, and batches of rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from dedupkit.clustering.policy import META
from dedupkit.errors import DedupkitError
from dedupkit.sources.columns import ALIASES

__all__ = ["HASH_COLUMNS", "ROLES", "ROWS", "Batch", "find_roles"]

HASH_COLUMNS = ("sha256", "hash", "image_phash", "phash", "md5", "sha512")
"""Columns of published hashes. In a rule each name is its column, but ``hash`` is the first of them but ``phash``."""

ROLES: dict[str, tuple[str, ...]] = {
    "url": ALIASES["url"],
    "caption": ALIASES["caption"],
    "hash": ("sha256", "hash", "image_phash", "md5", "sha512"),
    "width": ("width", "WIDTH", "original_width"),
    "height": ("height", "HEIGHT", "original_height"),
    "clip_score": ALIASES["clip_score"],
    **{name: (name,) for name in HASH_COLUMNS if name != "hash"},
}
"""The columns that are looked at, and the names under which data sets store them."""

ROWS = 1 << 17
"""Rows of a batch at most."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Some rows of a list.

    Attributes:
        rows: number of rows.
        columns: Columns that the list has, by role: pyarrow arrays.
        problem: why the rows cannot be read; they then have no columns.
    """

    rows: int
    columns: dict[str, Any] = field(default_factory=dict)
    problem: str | None = None


def find_roles(
    names: Sequence[str], path: Path, unfit: Mapping[str, Any] = MappingProxyType({}), meta: Sequence[str] = ()
) -> dict[str, str]:
    """Which column has which role, by the table of names.

    Args:
        names: Names of all columns.
        path: The file, for messages.
        unfit: Columns that can have no role, lists and objects, with their types.
        meta: Columns that the keep policy names, whose role is ``meta:NAME``.

    Raises:
        DedupkitError: There is no column of URLs; the message names the columns.
    """
    found = {}
    for role, aliases in ROLES.items():
        name = next((alias for alias in aliases if alias in names and alias not in unfit), None)
        if name is not None:
            found[role] = name
    if "url" not in found:
        other = next((alias for alias in ROLES["url"] if alias in unfit), None)
        if other is not None:
            raise DedupkitError(f"{path} has URLs of type {unfit[other]} in its column {other}, not of text")
        raise DedupkitError(f"{path} has no column of URLs; its columns: {', '.join(names) or 'none'}")
    return found | {META + name: name for name in meta if name in names and name not in unfit}
