"""WebDataset tars, and img2dataset's with the Parquet file beside them.

A sample is a run of contiguous members with one key: the path up to the first dot of the base name. Names ``__*__``
and names without a dot are skipped, as the webdataset package does.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import IO, Any, cast

from dedupkit import store
from dedupkit.sources.columns import IMAGE_EXTENSIONS, as_score, as_text, clean_text, first_present
from dedupkit.sources.img2dataset import Metadata, parse_json
from dedupkit.sources.keys import text_of
from dedupkit.sources.limits import MAX_IMAGE_BYTES, MAX_MEMBERS, too_large
from dedupkit.sources.sample import NOTHING, Extra, PassedOver, Place, Sample, ShardError, as_shard_errors
from dedupkit.sources.tar_stream import TarMember, TrailingDataError, iter_tar

__all__ = ["TarShard", "split_name"]

_TEXT = ("txt", "caption", "text")
_BROKEN = "the archive breaks off after this sample's first members"
_CROWDED = f"more than {MAX_MEMBERS:,} files, or {MAX_IMAGE_BYTES:,} bytes, under one key"


@dataclass(frozen=True, slots=True)
class TarShard:
    """A tar of samples.

    Attributes:
        path: Path of the tar.
        metadata: img2dataset's Parquet file of the same shard, where there is one.
        beside: how many files of its folder belong to no shard, and the name of one; told by one shard for all.
    """

    path: str
    metadata: str | None = None
    beside: tuple[int, str] = NOTHING

    @property
    def source(self) -> str:
        """The path as text."""
        return text_of(self.path)

    @property
    def paths(self) -> tuple[str, ...]:
        """The tar and its metadata."""
        return (self.path,) if self.metadata is None else (self.path, self.metadata)

    @property
    def settings(self) -> str:
        """Nothing."""
        return ""

    def read(self, *, extra: Extra = False, passed_over: PassedOver | None = None) -> Iterator[Sample]:
        """The tar's samples in its order, then the rows of the metadata that have no image in it."""
        if passed_over is not None and self.beside[0]:
            passed_over.add(text_of(self.beside[1]), self.beside[0])
        metadata = Metadata(self.metadata, extra=extra)
        failure: ShardError | None = None
        try:
            yield from as_shard_errors(self._samples(metadata, passed_over, extra))
        except ShardError as error:
            failure = error
        yield from metadata.left(failure)
        if failure is not None:
            raise failure
        if metadata.problem is not None:
            raise ShardError(metadata.problem)

    def fetch_many(self, places: Sequence[Place]) -> Iterator[tuple[Place, bytes | OSError]]:
        """Seek from image to image; a compressed tar is read once, as far as the last of them."""
        if self._is_compressed():
            yield from as_shard_errors(self._fetch_in_one_pass(places))
            return
        ordered = sorted(places, key=lambda place: place.offset or 0)
        ranges = [(place.offset or 0, min(place.nbytes or 0, MAX_IMAGE_BYTES)) for place in ordered]
        yield from zip(ordered, store.read_ranges(self.path, ranges), strict=True)

    def _fetch_in_one_pass(self, places: Sequence[Place]) -> Iterator[tuple[Place, bytes | OSError]]:
        wanted = {place.key: place for place in places}
        for group in self._grouped(None):
            if not wanted:
                return
            key = text_of(group.key)
            image = _sample(group, {}, seekable=False, extra=False).image if key in wanted else None
            if image is not None:
                yield wanted.pop(key), image
        for place in wanted.values():
            yield place, ShardError("it is no longer in the archive")

    def _samples(self, metadata: Metadata, passed_over: PassedOver | None, extra: Extra) -> Iterator[Sample]:
        seekable = not self._is_compressed()
        for group in self._grouped(passed_over):
            yield _sample(group, metadata.take(group.key) if metadata else {}, seekable=seekable, extra=extra)

    def _grouped(self, passed_over: PassedOver | None) -> Iterator[_Group]:
        """Runs of contiguous members of one key."""
        group: _Group | None = None
        try:
            with store.open_binary(self.path) as raw:
                for member in iter_tar(self._decompressed(raw)):
                    split = None if member.kind in _NO_SAMPLE else split_name(member.name)
                    if split is None:
                        if passed_over is not None and member.kind != "folder":
                            passed_over.add(text_of(member.name))
                        continue
                    key, extension = split
                    if group is None or key != group.key:
                        if group is not None:
                            yield group
                        group = _Group(key, [])
                    group.add(extension, member)
        except (OSError, EOFError, zlib.error) as error:
            if group is not None:
                group.problem = group.problem if isinstance(error, TrailingDataError) else _BROKEN
                yield group
            if isinstance(error, (EOFError, zlib.error, gzip.BadGzipFile)):
                raise ShardError(f"broken gzip stream: {error}") from error
            raise
        if group is not None:
            yield group

    def _decompressed(self, raw: IO[bytes]) -> IO[bytes]:
        return cast("IO[bytes]", gzip.GzipFile(fileobj=raw)) if self._is_compressed() else raw

    def _is_compressed(self) -> bool:
        return self.path.endswith((".gz", ".tgz"))


