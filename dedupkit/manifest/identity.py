"""What an example of a data loader says about which sample it is.

WebDataset gives ``__key__``, ``__url__`` and the members' bytes; Hugging Face ``datasets`` gives columns, images as
``{bytes, path}`` or decoded; tables of URLs give ``url`` or ``URL`` and a caption. Nothing here decodes an image, and
columns are touched only when they are asked for, because touching a column may decode it.
"""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, SupportsIndex

from dedupkit.sources.columns import ALIASES, IMAGE_EXTENSIONS, as_text, clean_text
from dedupkit.sources.img2dataset import parse_json
from dedupkit.sources.keys import text_of

__all__ = ["KEYS", "SOURCES", "Example", "Row", "places"]

KEYS = ("__key__", "key")
SOURCES = ("__url__", "source", "__source__")
_IMAGE_COLUMNS = ("image", "img", "image_bytes", "bytes", "content")


class Row(Mapping[str, Any]):
    """One row of a batch, a mapping from column names to sequences; columns are touched only when asked for.

    >>> Row({"url": ["a", "b"]}, 1)["url"]
    'b'
    """

    def __init__(self, batch: Mapping[str, Any], number: int) -> None:
        self._batch, self._number = batch, number

    def __getitem__(self, name: str) -> Any:
        table = getattr(self._batch, "pa_table", None)  # datasets' lazy batch: as stored, not decoded
        return self._batch[name][self._number] if table is None else table.column(name)[self._number].as_py()

    def __iter__(self) -> Iterator[str]:
        return iter(self._batch)

    def __len__(self) -> int:
        return len(self._batch)


class Example:
    """The identifying values of an example.

    Args:
        values: Column or member names and their values.
    """

    def __init__(self, values: Mapping[str, Any]) -> None:
        table = getattr(values, "pa_table", None)  # datasets' lazy row
        self._values = values if table is None else Row(values, 0)
        self._digest: str | None = None

    @property
    def key(self) -> str | None:
        """The sample's name in its shard, as the manifest has it."""
        return self._name(KEYS)

    @property
    def source(self) -> str | None:
        """Where the loader found the shard: a path, a URL or a command."""
        return self._name(SOURCES)

    @property
    def is_from_shard(self) -> bool:
        """Whether a loader says in which shard it found the example; ``source`` in a table may be of an earlier run."""
        return self._values.get("__url__") is not None

    def get(self, column: str) -> str | None:
        """The value that stands in a column of the manifest: ``uid``, ``url``, ``caption`` or ``sha256``."""
        if column == "sha256":
            return self.sha256()
        value = self._first(ALIASES[column])
        return value if value is not None else as_text(self._json(), column)

    def row_number(self) -> int | None:
        """The number in a column ``sample``, as the manifest has it."""
        value = self._values.get("sample")
        return value.__index__() if isinstance(value, SupportsIndex) else None

    def sha256(self) -> str | None:
        """Digest of the stored image in hex; None where only decoded pixels are there."""
        if self._digest is None:
            data = next((data for data in map(self._stored, self._image_names()) if data is not None), None)
            self._digest = "" if data is None else hashlib.sha256(data).hexdigest()
        return self._digest or None

    def names(self) -> str:
        """The names of all columns, for messages."""
        return ", ".join(self._values) or "nothing"

    def _name(self, columns: tuple[str, ...]) -> str | None:
        """A name of a file, in which bytes that are no UTF-8 are lone surrogates."""
        name = next((self._values[column] for column in columns if self._values.get(column) is not None), None)
        return text_of(name) if isinstance(name, str) else clean_text(name)

    def _first(self, names: tuple[str, ...]) -> str | None:
        return next((clean_text(self._values[name]) for name in names if self._values.get(name) is not None), None)

    def _json(self) -> Mapping[str, Any]:
        value = self._values.get("json")
        return value if isinstance(value, Mapping) else parse_json(value) if isinstance(value, bytes) else {}

    def _image_names(self) -> list[str]:
        """Columns and members that may be the image: ``jpg`` before ``depth.png``, as a scan takes it."""
        names = [name for name in self._values if not name.startswith("__")]
        found = [name for name in names if name.rpartition(".")[2].lower() in (*IMAGE_EXTENSIONS, *_IMAGE_COLUMNS)]
        return sorted(found, key=lambda name: "." in name)

    def _stored(self, name: str) -> bytes | None:
        """The stored bytes of an image column: bytes, a struct with bytes or a path, or an image opened from a file."""
        value = self._values[name]
        path: Any = getattr(value, "filename", None)
        if isinstance(value, Mapping):
            path, value = value.get("path"), value.get("bytes")
        if isinstance(value, bytes | bytearray | memoryview):
            return bytes(value)
        if isinstance(path, str) and path and Path(path).is_file():
            return Path(path).read_bytes()
        return None


def places(source: str) -> list[str]:
    """The paths that a shard's name may mean: itself, or the words of a ``pipe:`` command; without a query.

    >>> places("pipe:aws s3 cp 's3://bucket/00000.tar?x=1' -")
    ['aws', 's3', 'cp', 's3://bucket/00000.tar', '-']
    >>> places("tar://a.jpg::/data/00000.tar")
    ['tar://a.jpg', '/data/00000.tar']
    """
    words = source.split("::")
    if source.startswith("pipe:"):
        try:
            words = shlex.split(source.removeprefix("pipe:"))
        except ValueError:  # an unbalanced quote
            words = source.removeprefix("pipe:").split()
    return [word.partition("?")[0] if "://" in word else word for word in words]
