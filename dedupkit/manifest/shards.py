"""Formats of cleaned shards, by name. A new one is a writer in a file of its own and a line here."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

from dedupkit.manifest.parquet_shards import ParquetShardWriter
from dedupkit.manifest.tar_shards import TarShardWriter
from dedupkit.sources import Sample

__all__ = ["SHARD_WRITERS", "ParquetShardWriter", "ShardWriter", "TarShardWriter"]


class ShardWriter(Protocol):
    """Writes one shard; the file is complete when the context ends.

    Args:
        path: The file.
        extra: A pyarrow schema, the columns of the source that are kept beside the manifest's; the values are in
            ``Sample.extra``.
    """

    suffix: str

    def __init__(self, path: Path, extra: Any) -> None: ...
    def __enter__(self) -> ShardWriter: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
    def add(self, sample: Sample, row: Mapping[str, Any]) -> None:
        """Append a sample; ``row`` is its row in the manifest."""

    @staticmethod
    def beside(name: str, samples: int) -> dict[str, bytes]:
        """Small files that stand beside one shard, by file name."""

    @staticmethod
    def index(sizes: Mapping[str, int]) -> dict[str, bytes]:
        """Small files that describe all shards, from the number of samples in each."""


SHARD_WRITERS: dict[str, type[ShardWriter]] = {"webdataset": TarShardWriter, "parquet": ParquetShardWriter}
