"""Small pictures of samples, made from the originals where they still can be read."""

from __future__ import annotations

import base64
import hashlib
import io
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from dedupkit.images import ImageError, luma_of, open_image
from dedupkit.sources.again import Fetch, fetcher, find_again
from dedupkit.store import read_columns, read_json

__all__ = ["Thumbnails", "thumbnail"]

_QUALITY = 78
_THREADS = 4  # each may hold one decoded image


class Thumbnails:
    """Thumbnails of a run's samples as ``data:`` addresses.

    Args:
        run: the run folder; ``run.json`` names the shards, ``samples/`` says where in them an image lies.
        side: of the square that a thumbnail fits in, in pixels.

    Attributes:
        missing: why a sample has no thumbnail, by sample.
    """

    def __init__(self, run: Path, side: int = 160) -> None:
        self._run = run
        self._side = side
        self.missing: dict[int, str] = {}

    def get(self, samples: Iterable[int]) -> dict[int, str]:
        """The thumbnails of some samples; those that cannot be made are left out and noted in ``missing``."""
        wanted = np.unique(np.fromiter(samples, np.int64))
        if not len(wanted):
            return {}
        config = read_json(self._run / "run.json") or {}
        names = list(config.get("shards", []))
        shards = find_again(config.get("sources", []), names)
        found: dict[int, str] = {}
        start = 0
        with ThreadPoolExecutor(_THREADS) as pool:
            for number, name in enumerate(names):
                file = self._run / "samples" / f"{number:05d}.parquet"
                rows = pq.read_metadata(file).num_rows
                here = wanted[(wanted >= start) & (wanted < start + rows)]
                if len(here):
                    table = read_columns(file, ["key", "offset", "nbytes", "sha256"])
                    places = table.take(pa.array(here - start)).to_pylist()
                    shard = shards[number]
                    fetch = None if shard is None else fetcher(shard, places)
                    jobs = ((fetch, name, place, self._side) for place in places)
                    for sample, (uri, problem) in zip(here.tolist(), pool.map(_make, jobs), strict=True):
                        if problem is None:
                            found[sample] = uri
                        else:
                            self.missing[sample] = problem
                start += rows
        return found

    @property
    def note(self) -> str | None:
        """One line about the thumbnails that are missing, None where none is."""
        if not self.missing:
            return None
        first = self.missing[min(self.missing)]
        count = len(self.missing)
        return f"{count:,} {'picture' if count == 1 else 'pictures'} could not be shown; the first: {first}"


def thumbnail(image: Image.Image, side: int = 160) -> bytes:
    """A JPEG that fits in a square, transparency over white, without any metadata of the original.

    Args:
        image: any mode.
        side: in pixels.

    Raises:
        ImageError: the mode cannot be converted.
    """
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        image = Image.fromarray(luma_of(image, min_side=side).plane)
    small = image.convert("RGBA" if "A" in image.getbands() or "transparency" in image.info else "RGB")
    small.thumbnail((side, side), Image.Resampling.LANCZOS, reducing_gap=3)
    canvas = Image.new("RGB", small.size, "white")
    canvas.paste(small, mask=small.getchannel("A") if small.mode == "RGBA" else None)
    buffer = io.BytesIO()
    canvas.save(buffer, "JPEG", quality=_QUALITY, optimize=True)
    return buffer.getvalue()


def _make(job: tuple[Fetch | None, str, dict[str, Any], int]) -> tuple[str, str | None]:
    """A thumbnail's address, or why there is none."""
    fetch, name, place, side = job
    if fetch is None:
        return "", f"{name} is not where it was when the run read it"
    if place["nbytes"] is None:
        return "", "the sample has no image"
    try:
        data = fetch(place)
        if hashlib.sha256(data).digest() != place["sha256"]:
            return "", f"{name} has changed since the run"
        small = thumbnail(open_image(data), side)
    except OSError as error:
        return "", f"{name} cannot be read: {error.strerror or error}"
    except ImageError as error:
        return "", str(error)
    except Exception as error:  # a store or a decoder may raise anything, and a report must still appear
        return "", f"{name} cannot be read: {type(error).__name__}"
    return "data:image/jpeg;base64," + base64.b64encode(small).decode(), None