_NO_SAMPLE = frozenset({"folder", "device", "label"})
_PROBLEMS = {
    "link": "is a link, not a file",
    "sparse": "is a sparse file, which is not read",
    "unknown": "is of a kind that is not known",
}


@dataclass(slots=True)
class _Group:
    """Contiguous members of one key, and what is wrong with them."""

    key: str
    members: list[tuple[str, TarMember]]
    problem: str | None = None
    nbytes: int = 0

    def add(self, extension: str, member: TarMember) -> None:
        """One more member, unless there are too many."""
        self.nbytes += len(member.data)
        if len(self.members) < MAX_MEMBERS and self.nbytes <= MAX_IMAGE_BYTES:
            self.members.append((extension, member))
        else:
            self.problem = _CROWDED


def split_name(name: str) -> tuple[str, str] | None:
    """Split a member's name into key and lower-case extension; None for names that are not samples."""
    folder, slash, base = name.rpartition("/")
    stem, dot, extension = base.partition(".")
    if not dot or not stem or not extension or (base.startswith("__") and base.endswith("__")):
        return None
    return folder + slash + stem, extension.lower()


def _sample(group: _Group, row: dict[str, Any], *, seekable: bool, extra: Extra) -> Sample:
    key = group.key
    members: dict[str, bytes] = {}
    errors = [group.problem] if group.problem else []
    for extension, member in group.members:
        if member.kind == "large":
            errors.append(too_large(f"{key}.{extension}", member.size))
        elif member.kind != "file":
            errors.append(f"{key}.{extension} {_PROBLEMS[member.kind]}")
        elif extension in members:
            errors.append(f"two members named {key}.{extension}")
        else:
            members[extension] = member.data
    if key.startswith("/") or ".." in key.split("/"):
        errors.append("unsafe path: it climbs out of the folder it would be unpacked in")
    images = [extension for extension in members if extension in IMAGE_EXTENSIONS]
    if not images:
        errors.append("no image under this key")
    elif len(images) > 1:
        errors.append("two images under one key: " + ", ".join(f"{key}.{extension}" for extension in images))
    stated = parse_json(members.get("json")) if extra or not row else {}
    known = row or stated
    text = next((members[extension] for extension in _TEXT if extension in members), None)
    image_ext = images[0] if images else None
    offset = next((member.offset for extension, member in group.members if extension == image_ext), None)
    return Sample(
        key=text_of(key),
        members=members,
        image_ext=image_ext,
        error=text_of("; ".join(errors)) or None,
        caption=clean_text(text) if text is not None else as_text(known, "caption"),
        url=as_text(known, "url"),
        uid=as_text(known, "uid"),
        clip_score=as_score(first_present(known, "clip_score")),
        offset=offset if seekable else None,
        extra={**stated, **known} if extra else {},
    )
