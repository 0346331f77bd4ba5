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
from dedupkit.sources.img2dataset import failed_row, metadata_rows, parse_json
from dedupkit.sources.sample import IMAGE_EXTENSIONS, Place, Sample, ShardError, as_score, clean_text, first_present
from dedupkit.sources.tar_stream import TarMember, iter_tar

__all__ = ["TarShard", "split_name"]

_TEXT = ("txt", "caption", "text")


@dataclass(frozen=True, slots=True)
class TarShard:
    """A tar of samples; ``metadata`` is img2dataset's Parquet file of the same shard, where there is one."""

    source: str
    metadata: str | None = None

    @property
    def paths(self) -> tuple[str, ...]:
        """The tar and its metadata."""
        return (self.source,) if self.metadata is None else (self.source, self.metadata)

    def read(self) -> Iterator[Sample]:
        """The tar's samples in its order, then the rows of the metadata that have no image in it."""
        rows = metadata_rows(self.metadata) if self.metadata else {}
        failure: ShardError | None = None
        try:
            for key, members, problem in self._grouped():
                yield _sample(key, members, rows.pop(key, None), problem, seekable=not self._is_compressed())
        except (OSError, EOFError, zlib.error) as error:
            failure = error if isinstance(error, ShardError) else ShardError(_reason(error))
        for key, row in rows.items():
            yield failed_row(key, row, failure)
        if failure is not None:
            raise failure

    def fetch_many(self, places: Sequence[Place]) -> Iterator[tuple[Place, bytes | OSError]]:
        """Seek from image to image; a compressed tar is read once, as far as the last of them."""
        if self._is_compressed():
            yield from self._fetch_in_one_pass(places)
            return
        with store.open_binary(self.source) as stream:
            for place in sorted(places, key=lambda place: place.offset or 0):
                stream.seek(place.offset or 0)
                yield place, stream.read(place.nbytes or 0)

    def _fetch_in_one_pass(self, places: Sequence[Place]) -> Iterator[tuple[Place, bytes | OSError]]:
        wanted = {place.key: place for place in places}
        for key, members, _ in self._grouped():
            if not wanted:
                return
            name = clean_text(key) or ""
            image = _sample(key, members, None, None, seekable=False).image if name in wanted else None
            if image is not None:
                yield wanted.pop(name), image
        for place in wanted.values():
            yield place, ShardError("it is no longer in the archive")

    def _grouped(self) -> Iterator[tuple[str, list[tuple[str, TarMember]], str | None]]:
        """Runs of contiguous members of one key as (extension, member), and what is wrong with the run."""
        current: str | None = None
        members: list[tuple[str, TarMember]] = []
        try:
            with store.open_binary(self.source) as raw:
                for member in iter_tar(self._decompressed(raw)):
                    split = split_name(member.name)
                    if split is None or member.kind == "other":
                        continue
                    key, extension = split
                    if key != current and current is not None:
                        yield current, members, None
                        members = []
                    current = key
                    members.append((extension, member))
        except (OSError, EOFError, zlib.error):
            if current is not None:
                yield current, members, "the archive breaks off after this sample's first members"
            raise
        if current is not None:
            yield current, members, None

    def _decompressed(self, raw: IO[bytes]) -> IO[bytes]:
        return cast("IO[bytes]", gzip.GzipFile(fileobj=raw)) if self._is_compressed() else raw

    def _is_compressed(self) -> bool:
        return self.source.endswith((".gz", ".tgz"))


def split_name(name: str) -> tuple[str, str] | None:
    """Split a member's name into key and lower-case extension; None for names that are not samples."""
    folder, slash, base = name.rpartition("/")
    stem, dot, extension = base.partition(".")
    if not dot or not stem or not extension or (base.startswith("__") and base.endswith("__")):
        return None
    return folder + slash + stem, extension.lower()


def _sample(
    key: str,
    named: list[tuple[str, TarMember]],
    row: dict[str, Any] | None,
    problem: str | None,
    *,
    seekable: bool,
) -> Sample:
    members: dict[str, bytes] = {}
    errors = [problem] if problem else []
    for extension, member in named:
        if member.kind == "link":
            errors.append(f"{key}.{extension} is a link, not a file")
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
    known = row or parse_json(members.get("json"))
    text = next((members[extension] for extension in _TEXT if extension in members), None)
    caption = clean_text(text) if text is not None else clean_text(first_present(known, "caption"))
    image_ext = images[0] if images else None
    offset = next((member.offset for extension, member in named if extension == image_ext), None)
    return Sample(
        key=clean_text(key) or "",
        members=members,
        image_ext=image_ext,
        error="; ".join(errors) or None,
        caption=caption,
        url=clean_text(first_present(known, "url")),
        uid=clean_text(first_present(known, "uid")),
        clip_score=as_score(first_present(known, "clip_score")),
        offset=offset if seekable else None,
    )


def _reason(error: BaseException) -> str:
    if isinstance(error, FileNotFoundError):
        return "the shard is gone: no such file"
    if isinstance(error, (EOFError, zlib.error, gzip.BadGzipFile)):
        return f"broken gzip stream: {error}"
    return f"{type(error).__name__}: {error}"
