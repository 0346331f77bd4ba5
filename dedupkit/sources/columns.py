"""The names under which data sets store the same thing, and the values as text and numbers."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

__all__ = [
    "ALIASES", "IMAGE_EXTENSIONS", "READ_COLUMNS", "as_score", "as_text", "captions_of", "clean_text", "first_present",
    "image_extension",
]  # fmt: skip

IMAGE_EXTENSIONS = frozenset({"jpg", "jpeg", "jpe", "jfif", "png", "webp", "gif", "bmp", "tif", "tiff", "avif"})

# One table of column names: LAION, COYO, CC3M/CC12M, DataComp, img2dataset, Hugging Face.
ALIASES: dict[str, tuple[str, ...]] = {
    "caption": ("caption", "TEXT", "text", "CAPTION", "txt", "alt_text", "description", "captions"),
    "url": ("url", "URL", "image_url"),
    "uid": ("uid", "UID", "id", "sample_id"),
    "clip_score": (
        "clip_score",
        "similarity",
        "clip_l14_similarity_score",
        "clip_b32_similarity_score",
        "clip_similarity_vitl14",
        "clip_similarity_vitb32",
    ),
    "file": ("file_name", "filename", "file", "image", "path", "image_path"),
}

READ_COLUMNS = frozenset(name for field in ("caption", "url", "uid", "clip_score") for name in ALIASES[field])
"""Columns from which a scan takes something, beside the image and img2dataset's own."""


def first_present(row: Mapping[str, Any], field_name: str) -> Any:
    """The value under the first alias of ``field_name`` that the row has and that is not None."""
    for name in ALIASES[field_name]:
        value = row.get(name)
        if value is not None:
            return value
    return None


def as_text(row: Mapping[str, Any], field_name: str) -> str | None:
    """The field as text; of several captions the first that is not empty."""
    value = first_present(row, field_name)
    if isinstance(value, list | tuple):
        texts = captions_of(value)
        return next((text for text in texts if text.strip()), texts[0] if texts else None)
    return clean_text(value)


def captions_of(values: Sequence[Any]) -> list[str]:
    """A list of captions as text, without those that are None."""
    return [text for text in map(clean_text, values) if text is not None]


def clean_text(value: Any) -> str | None:
    """Text that Parquet can hold: bytes decoded, lone surrogates and invalid UTF-8 replaced by U+FFFD.

    Lists and objects become JSON, other values what ``str`` gives; NaN and what else stands for a missing value in
    pandas is None.
    """
    if isinstance(value, str):
        return value if value.isascii() else _valid(value)
    if _is_missing(value):
        return None
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    try:
        if isinstance(value, list | tuple | dict):
            return _valid(json.dumps(value, ensure_ascii=False, default=str))
        return _valid(str(value))
    except (ValueError, RecursionError):  # an integer of 5,000 digits, a list a thousand deep
        return None


def _is_missing(value: Any) -> bool:
    try:
        return value is None or bool(value != value)  # NaN and NaT are not themselves
    except Exception:  # pandas' NA is neither true nor false, an array is both
        return type(value).__name__ == "NAType"


def _valid(text: str) -> str:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def as_score(value: Any) -> float | None:
    """A number from metadata, None where it is no number."""
    try:
        return None if value is None else float(value)
    except (TypeError, ValueError, OverflowError):
        return None


def image_extension(name: str) -> str | None:
    """The extension (lower case, after the first dot of the base name) if it names an image format."""
    extension = name.rsplit("/", 1)[-1].partition(".")[2].lower()
    return extension if extension in IMAGE_EXTENSIONS else None
