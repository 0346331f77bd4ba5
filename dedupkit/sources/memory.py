"""Images in memory as a source: PIL images, arrays, the bytes of files, a Hugging Face ``Dataset``.

The images are laid down as Parquet files in a temporary folder that goes away with the run. So every later step (many
processes, verification, thumbnails, cleaned shards) works as it does on shards, and no step holds all images at once.
The shards are named by a digest of what is in them, and not by where they lie, so that a run goes on when it is given
the same images again.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import tempfile
import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

from dedupkit.errors import DedupkitError
from dedupkit.sources.around import AroundShard
from dedupkit.sources.columns import ALIASES, as_text, clean_text
from dedupkit.sources.keys import text_of, unique_key
from dedupkit.sources.parquet import ParquetShard
from dedupkit.sources.sample import Extra, PassedOver, Sample, Shard

__all__ = ["Images", "TemporaryFolder", "file_of", "images_in", "laid_down", "lay_down"]

_IMAGES_PER_FILE, _BYTES_PER_FILE = 256, 64 << 20
_PNG_MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")
_TIFF_MODES = ("I", "F")  # 32 bits, which PNG does not have
_CARRIED = ("url", "uid")
_TEXTS = ("key", "status", "error_message", "caption", *_CARRIED)
_TAKEN = {*_TEXTS, "image"}  # names that mean something else in the files


@dataclass(frozen=True, slots=True, eq=False)
class Images:
    """Images in memory, with names and captions.

    Attributes:
        images: PIL images, arrays (h, w), (h, w, 3) or (h, w, 4) of uint8, or the bytes of files, in any iterable; one
            array (n, h, w, 3); or a Hugging Face ``Dataset``. None stands for a missing image.
        keys: A unique name for each image, or the column of a ``Dataset`` that has it; its number by default, with
            eight digits, or a ``Dataset``'s own column ``__key__`` or ``key``, in which a key may come again.
        captions: A text or None for each image, or the column; a ``Dataset``'s own column of captions by default.
        column: Column of a ``Dataset`` that holds the images, if it has several.

    Example:
        >>> import numpy as np, dedupkit as dk
        >>> noise = np.random.default_rng(0).integers(0, 256, (64, 64), np.uint8)
        >>> run = dk.dedup(dk.Images([noise, noise, 255 - noise], keys=["a", "b", "c"]), workers=1)
        >>> run.kept["key"].to_pylist()
        ['a', 'c']
    """

    images: Any
    keys: Any = None
    captions: Any = None
    column: str | None = None


class TemporaryFolder:
    """A folder that is removed with the last object that holds it, at the latest when Python ends.

    Attributes:
        path: The folder.
    """

    def __init__(self) -> None:
        self.path = Path(tempfile.mkdtemp(prefix="dedupkit-"))
        weakref.finalize(self, shutil.rmtree, self.path, ignore_errors=True)


def images_in(sources: Any) -> Images | None:
    """The images that a caller gave instead of sources; None where they are paths.

    Args:
        sources: The first argument of :func:`dedupkit.dedup`.
    """
    if isinstance(sources, Images):
        return sources
    if isinstance(sources, str | os.PathLike):
        return None
    if isinstance(sources, list | tuple):
        return None if sources and isinstance(sources[0], str | os.PathLike) else Images(sources)
    return Images(sources)


def lay_down(images: Images, above: Path) -> Path:
    """Write images as Parquet files, a few hundred in each, into a folder that is named by a digest of all of them.

    PIL images and arrays are stored as PNG, those of 32 bits as TIFF, which loses nothing, with their EXIF orientation
    applied; of modes that neither has (CMYK, YCbCr, …) as RGB. Bytes are stored as they are.

    Args:
        images: The images.
        above: Where that folder is made.

    Returns:
        The folder.

    Raises:
        DedupkitError: An object that is no image, keys that repeat, or lists of different lengths.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    numeric = _numbers(images)
    columns = [*((name, pa.string()) for name in _TEXTS), *numeric.items()]
    schema, names = pa.schema([*columns, ("image", kind)]), (*_TEXTS, *numeric)
    folder, digest = above / "images", hashlib.sha256()
    folder.mkdir(parents=True)
    if numeric:  # else a renamed column would go on with the values of the old one
        digest.update(json.dumps([(name, str(kind)) for name, kind in numeric.items()]).encode())
    rows: list[dict[str, Any]] = []
    held, numbers = 0, count()

    def write() -> None:
        table = pa.Table.from_pylist(rows, schema=schema)
        pq.write_table(table, folder / f"{next(numbers):05d}.parquet", compression="none", row_group_size=32)

    for row in _rows(images):
        rows.append(row)
        data = (row["image"] or {}).get("bytes") or b""
        digest.update(json.dumps([*(row.get(name) for name in names), len(data)]).encode() + data)
        held += len(data)
        if len(rows) == _IMAGES_PER_FILE or held >= _BYTES_PER_FILE:
            write()
            rows, held = [], 0
    if rows:
        write()
    if not next(numbers):
        raise DedupkitError("neither images nor sources given: the collection is empty")
    return folder.rename(above / f"images-in-memory-{digest.hexdigest()[:16]}")


