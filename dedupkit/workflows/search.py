"""Search: the samples of a run that are nearest to an image, a key or a text."""

from __future__ import annotations

import html
import os
import urllib.request
from dataclasses import dataclass, field, replace
from http.client import HTTPException
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from PIL import Image

from dedupkit.embedding import Embedder
from dedupkit.errors import DedupkitError, RereadError
from dedupkit.images import ImageError, open_image, thumbnail
from dedupkit.memorization.guard import without_vectors
from dedupkit.memorization.neighbours import Neighbour, Neighbours, TrainingImages
from dedupkit.memorization.queries import (
    FLAT,
    NO_VECTOR,
    QueryLike,
    embed_one,
    first_model,
    hash_of,
    model_of,
    opened,
)
from dedupkit.report.thumbnails import Thumbnails
from dedupkit.runfolder import RunFolder
from dedupkit.sources.again import Moved

__all__ = ["Search", "SearchResult"]

_RADIUS = 63  # of hashes that are shown; what a rule takes for a copy is nearer
_MOST_BYTES = 64 << 20
_SECONDS = 30

_Found = tuple[int, str, float]
"""A sample, the signal that found it, and its score."""


@dataclass(frozen=True, slots=True)
class SearchResult:
    """What a search finds.

    Attributes:
        query: What was asked, as text.
        found: The samples that are nearest: those near by hash, then those near by vector; of a duplicate group the
            nearest alone.
        notes: What the search could not see.
        run: The run folder, or its URL.
        folder: The run folder on this machine; None for a result that was read from JSON.
        moved: Where the data lies now, if it moved since the run.
    """

    query: str
    found: tuple[Neighbour, ...]
    notes: tuple[str, ...]
    run: str
    folder: Path | None = field(default=None, repr=False, compare=False)
    moved: Moved | None = field(default=None, repr=False, compare=False)

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready object."""
        found = [
            each.to_json() | {"in_words": each.in_words(), "verdict_in_words": each.verdict_in_words()}
            for each in self.found
        ]
        return {"query": self.query, "run": self.run, "found": found, "notes": list(self.notes)}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> SearchResult:
        """Read what :meth:`to_json` gives."""
        words = ("in_words", "verdict_in_words")
        rows = [{name: each for name, each in row.items() if name not in words} for row in value["found"]]
        return cls(value["query"], tuple(map(Neighbour.from_json, rows)), tuple(value["notes"]), value["run"])

    def __str__(self) -> str:
        lines = [_line(each) for each in self.found] or ["nothing is near"]
        return "\n".join([*lines, *(f"note: {note}" for note in self.notes)])

    def _repr_html_(self) -> str:
        folder = self.folder or RunFolder(self.run).path
        images: dict[tuple[str | None, int], str] = {}
        for run in {each.run for each in self.found}:
            thumbnails = Thumbnails(folder if run is None else RunFolder(run).path, moved=self.moved)
            made = thumbnails.get(each.sample for each in self.found if each.run == run)
            images |= {(run, sample): address for sample, address in made.items()}
        rows = []
        for each in self.found:
            made_of = images.get((each.run, each.sample))
            image = "no image" if made_of is None else f"<img src='{made_of}' alt=''>"
            rows.append(f"<tr><td>{image}</td><td>{html.escape(_line(each))}</td></tr>")
        notes = "".join(f"<p>{html.escape(note)}</p>" for note in self.notes)
        return f"<table>{''.join(rows)}</table>{notes}"


class Search:
    """A finished run that answers queries, with the runs that it updates; look-ups are made at first use and kept.

    Args:
        run: A finished run: its folder, or the object that ``dedup`` returns.
        embedder: The model behind the run's vectors, where it was given to the run as an object. By default the first
            embedder of the run whose model is known; where none is, hashes alone are compared.
        device: Device for torch.
        source: Where the data lies now, if it moved since the run.

    Raises:
        DedupkitError: There is no finished run, or it has no vectors of the embedder or of their length.

    Example::

        search = Search("runs/laion")
        print(search.image("query.jpg"))
    """

    def __init__(
        self,
        run: str | os.PathLike[str],
        *,
        embedder: Embedder | None = None,
        device: str | None = None,
        source: Moved | None = None,
    ) -> None:
        self._near = Neighbours(run)
        self._device, self._moved = device, source
        self._images: TrainingImages | None = None
        self._name = embedder.name if embedder is not None else first_model(self._near.config)
        self._given = embedder
        self._models: dict[str, Embedder] = {} if embedder is None else {embedder.name: embedder}
        if embedder is not None and embedder.name not in self._near.vectors:
            raise DedupkitError(f"the run has no vectors of {embedder.name}")
        if embedder is not None:
            self._near.refuse_other_length(embedder.name, embedder.dim)

    def find(self, query: QueryLike, top: int = 10) -> SearchResult:
        """Search for what a text names: an http(s) address, a file, a key of the run, else words for a CLIP.

        Args:
            query: The text, or an image or path as :meth:`image` takes it. An address is fetched, because it was named;
                nothing else is.
            top: Greatest number of samples.

        Raises:
            ImageError: What it names is no image.
            DedupkitError: It names nothing, and no embedder of the run takes text; or the address cannot be fetched.
            RereadError: The image that a key names cannot be read again.
        """
        if top < 1:
            raise DedupkitError(f"the number of samples must be at least 1, not {top}")
        if not isinstance(query, str):
            return self.image(query, top, os.fspath(query) if isinstance(query, os.PathLike) else "an image")
        if query.startswith(("http://", "https://")):
            return self.image(_fetched(query), top, query)
        if os.path.isfile(query):  # noqa: PTH113 - words need not be a valid path
            return self.image(query, top, query)
        return self.named(query, top)

    def named(self, query: str, top: int = 10) -> SearchResult:
        """Search for a key of the run, else for what words describe; no file is opened and no address fetched.

        Raises:
            DedupkitError: It is no key, and no embedder of the run takes text.
            RereadError: The image that a key names cannot be read again.
        """
        keyed = self._near.by_key(query)
        return self._like(query, keyed, top) if keyed else self.text(query, top)

    def image(self, image: QueryLike, top: int = 10, query: str = "an image") -> SearchResult:
        """Search for an image: a PIL image, an array (h, w) or (h, w, 3) uint8, the path of a file, or its bytes.

        Raises:
            ImageError: It is no image that can be used.
            DedupkitError: The file cannot be read.
            TypeError: It is none of these.
        """
        try:
            image = opened(image)
            code = hash_of(image)
        except ImageError as error:
            raise ImageError(f"{query} cannot be searched for: {error}") from error
        notes = self._near.notes(self._name) + ([] if code is not None else [FLAT])
        found = [] if code is None else [(at, "pdq", float(bits)) for at, bits in self._near.by_hash(code, _RADIUS)]
        if self._name is None:
            notes.append(without_vectors(self._near, "in Python, Search(run, embedder=…) takes it"))
            return self._result(query, self._first_of_groups(found, top), notes)
        vector = embed_one(self._loaded(self._name), image)
        if vector is None:
            return self._result(query, self._first_of_groups(found, top), [*notes, NO_VECTOR])
        return self._result(query, self._by_vector(self._name, vector, found, top), notes)

    def text(self, text: str, top: int = 10) -> SearchResult:
        """Search for what words describe, with the text side of a CLIP.

        Raises:
            DedupkitError: No embedder of the run takes text.
        """
        names = self._text_names()
        if not names:
            raise DedupkitError(
                f"{text!r} is no file, address or key of the run, and words need vectors of a CLIP that no projection "
                "changed: give the run's command again with --embed openclip:MODEL/PRETRAINED"
            )
        model: Any = self._loaded(names[0])
        words = text.encode("utf-8", "replace").decode()  # what is typed need not be Unicode
        vector = np.asarray(model.encode_text([words])[0], np.float32)
        return self._result(text, self._by_vector(names[0], vector, [], top), self._near.notes(names[0]))

    @property
    def path(self) -> Path:
        """The run folder."""
        return self._near.folder.path

    @property
    def samples(self) -> int:
        """Number of samples that are searched."""
        return self._near.samples

    @property
    def takes_text(self) -> bool:
        """Whether words can be searched for."""
        return bool(self._text_names())

    def load(self) -> None:
        """Load the model and compile the loops, so that the first answer takes no longer than the next."""
        self.image(Image.fromarray(np.random.default_rng(0).integers(0, 256, (96, 96, 3), dtype=np.uint8)))

    def thumbnail(self, sample: int, side: int = 240, run: str | None = None) -> bytes:
        """A sample as a small JPEG file.

        Args:
            sample: Row number in its run.
            side: Side of the square that it fits in, in pixels.
            run: The earlier run in which it lies; None for the run that is searched.

        Raises:
            RereadError: It cannot be read again.
            ImageError: It cannot be shown.
        """
        return thumbnail(open_image(self._read(self._near.number(sample, run))), side)

    def _read(self, sample: int) -> bytes:
        if self._images is None:
            self._images = TrainingImages(self._near, self._moved)
        _, data = next(iter(self._images.read([sample])))
        return data

    def _text_names(self) -> list[str]:
        if self._given is not None and hasattr(self._given, "encode_text"):
            return [self._given.name]
        embedders = self._near.config.embedders
        return [n for n, spec in embedders.items() if spec.startswith("openclip:") and "project=" not in spec]

    def _loaded(self, name: str) -> Embedder:
        if name not in self._models:
            self._models[name] = model_of(self._near, name, self._device)
        return self._models[name]

    def _like(self, query: str, named: list[int], top: int) -> SearchResult:
        """The samples that a key names, and their neighbours."""
        problems: list[DedupkitError] = []
        for sample in named:
            try:
                near = self.image(self._read(sample), top, query)
                break
            except (RereadError, ImageError) as error:  # another sample of the key may be read
                problems.append(error)
        else:
            raise problems[0]
        if problems:
            note = f"{len(problems):,} of the {len(named):,} samples of this key cannot be read: {problems[0]}"
            near = replace(near, notes=(*near.notes, note))
        itself = tuple(self._near.describe(sample, "key", 0.0) for sample in named)
        places = {(each.run, each.sample) for each in itself}
        others = tuple(each for each in near.found if (each.run, each.sample) not in places)
        return replace(near, found=(itself + others)[:top])

    def _by_vector(self, name: str, vector: NDArray[np.float32], before: list[_Found], top: int) -> list[_Found]:
        """The nearest of each duplicate group: those found before, then those near by vector."""
        count = 8 * top
        while True:
            near = self._near.by_vector(name, vector, count)
            chosen = self._first_of_groups([*before, *((at, name, score) for at, score in near)], top)
            if len(chosen) == top or len(near) < count:  # of a group of very many, all may be nearer than the next
                return chosen
            count *= 2

    def _first_of_groups(self, found: list[_Found], top: int) -> list[_Found]:
        samples = pa.array([at for at, *_ in found], pa.int64())
        groups = self._near.column("group").take(samples)
        _, first = np.unique(pc.coalesce(groups, pc.subtract(-1, samples)).to_numpy(), return_index=True)
        return [found[row] for row in np.sort(first)[:top].tolist()]

    def _result(self, query: str, found: list[_Found], notes: list[str]) -> SearchResult:
        chosen = tuple(self._near.describe(*each) for each in found)
        folder = self._near.folder
        return SearchResult(query, chosen, tuple(notes), folder.shown, folder.path, self._moved)


def _line(each: Neighbour) -> str:
    caption = "" if not each.caption else f"  {' '.join(each.caption.split())[:100]}"
    return f"{each.in_words()}  {each.key}  ({each.verdict_in_words()}; {each.source}){caption}"


def _fetched(url: str) -> bytes:
    request = urllib.request.Request(url, headers={"User-Agent": "dedupkit"})  # noqa: S310 - http(s), as was checked
    try:
        with urllib.request.urlopen(request, timeout=_SECONDS) as reply:  # noqa: S310
            data: bytes = reply.read(_MOST_BYTES + 1)
    except (OSError, ValueError, HTTPException) as error:
        raise DedupkitError(f"{url} cannot be fetched: {error}; download the image and name its file") from error
    if len(data) > _MOST_BYTES:
        raise DedupkitError(f"{url} is larger than {_MOST_BYTES >> 20} MiB; download the image and name its file")
    return data
