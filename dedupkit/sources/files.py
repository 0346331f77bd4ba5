"""Images as files: any folder of them, and img2dataset's ``files`` output."""

from __future__ import annotations

import errno
import hashlib
import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from dedupkit import store
from dedupkit.sources.captions import caption_files, read_captions
from dedupkit.sources.columns import as_score, as_text, clean_text, first_present, image_extension
from dedupkit.sources.img2dataset import Metadata, parse_json
from dedupkit.sources.keys import name_of, text_of
from dedupkit.sources.limits import MAX_IMAGE_BYTES, too_large
from dedupkit.sources.sample import NOTHING, Extra, PassedOver, Place, Sample, ShardError, as_shard_errors

__all__ = ["FolderShard", "folder_shards", "img2dataset_files"]

_FILES_PER_TASK = 512
_TEXT = ("txt", "caption")
_SIDECARS = (*_TEXT, "json")
_LASTING = (errno.EINVAL, errno.ELOOP, errno.ENXIO)  # no regular file: a pipe, a circle of links, a socket


@dataclass(frozen=True, slots=True)
class FolderShard:
    """Some image files of a folder.

    Attributes:
        folder: the folder.
        names: the image files, relative to it.
        captions: rows of captions files by file name, for those of ``names`` that have one.
        siblings: files that exist beside the images (``.txt``, ``.caption``, ``.json``), relative names.
        metadata: img2dataset's Parquet file, for its ``files`` output: keys are then the stems.
        unread: subfolders that could not be listed, and why.
        passed_over: how many files of the folder are neither images nor about one, and the name of one.
        states: Digest, for a remote folder, of what the listing said of these files; they are not asked for singly.
    """

    folder: str
    names: tuple[str, ...]
    captions: dict[str, dict[str, Any]] = field(default_factory=dict)
    siblings: frozenset[str] = frozenset()
    metadata: str | None = None
    unread: tuple[tuple[str, str], ...] = ()
    passed_over: tuple[int, str] = NOTHING
    states: str = ""

    @property
    def source(self) -> str:
        """The folder as text."""
        return text_of(self.folder)

    @property
    def paths(self) -> tuple[str, ...]:
        """The image files, those beside them, and the metadata."""
        files = tuple(store.join(self.folder, name) for name in (*self.names, *sorted(self.siblings)))
        return files if self.metadata is None else (*files, self.metadata)

    @property
    def settings(self) -> str:
        """A digest of the captions that come from files of their own, and of the folders that could not be read."""
        return _digest([self.captions, self.unread, self.states]) if self.captions or self.unread or self.states else ""

    def read(self, *, extra: Extra = False, passed_over: PassedOver | None = None) -> Iterator[Sample]:
        """One sample a file, in name order; then img2dataset's rows that have no file, and folders not listed."""
        if passed_over is not None and self.passed_over[0]:
            passed_over.add(text_of(self.passed_over[1]), self.passed_over[0])
        return as_shard_errors(self._read(extra))

    def _read(self, extra: Extra) -> Iterator[Sample]:
        metadata = Metadata(self.metadata, extra=extra)
        for name in self.names:
            yield self._sample(name, metadata.take(self._key(name)), extra)
        yield from metadata.left(None)
        for folder, why in self.unread:
            yield Sample(key=text_of(folder) + "/", error=f"the folder cannot be read: {why}")
        if metadata.problem is not None:
            raise ShardError(metadata.problem)

    def fetch_many(self, places: Sequence[Place]) -> Iterator[tuple[Place, bytes | OSError]]:
        """Read the files again, in name order; then those that another shard of the folder holds now."""
        wanted = {place.key: place for place in places}
        for name in self.names:
            place = wanted.pop(text_of(self._key(name)), None)
            if place is not None:
                yield place, self._bytes_or_error(name)
        for key, place in sorted(wanted.items()):
            if self.metadata is not None:
                yield place, ShardError("there is no such file any more")
            else:  # one file more or less moves all that come later to other shards
                yield place, self._bytes_or_error(name_of(key))

    def _bytes_or_error(self, name: str) -> bytes | OSError:
        try:
            return self._bytes(name)
        except OSError as error:
            return error

    def _key(self, name: str) -> str:
        """img2dataset names a file by its key; in any other folder the name is the key."""
        return name.rpartition(".")[0] if self.metadata else name

    def _sample(self, name: str, row: dict[str, Any], extra: Extra) -> Sample:
        stem, _, extension = name.rpartition(".")
        extension = extension.lower()
        members: dict[str, bytes] = {}
        errors, transient = [], False
        beside = [(sidecar, f"{stem}.{sidecar}") for sidecar in _SIDECARS if f"{stem}.{sidecar}" in self.siblings]
        for member, file in [(extension, name), *beside]:
            try:
                members[member] = self._bytes(file)
            except OSError as problem:
                about = "" if file == name else f"{text_of(file)}: "
                why = problem.strerror or str(problem) or "cannot be read"
                kind = "" if isinstance(problem, ShardError) else f"{type(problem).__name__}: "
                errors.append(f"{about}{kind}{why}")
                transient = transient or _may_pass(problem)
        known = row or self.captions.get(name)
        stated = parse_json(members.get("json")) if extra or not known else {}
        known = known or stated
        text = clean_text(next((members[kind] for kind in _TEXT if kind in members), None))
        if text is not None and not row:
            text = text.strip()
        caption = text if text is not None else as_text(known, "caption")
        if text is None and caption is not None and name in self.captions:
            members["txt"] = caption.encode()  # or the caption would be lost with the table that it comes from
        return Sample(
            key=text_of(self._key(name)),
            members=members,
            image_ext=extension if extension in members else None,
            error="; ".join(errors) or None,
            caption=caption,
            url=as_text(known, "url"),
            uid=as_text(known, "uid"),
            clip_score=as_score(first_present(known, "clip_score")),
            extra={**stated, **known} if extra else {},
            transient=transient,
        )

    def _bytes(self, name: str) -> bytes:
        with store.open_binary(store.join(self.folder, name)) as stream:
            data = stream.read(MAX_IMAGE_BYTES + 1)
            if len(data) > MAX_IMAGE_BYTES:
                raise ShardError(too_large("the file", stream.seek(0, 2)))
            return data


