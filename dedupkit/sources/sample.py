"""What every reader takes and yields."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from dedupkit.errors import DedupkitError

__all__ = ["NOTHING", "Extra", "NoImagesError", "PassedOver", "Place", "Sample", "Shard", "ShardError",
    "as_shard_errors", "is_asked", "paths_to_ask",
]  # fmt: skip

T = TypeVar("T")

NOTHING = (0, "")
"""Nothing was passed over in a folder: a count and a name."""

Extra = bool | Collection[str]
"""Whether ``Sample.extra`` is filled in, or the names that it must have where the source has them."""


class ShardError(DedupkitError, OSError):
    """A shard that cannot be read, or not to its end; the message is the reason that the manifest shows."""


class NoImagesError(ShardError):
    """A shard of which no sample holds an image, because it is something else: a table of URLs, for example."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One input sample as its source has it.

    Attributes:
        key: its name in the shard.
        members: every file of the sample, extension to bytes, in source order; the image among them.
        image_ext: the extension of the image in ``members``; None where there is none.
        error: why it cannot be used, where the source itself says so (a failed download, a broken archive).
        caption: the text, as the source has it; the first of several.
        url: where the image came from.
        uid: the data set's own identifier.
        clip_score: image-text similarity that the source states.
        offset: position of the image's bytes in the shard, where a later pass can seek there.
        extra: where it was asked for, columns of the source's row but the image, under their own names: all, or those
            that were named, at least.
        transient: whether the error may pass: the next run tries again.
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
    extra: Mapping[str, Any] = field(default_factory=dict)
    transient: bool = False

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


@dataclass(slots=True)
class PassedOver:
    """What a reader saw and did not take for a sample or a part of one.

    Attributes:
        count: how many files or members.
        example: the name of the first.
    """

    count: int = 0
    example: str | None = None

    def add(self, name: str, count: int = 1) -> None:
        """Count a file or member, or several of which one is named."""
        self.count += count
        if self.example is None:
            self.example = name


class Shard(Protocol):
    """A readable piece of a source: small, picklable, read by one task."""

    @property
    def source(self) -> str:
        """The manifest's ``source``: path or URL, as text."""

    @property
    def paths(self) -> tuple[str, ...]:
        """The files whose change makes the shard another shard."""

    @property
    def settings(self) -> str:
        """What else its samples depend on, e.g. a digest of captions that were read elsewhere; mostly empty."""

    def read(self, *, extra: Extra = False, passed_over: PassedOver | None = None) -> Iterator[Sample]:
        """Yield the samples in a stable order.

        Args:
            extra: Fill in ``Sample.extra``; columns that are named, at least.
            passed_over: Counts what is neither a sample nor a part of one.

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


def is_asked(name: str, extra: Extra) -> bool:
    """Whether a column is one of those that ``Sample.extra`` must have."""
    return extra if isinstance(extra, bool) else name in extra


def paths_to_ask(shard: Shard) -> tuple[str, ...]:
    """The files of a shard of which the store must be asked whether they changed.

    The files of a remote folder are left out: the listing told their states, which are in ``settings``.
    """
    if not getattr(shard, "states", ""):
        return shard.paths
    metadata = getattr(shard, "metadata", None)
    return () if metadata is None else (metadata,)


def as_shard_errors(items: Iterator[T]) -> Iterator[T]:
    """Yield what a reader yields; whatever it raises becomes the shard's problem.

    Raises:
        ShardError: in place of any other error.
    """
    try:
        yield from items
    except ShardError:
        raise
    except FileNotFoundError as error:
        raise ShardError("the shard is gone: no such file") from error
    except Exception as error:
        raise ShardError(f"{type(error).__name__}: {error}") from error