def laid_down(folder: Path) -> list[Shard]:
    """The shards in a folder of :func:`lay_down`, in the order of the images; they are named from the one above."""
    return [_ImagesShard(ParquetShard(str(path)), text_of(str(folder.parent))) for path in sorted(folder.iterdir())]


@dataclass(frozen=True, slots=True)
class _ImagesShard(AroundShard):
    """A file of images, with a name that says what they are wherever it lies.

    Attributes:
        shard: The file.
        above: The path that the name is relative to, as text.
    """

    shard: Shard
    above: str

    @property
    def source(self) -> str:
        """Name of the folder and of the file."""
        return self.shard.source.removeprefix(self.above + "/")

    @property
    def paths(self) -> tuple[str, ...]:
        """None: other images would have another name."""
        return ()

    def read(self, *, extra: Extra = False, passed_over: PassedOver | None = None) -> Iterator[Sample]:
        """The file's samples; see :meth:`dedupkit.sources.Shard.read`."""
        return self.shard.read(extra=extra, passed_over=passed_over)


def _rows(images: Images) -> Iterator[dict[str, Any]]:
    named: dict[str, int] = {}
    for number, (image, key, caption, more) in enumerate(_items(images)):
        text = clean_text(key)
        name = f"{number:08d}" if text is None else text
        if name in named and images.keys is not None:
            raise DedupkitError(f"two images have the key {name!r}; keys must be unique, or left out")
        name = unique_key(name, named)
        try:
            stored, problem = _stored(image, number), None
        except DedupkitError:
            raise
        except Exception as error:  # Pillow raises almost anything for a file that breaks off, or a broken EXIF block
            stored, problem = None, f"{type(error).__name__}: {error}"
        if stored is None and problem is None:
            problem = "no image"
        status = {"status": "success" if problem is None else "unreadable", "error_message": problem}
        yield {"key": name, **status, "caption": as_text({"caption": caption}, "caption"), "image": stored, **more}


def _is_dataset(images: Images) -> bool:
    return type(images.images).__module__.partition(".")[0] == "datasets"


def _numbers(images: Images) -> dict[str, Any]:
    """The columns of a Dataset that hold numbers, which a keep policy may name, with their types in Arrow."""
    from pyarrow import types

    schema = getattr(getattr(images.images, "features", None), "arrow_schema", ()) if _is_dataset(images) else ()
    kinds = {field.name: field.type for field in schema if field.name not in _TAKEN}
    return {name: kind for name, kind in kinds.items() if types.is_integer(kind) or types.is_floating(kind)}


def _items(images: Images) -> Iterator[tuple[Any, Any, Any, dict[str, Any]]]:
    """Each image with its key, its caption, and what else is carried along."""
    if _is_dataset(images):
        yield from _from_dataset(images)
        return
    columns = []
    for name, values in (("keys", images.keys), ("captions", images.captions)):
        if isinstance(values, str):
            raise DedupkitError(f"{name} names a column ({values!r}), but the images are no Dataset; give a list")
        columns.append(None if values is None else list(values))
    sized: Iterable[Any] = _batch(images.images)
    number = -1
    for number, image in enumerate(sized):
        texts = []
        for name, column in zip(("keys", "captions"), columns, strict=True):
            if column is not None and number >= len(column):
                raise DedupkitError(f"there are more images than {name} ({len(column):,})")
            texts.append(None if column is None else column[number])
        yield image, *texts, {}
    _check_lengths(number + 1, dict(zip(("keys", "captions"), columns, strict=True)))


def _check_lengths(images: int, lists: Mapping[str, Sequence[Any] | None]) -> None:
    for name, values in lists.items():
        if values is not None and len(values) > images:
            raise DedupkitError(f"there are {images:,} images and {len(values):,} {name}")


def _batch(images: Any) -> Iterable[Any]:
    shape = getattr(images, "shape", None)
    if shape is not None and len(shape) != 4 and not (len(shape) == 3 and shape[2] not in (3, 4)):
        raise DedupkitError(f"an array of shape {shape} is no batch of images; give (n, h, w, 3), or a list of arrays")
    if not isinstance(images, Iterable):
        raise DedupkitError(f"{type(images).__name__} is no collection of images; give a list, an array or a Dataset")
    return images


