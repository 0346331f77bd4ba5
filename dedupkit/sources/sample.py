"""What every reader yields, and the names under which data sets store the same thing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

__all__ = [
    "IMAGE_EXTENSIONS", "Place", "Sample", "Shard", "ShardError", "as_rows", "as_score", "clean_text",
    "first_present", "image_extension",
]  # fmt: skip

IMAGE_EXTENSIONS = frozenset({"jpg", "jpeg", "jpe", "jfif", "png", "webp", "gif", "bmp", "tif", "tiff", "avif"})

# One table of column names: LAION, COYO, CC3M/CC12M, DataComp, img2dataset, Hugging Face.
ALIASES: dict[str, tuple[str, ...]] = {
    "caption": ("caption", "TEXT", "text", "CAPTION", "txt", "alt_text", "description"),
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


class ShardError(OSError):
    """A shard that cannot be read, or not to its end; the message is the reason that the manifest shows."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One input sample as its source has it.

    Attributes:
        key: its name in the shard.
        members: every file of the sample, extension to bytes, in source order; the image among them.
        image_ext: the extension of the image in ``members``; None where there is none.
        error: why it cannot be used, where the source itself says so (a failed download, a broken archive).
        caption: the text, as the source has it.
        url: where the image came from.
        uid: the data set's own identifier.
        clip_score: image-text similarity that the source states.
        offset: position of the image's bytes in the shard, where a later pass can seek there.
    """

    key: str
    members: Mapping[str, bytes] = field(default_factory=dict)
    image_ext: str | None = None
    error: str | None = None
    caption: str | None = None
    url: str | None = None
    uid: str | None = None
    clip_score: float | None = None
    offset: int | None = None

    @property
    def image(self) -> bytes | None:
        """The stored bytes of the image, None where the sample has none."""
        return None if self.image_ext is None else self.members[self.image_ext]


@dataclass(frozen=True, slots=True)
class Place:
    """Where a scanned image lies.

    Attributes:
        sample: row number in the run.
        shard: number of its shard.
        key: its name in the shard.
        offset: position in the shard, as the reader gave it.
        nbytes: size of the stored image; None where the sample has none.
        sha256: digest of the stored image.
        format: what the decoder found, e.g. ``jpeg``.
    """

    sample: int
    shard: int
    key: str
    offset: int | None
    nbytes: int | None
    sha256: bytes | None
    format: str | None = None


class Shard(Protocol):
    """A readable piece of a source: small, picklable, read by one task."""

    @property
    def source(self) -> str:
        """The manifest's ``source``: path or URL."""

    @property
    def paths(self) -> tuple[str, ...]:
        """The files whose change makes the shard another shard."""

    def read(self) -> Iterator[Sample]:
        """Yield the samples in a stable order.

        Raises:
            ShardError: the rest of the shard cannot be read.
        """

    def fetch_many(self, places: Sequence[Place]) -> Iterator[tuple[Place, bytes | OSError]]:
        """Read some images again, each once, in the order in which they lie in the shard.

        :mod:`dedupkit.sources.reread` calls this and checks what comes back; nothing else should.

        Yields:
            Each place with the stored bytes, or with the reason why this one cannot be read.

        Raises:
            OSError: the rest of the shard cannot be read.
        """


def clean_text(value: Any) -> str | None:
    """Text that Parquet can hold: bytes decoded, lone surrogates and invalid UTF-8 replaced by U+FFFD."""
    if value is None:
        return None
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return str(value).encode("utf-8", "replace").decode("utf-8") if not isinstance(value, str) else _valid(value)


def _valid(text: str) -> str:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def first_present(row: Mapping[str, Any], field_name: str) -> Any:
    """The value under the first alias of ``field_name`` that the row has and that is not None."""
    for name in ALIASES[field_name]:
        value = row.get(name)
        if value is not None:
            return value
    return None


def as_score(value: Any) -> float | None:
    """A number from metadata, None where it is no number."""
    try:
        return None if value is None else float(value)
    except (TypeError, ValueError, OverflowError):
        return None


def as_rows(table: Any) -> list[dict[str, Any]]:
    """The rows of a pyarrow table or batch; text that is no UTF-8 is decoded as :func:`clean_text` does."""
    try:
        rows: list[dict[str, Any]] = table.to_pylist()
    except UnicodeDecodeError:  # Parquet does not check what it stores as text
        columns = [_values(column) for column in table.columns]
        rows = [dict(zip(table.schema.names, values, strict=True)) for values in zip(*columns, strict=True)]
    return rows


def _values(column: Any) -> list[Any]:
    try:
        values: list[Any] = column.to_pylist()
    except UnicodeDecodeError:
        values = [clean_text(value) for value in column.cast("large_string").cast("large_binary").to_pylist()]
    return values


def image_extension(name: str) -> str | None:
    """The extension (lower case, after the first dot of the base name) if it names an image format."""
    extension = name.rsplit("/", 1)[-1].partition(".")[2].lower()
    return extension if extension in IMAGE_EXTENSIONS else None
