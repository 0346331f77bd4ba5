"""Captions of a folder of images that stand in a file of their own, in the forms in which data sets come.

Tables with one row a caption (``captions`` or ``metadata`` as CSV, TSV, JSON lines or Parquet, at the top or in a
subfolder, as Hugging Face's imagefolder has them; Flickr's ``captions.txt``), and COCO's annotations.
"""

from __future__ import annotations

import csv
import io as _io
import json
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from dedupkit import store
from dedupkit.errors import DedupkitError
from dedupkit.sources.columns import ALIASES, captions_of, first_present

__all__ = ["caption_files", "is_caption_table", "read_captions"]

Row = dict[str, Any]

_TABLE = re.compile(r"(?:.*/)?(?:captions|metadata)\.(?:csv|tsv|jsonl|parquet)")
_FLICKR = re.compile(r"(?:.*/)?captions\.txt")
_COCO = re.compile(r"(?:.*/)?captions[^/]*\.json")


def is_caption_table(name: str) -> bool:
    """Whether a file name is one under which captions are looked for in tables."""
    return _TABLE.fullmatch(name) is not None


def caption_files(names: Iterable[str], images: Iterable[str]) -> list[str]:
    """The files among ``names`` that may hold captions of several images; the text of one image is none of them."""
    stems = {name.rpartition(".")[0] for name in images}  # captions.txt and captions.json may belong to captions.jpg
    return [
        name
        for name in names
        if _TABLE.fullmatch(name)
        or ((_FLICKR.fullmatch(name) or _COCO.fullmatch(name)) and name.rpartition(".")[0] not in stems)
    ]


def read_captions(folder: str, files: Iterable[str], images: Iterable[str]) -> tuple[dict[str, Row], list[str]]:
    """Rows of captions files by image.

    Args:
        folder: The folder.
        files: The captions files, relative to it.
        images: The images, relative to it.

    Returns:
        A row per image that has one; of several captions of an image a list stands in it. And the files that say
        nothing about any image.

    Raises:
        DedupkitError: a table has no column of file names, or cannot be parsed.
    """
    files = sorted(files, key=lambda name: (name.count("/"), name))
    if not files:
        return {}, []
    present = set(images)
    by_base: dict[str, str | None] = {}
    for name in present:
        base = name.rpartition("/")[2]
        by_base[base] = None if base in by_base else name  # of two with one name neither is meant
    exact: dict[str, Row] = {}
    by_name: dict[str, Row] = {}
    unused = []
    for file in files:
        beside = file.rpartition("/")[0]
        here: dict[str, Row] = {}
        alike: dict[str, Row] = {}
        for named, row in _rows_of(folder, file):
            path = f"{beside}/{named}" if beside else named
            if path in present:
                _add(here, path, row)
            elif image := by_base.get(named.rpartition("/")[2]):
                _add(alike, image, row)
        exact |= here
        by_name |= alike
        if not here and not alike:
            unused.append(file)
    return by_name | exact, unused  # a row for a missing image of the same name says nothing of one that has its own


def _add(rows: dict[str, Row], image: str, row: Row) -> None:
    """Add the row of an image, or its caption to those of the first one."""
    first = rows.setdefault(image, row)
    if first is row:
        return
    name = next((alias for alias in ALIASES["caption"] if first.get(alias) is not None), "caption")
    captions: list[str] = []
    for value in (first.get(name), first_present(row, "caption")):
        captions += captions_of(value if isinstance(value, list) else [value])
    rows[image] = {**first, name: captions}


def _rows_of(folder: str, name: str) -> list[tuple[str, Row]]:
    """File name and row, for each row of a captions file."""
    path = store.join(folder, name)
    limit = csv.field_size_limit(sys.maxsize)  # of the whole process; captions can be longer than its 128 KiB
    try:
        rows = _parser(name)(path)
    except (ValueError, AttributeError, KeyError, TypeError, RecursionError, OSError, csv.Error) as error:
        raise DedupkitError(f"{path} cannot be read: {error}") from error
    finally:
        csv.field_size_limit(limit)
    named = [(first_present(row, "file"), row) for row in rows]
    if is_caption_table(name) and named and all(file is None for file, _ in named):
        raise DedupkitError(f"{path} has no column of file names; call it file_name")
    return [(str(file).removeprefix("./"), row) for file, row in named if file is not None]


def _parser(name: str) -> Callable[[str], list[Row]]:
    suffix = name.rpartition(".")[2]
    return {"csv": _comma, "tsv": _tab, "txt": _flickr, "jsonl": _lines, "json": _coco, "parquet": _parquet}[suffix]


def _text(path: str) -> str:
    with store.open_binary(path) as stream:
        return stream.read().decode("utf-8-sig", "replace")


def _comma(path: str) -> list[Row]:
    return _table(_text(path), ",")


def _tab(path: str) -> list[Row]:
    return _table(_text(path), "\t")


def _table(text: str, delimiter: str) -> list[Row]:
    reader = csv.DictReader(_io.StringIO(text), delimiter=delimiter, skipinitialspace=True)
    return [{name.strip(): value for name, value in row.items() if name is not None} for row in reader]


def _flickr(path: str) -> list[Row]:
    """``image,caption`` (Flickr8k), ``image_name| comment_number| comment`` (Flickr30k), or ``NAME#0<tab>caption``."""
    text = _text(path)
    header = text.partition("\n")[0]
    if re.match(r'"?image(_name)?"?\s*[,|]', header):  # and no file that is called so
        rows = _table(text, "|" if "|" in header else ",")
        return [{"file_name": row.get("image") or row.get("image_name"), "caption": _last(row)} for row in rows]
    pairs = (line.split("\t", 1) for line in text.split("\n") if "\t" in line)
    return [{"file_name": re.sub(r"#\d+$", "", name), "caption": caption.strip()} for name, caption in pairs]


def _last(row: Mapping[str, Any]) -> Any:
    return row.get("caption", row.get("comment"))


def _lines(path: str) -> list[Row]:
    rows = [json.loads(line) for line in _text(path).split("\n") if line.strip()]
    if not all(isinstance(row, dict) for row in rows):
        raise ValueError("a line is no JSON object")
    return rows


def _coco(path: str) -> list[Row]:
    """COCO's annotations: ``images`` (id, file_name) and ``annotations`` (image_id, caption)."""
    content = json.loads(_text(path))
    if not isinstance(content, dict) or not {"images", "annotations"} <= content.keys():
        return []
    names = {image["id"]: image["file_name"] for image in content["images"]}
    return [
        {"file_name": names.get(annotation["image_id"]), "caption": annotation.get("caption")}
        for annotation in content["annotations"]
    ]


def _parquet(path: str) -> list[Row]:
    import pyarrow.parquet as pq

    from dedupkit.sources.arrow import as_rows

    with store.open_binary(path) as stream:
        return as_rows(pq.ParquetFile(stream).read())
