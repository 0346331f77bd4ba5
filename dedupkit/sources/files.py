"""Images as files: any folder of them, and img2dataset's ``files`` output."""

from __future__ import annotations

import csv
import io as _io
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from dedupkit import store
from dedupkit.errors import DedupkitError
from dedupkit.sources.img2dataset import failed_row, metadata_rows, parse_json
from dedupkit.sources.sample import Place, Sample, ShardError, as_score, clean_text, first_present, image_extension

__all__ = ["FolderShard", "folder_shards", "read_captions"]

_FILES_PER_TASK = 512
_CAPTION_FILES = tuple(
    f"{stem}.{extension}" for stem in ("captions", "metadata") for extension in ("csv", "tsv", "jsonl")
)


@dataclass(frozen=True, slots=True)
class FolderShard:
    """Some image files of a folder.

    Attributes:
        source: the folder.
        names: the image files, relative to it.
        captions: rows of a captions file by file name, for those of ``names`` that it has.
        siblings: files that exist beside the images (``.txt``, ``.json``), relative names.
        metadata: img2dataset's Parquet file, for its ``files`` output: keys are then the stems.
    """

    source: str
    names: tuple[str, ...]
    captions: dict[str, dict[str, Any]] = field(default_factory=dict)
    siblings: frozenset[str] = frozenset()
    metadata: str | None = None

    @property
    def paths(self) -> tuple[str, ...]:
        """The image files and the metadata."""
        files = tuple(store.join(self.source, name) for name in self.names)
        return files if self.metadata is None else (*files, self.metadata)

    def read(self) -> Iterator[Sample]:
        """One sample a file, in name order; then img2dataset's rows that have no file."""
        rows = metadata_rows(self.metadata) if self.metadata else {}
        for name in self.names:
            key = self._key(name)
            yield self._sample(name, key, rows.pop(key, None))
        for key, row in rows.items():
            yield failed_row(key, row, None)

    def fetch_many(self, places: Sequence[Place]) -> Iterator[tuple[Place, bytes | OSError]]:
        """Read the files again, in name order."""
        wanted = {place.key: place for place in places}
        for name in self.names:
            place = wanted.pop(clean_text(self._key(name)) or "", None)
            if place is not None:
                yield place, self._bytes_or_error(name)
        for place in wanted.values():
            yield place, ShardError("there is no such file any more")

    def _bytes_or_error(self, name: str) -> bytes | OSError:
        try:
            return self._bytes(name)
        except OSError as error:
            return error

    def _key(self, name: str) -> str:
        """img2dataset names a file by its key; in any other folder the name is the key."""
        return name.rpartition(".")[0] if self.metadata else name

    def _sample(self, name: str, key: str, row: dict[str, Any] | None) -> Sample:
        extension = name.rpartition(".")[2].lower()
        members: dict[str, bytes] = {}
        error = None
        try:
            members[extension] = self._bytes(name)
            stem = name.rpartition(".")[0]
            for sibling in ("json", "txt"):
                if f"{stem}.{sibling}" in self.siblings:
                    members[sibling] = self._bytes(f"{stem}.{sibling}")
        except OSError as problem:
            error = f"{type(problem).__name__}: {problem.strerror or 'cannot be read'}"
        known = row or self.captions.get(name) or parse_json(members.get("json"))
        text: Any = members.get("txt")
        if text is not None:
            text = clean_text(text)
            text = text if row else (text or "").strip()
        return Sample(
            key=clean_text(key) or "",
            members=members,
            image_ext=extension if extension in members else None,
            error=error,
            caption=text if text is not None else clean_text(first_present(known, "caption")),
            url=clean_text(first_present(known, "url")),
            uid=clean_text(first_present(known, "uid")),
            clip_score=as_score(first_present(known, "clip_score")),
        )

    def _bytes(self, name: str) -> bytes:
        with store.open_binary(store.join(self.source, name)) as stream:
            return stream.read()


def folder_shards(folder: str) -> list[FolderShard]:
    """Split a folder of images, recursively, into shards of at most a few hundred files, in name order."""
    everything = list(store.walk_files(folder))
    images = [name for name in everything if _image_suffix(name)]
    captions = read_captions(folder, everything)
    texts = {name for name in everything if name.endswith((".txt", ".json"))}
    shards = []
    for start in range(0, len(images), _FILES_PER_TASK):
        names = images[start : start + _FILES_PER_TASK]
        stems = {name.rpartition(".")[0] for name in names}
        shards.append(
            FolderShard(
                source=folder,
                names=tuple(names),
                captions={name: captions[name] for name in names if name in captions},
                siblings=frozenset(text for text in texts if text.rpartition(".")[0] in stems),
            )
        )
    return shards


def _image_suffix(name: str) -> str | None:
    """In a folder the last suffix names the format (``a.b.jpg`` is a JPEG); hidden files are no samples."""
    base = name.rsplit("/", 1)[-1]
    return None if base.startswith(".") else image_extension("x." + base.rpartition(".")[2])


def read_captions(folder: str, names: list[str]) -> dict[str, dict[str, Any]]:
    """Rows of ``captions.csv`` (``.tsv``, ``.jsonl``; or ``metadata.*``) by file name, if the folder has one.

    Raises:
        DedupkitError: the file has no column of file names, or cannot be parsed.
    """
    found = next((name for name in _CAPTION_FILES if name in names), None)
    if found is None:
        return {}
    path = store.join(folder, found)
    with store.open_binary(path) as stream:
        text = stream.read().decode("utf-8-sig", "replace")
    limit = csv.field_size_limit(sys.maxsize)  # of the whole process; captions can be longer than its 128 KiB
    try:
        if found.endswith(".jsonl"):
            rows = [json.loads(line) for line in text.split("\n") if line.strip()]
        else:
            delimiter = "\t" if found.endswith(".tsv") else ","
            rows = list(csv.DictReader(_io.StringIO(text), delimiter=delimiter))
        keyed = {str(first_present(row, "file")): row for row in rows}
    except (ValueError, AttributeError, csv.Error) as error:
        raise DedupkitError(f"{path} cannot be read: {error}") from error
    finally:
        csv.field_size_limit(limit)
    if rows and set(keyed) == {"None"}:
        raise DedupkitError(f"{path} has no column of file names; call it file_name")
    return keyed