def _from_dataset(images: Images) -> Iterator[tuple[Any, Any, Any, dict[str, Any]]]:
    from datasets import Image  # the caller has it

    dataset = images.images
    features = getattr(dataset, "features", None)
    if features is None or not hasattr(dataset, "column_names") or isinstance(dataset, dict):
        raise DedupkitError("give one split of the data set, such as dataset['train'], with known features")
    holding = [name for name, feature in features.items() if isinstance(feature, Image)]
    column = images.column or (holding[0] if len(holding) == 1 else None)
    if column not in holding:
        raise DedupkitError(f"name the column of images: {', '.join(holding) or 'this data set has none'}")
    names = list(features)
    key, caption = images.keys, images.captions
    key = key if key is not None else next((name for name in ("__key__", "key") if name in names), None)
    caption = caption if caption is not None else next((name for name in ALIASES["caption"] if name in names), None)
    carried = {name: next((alias for alias in ALIASES[name] if alias in names), None) for name in _CARRIED}
    given = (("keys", key), ("captions", caption))
    lists = {label: list(values) for label, values in given if values is not None and not isinstance(values, str)}
    wanted = [name for name in (key, caption, *carried.values()) if isinstance(name, str)]
    unknown = [name for name in wanted if name not in names]
    if unknown:
        raise DedupkitError(f"the data set has no column {unknown[0]!r}; its columns: {', '.join(names)}")
    numbers = _numbers(images)
    if getattr(dataset, "format", {"type": "custom"})["type"] != "custom":  # arrays would round large integers
        dataset = dataset.with_format(None)
    dataset = dataset.select_columns(list(dict.fromkeys([column, *wanted, *numbers]))).cast_column(
        column, Image(decode=False)
    )
    number = -1
    try:
        for number, row in enumerate(dataset):
            texts = [
                lists[label][number] if label in lists else None if name is None else row[name] for label, name in given
            ]
            more: dict[str, Any] = {name: _number(row[name], kind) for name, kind in numbers.items()}
            more |= {name: clean_text(row[alias]) for name, alias in carried.items() if alias is not None}
            yield row[column], *texts, more
    except IndexError:
        raise DedupkitError("there are more images than keys or captions") from None
    _check_lengths(number + 1, lists)


def _number(value: Any, kind: Any) -> Any:
    """A number of a Dataset as Python has it; in a format of arrays, a missing integer is NaN and the others floats."""
    from pyarrow import types

    value = value.item() if hasattr(value, "item") else value
    if value is None or not types.is_integer(kind):
        return value
    return None if value != value else int(value)


def _stored(image: Any, number: int) -> dict[str, Any] | None:
    """An image as a cell of Parquet, None where there is none."""
    if isinstance(image, dict):  # a Dataset's, not decoded
        data, path = image.get("bytes"), image.get("path")
        if data is None and path is not None:
            data = Path(path).read_bytes()
        return None if data is None else {"bytes": data, "path": path}
    if image is None:
        return None
    if isinstance(image, bytes | bytearray | memoryview):
        return {"bytes": bytes(image), "path": None}
    return file_of(image, number)


def file_of(image: Any, number: int) -> dict[str, Any]:
    """An image or array as a file that decodes to the same values.

    Args:
        image: A PIL image of any mode, or an array (h, w) or (h, w, 3) uint8.
        number: Its number, for messages.

    Returns:
        ``bytes``, and a ``path`` that says their format.

    Raises:
        DedupkitError: It is no image.
    """
    import numpy as np
    from PIL import Image, ImageOps

    if not isinstance(image, Image.Image):
        image = Image.fromarray(_pixels(image, number))
    image = ImageOps.exif_transpose(image)
    stream = io.BytesIO()
    if image.mode in _TIFF_MODES:
        image.save(stream, "TIFF", compression="raw")
        return {"bytes": stream.getvalue(), "path": "image.tiff"}
    if image.mode in ("I;16B", "I;16L", "I;16N"):  # other orders of bytes than a PNG is made from
        image = Image.fromarray(np.asarray(image).astype(np.uint16))
    elif image.mode not in _PNG_MODES:
        image = image.convert("RGBA" if "A" in image.getbands() else "RGB")
    image.save(stream, "PNG", compress_level=1)
    return {"bytes": stream.getvalue(), "path": "image.png"}


def _pixels(array: Any, number: int) -> Any:
    shape, kind = getattr(array, "shape", None), str(getattr(array, "dtype", ""))
    if isinstance(array, str | os.PathLike):
        raise DedupkitError(
            f"image {number} is a path, {os.fspath(array)}; give images alone, or paths alone as a list: "
            "dedup(list(paths), out)"
        )
    if shape is None:
        raise DedupkitError(
            f"image {number} is a {type(array).__name__}; give PIL images, uint8 arrays, or the bytes of files"
        )
    if kind != "uint8" or not (len(shape) == 2 or (len(shape) == 3 and shape[2] in (1, 3, 4))) or 0 in shape:
        raise DedupkitError(f"image {number} is an array {shape} of {kind}; give (h, w), (h, w, 3) or (h, w, 4) uint8")
    return array[:, :, 0] if len(shape) == 3 and shape[2] == 1 else array