def folder_shards(folder: str) -> list[FolderShard]:
    """Split a folder of images, recursively, into shards of at most a few hundred files, in name order."""
    unread: list[tuple[str, str]] = []
    states: dict[str, list[Any]] = {}
    everything = list(store.walk_files(folder, lambda name, error: unread.append((name, _why(error))), states))
    images = [name for name in everything if _image_suffix(name)]
    tables = caption_files(everything, images)
    captions, unused = read_captions(folder, tables, images)
    texts = {name for name in everything if name.endswith(tuple(f".{sidecar}" for sidecar in _SIDECARS))}
    stems = {name.rpartition(".")[0] for name in images}
    about = {name for name in texts if name.rpartition(".")[0] in stems} | (set(tables) - set(unused))
    others = [name for name in everything if name not in about and not _image_suffix(name) and not _is_hidden(name)]
    beside: dict[str, list[str]] = defaultdict(list)
    for name in texts:
        beside[name.rpartition(".")[0]].append(name)
    shards = []
    for start in range(0, max(len(images), bool(unread)), _FILES_PER_TASK):
        names = images[start : start + _FILES_PER_TASK]
        siblings = frozenset(text for name in names for text in beside.get(name.rpartition(".")[0], ()))
        shards.append(
            FolderShard(
                folder=folder,
                names=tuple(names),
                captions={name: captions[name] for name in names if name in captions},
                siblings=siblings,
                unread=tuple(sorted(unread)) if not start else (),
                passed_over=(len(others), others[0]) if others and not start else NOTHING,
                states=_digest([states.get(name) for name in (*names, *sorted(siblings))]) if states else "",
            )
        )
    return shards


def img2dataset_files(folder: str, stem: str) -> FolderShard:
    """One shard of img2dataset's ``files`` output; all its samples may have failed, then there is no subfolder."""
    inside = store.join(folder, stem)
    unread: list[tuple[str, str]] = []
    names: list[str] = []
    states: dict[str, list[Any]] = {}
    if store.exists(inside):
        every = store.walk_files(inside, lambda name, error: unread.append((name, _why(error))), states)
        names = [name for name in every if not _is_hidden(name)]
    return FolderShard(
        folder=inside,
        names=tuple(name for name in names if not name.endswith((".txt", ".json"))),
        siblings=frozenset(name for name in names if name.endswith((".txt", ".json"))),
        metadata=store.join(folder, stem + ".parquet"),
        unread=tuple(sorted(unread)),
        states=_digest([states.get(name) for name in names]) if states else "",
    )


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()


def _why(error: OSError) -> str:
    return error.strerror or str(error) or type(error).__name__


def _may_pass(error: OSError) -> bool:
    """Whether another try may read what this one could not: the file is there, and no other one is meant."""
    return not isinstance(error, (ShardError, FileNotFoundError)) and error.errno not in _LASTING


def _image_suffix(name: str) -> str | None:
    """In a folder the last suffix names the format (``a.b.jpg`` is a JPEG); hidden files are no samples."""
    return None if _is_hidden(name) else image_extension("x." + name.rsplit("/", 1)[-1].rpartition(".")[2])


def _is_hidden(name: str) -> bool:
    return name.rsplit("/", 1)[-1].startswith(".")
