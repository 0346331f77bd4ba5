"""Hostile JSON and tables beside images: no image is lost, and captions are what Python's own parsers read."""

from __future__ import annotations

import csv
import io
import json
import shutil
from pathlib import Path
from random import Random
from typing import Any

import hostile_jpeg
from helpers import write_tar

from dedupkit.errors import DedupkitError
from dedupkit.sources import Sample, ShardError, find_shards
from hostile.changes import damaged
from hostile.section import Section, Tally

_COUNT = 4
_TEXTS = (
    "",
    "a cat",
    "é",
    "日本",
    "😀",
    "\0",
    "\ud800",
    "\udc80x",
    "a\nb",
    "a\tb",
    '"',
    "\\",
    "'",
    ",",
    " x ",
    "x" * 9000,
)


class SidecarsSection(Section):
    """JSON members and files, metadata.jsonl, captions.csv and .tsv, Flickr's and COCO's captions, text files: values
    of any type, depth and size, lone surrogates, repeated names, invalid syntax, damaged bytes."""

    name = "sidecars"
    oracle = "Python's json and csv: every image has a row, with the caption that they read"
    volume = 60_000

    def open(self, folder: Path) -> None:
        """Where the files are written."""
        self._folder, self._image = folder / "data", hostile_jpeg.originals()[1]

    def attempt(self, draw: Random, number: int) -> Tally:
        """One tar or folder of four images."""
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.mkdir()
        tally = Tally()
        form = draw.choice((_tar, _beside, _lines, _table, _coco, _flickr))
        names = [f"{letter}.jpg" for letter in "abcd"]
        if form is not _tar:
            for name in names:
                (self._folder / name).write_bytes(self._image)
        captions = form(self._folder, names, self._image, draw)
        samples: list[Sample] = []
        try:
            for shard in find_shards(str(self._folder)):
                for sample in shard.read(extra=draw.random() < 0.5):
                    samples.append(sample)  # noqa: PERF402 - what came before an error counts
        except ShardError as error:
            tally.lose(f"the rest of {form.__name__}: {error}")
            return tally
        except DedupkitError as error:
            # A table that its own parser does not take is the user's to mend, before anything is read.
            told = "cannot be read" in str(error) or "no column of file names" in str(error)
            tally.check(told and captions is None, f"{form.__name__}: {error}")
            return tally
        whole = [sample for sample in samples if sample.image == self._image and sample.error is None]
        if len(whole) < _COUNT:
            tally.lose(f"{_COUNT - len(whole)} images of {form.__name__}", _COUNT - len(whole))
            return tally
        for sample in samples:
            f"{sample.key}{sample.caption}{sample.url}{sample.uid}".encode()
            expected = (captions or {}).get(sample.key.removesuffix(".jpg"))
            if expected is not None:
                tally.check(
                    sample.caption == _valid(expected), f"{form.__name__}: {sample.caption!r}, not {expected!r}"
                )
        return tally


def _valid(text: str) -> str:
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _value(draw: Random, depth: int = 3) -> Any:
    kind = draw.randrange(9 if depth else 6)
    if kind < 3:
        return draw.choice(_TEXTS)
    if kind == 3:
        return draw.choice((0, -1, 2**63, 10**400, 0.1, 1e308, float("nan"), float("inf")))
    if kind < 6:
        return draw.choice((None, True, False))
    if kind == 6:
        return [_value(draw, depth - 1) for _ in range(draw.randrange(4))]
    return {draw.choice(("caption", "url", "key", *_TEXTS)): _value(draw, depth - 1) for _ in range(draw.randrange(4))}


def _object(draw: Random) -> bytes:
    """The text of a JSON object, or of something else."""
    kind = draw.randrange(12)
    if kind == 0:
        return draw.choice((b"", b"[1]", b"null", b"{", b'{"caption": ', b"\xff\xfe{\0}\0", b"\xef\xbb\xbf{}", b"nan"))
    if kind == 1:
        return b'{"caption": ' + b"[" * draw.choice((30, 900, 100_000)) + b"}"
    if kind == 2:
        return b'{"caption": ' + b"9" * draw.choice((20, 4299, 4301, 100_000)) + b"}"
    if kind == 3:
        return b'{"caption": "first", "caption": "second", "url": "a"}'
    names = draw.sample(("caption", "url", "uid", "similarity", "key", "width", "", "\0", "other"), 4)
    value = {name: _value(draw) for name in names}
    text = json.dumps(value, ensure_ascii=draw.random() < 0.7).encode("utf-8", "surrogatepass")
    return damaged(draw, text) if draw.random() < 0.2 else text


def _stated(text: bytes) -> str | None:
    """The caption of a JSON object, where it is a text as such."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    caption = value.get("caption") if isinstance(value, dict) else None
    return caption if isinstance(caption, str) else None


def _tar(folder: Path, names: list[str], image: bytes, draw: Random) -> dict[str, str | None]:
    members, captions = [], {}
    for name in names:
        text, stem = _object(draw), name[0]
        members += [(name, image), (f"{stem}.json", text)]
        captions[stem] = _stated(text)
    write_tar(folder / "0.tar", members)
    return captions


def _beside(folder: Path, names: list[str], image: bytes, draw: Random) -> dict[str, str | None]:
    captions: dict[str, str | None] = {}
    for name in names:
        stem = name[0]
        text = _object(draw)
        (folder / f"{stem}.json").write_bytes(text)
        captions[stem] = _stated(text)
        if draw.random() < 0.5:
            said = draw.choice(_TEXTS).encode("utf-8", "surrogatepass") + draw.choice((b"", b"\xff", b"\n"))
            (folder / f"{stem}.txt").write_bytes(said)
            captions[stem] = said.decode("utf-8", "replace").strip()
    return captions


def _lines(folder: Path, names: list[str], image: bytes, draw: Random) -> dict[str, str | None] | None:
    lines = []
    for name in names:
        row = {"file_name": name, draw.choice(("caption", "text")): _value(draw), "other": _value(draw)}
        lines.append(json.dumps(row).encode())
    data = b"\n".join(lines)
    if draw.random() < 0.4:
        data = damaged(draw, data)
    (folder / "metadata.jsonl").write_bytes(data)
    try:
        rows = [json.loads(line) for line in data.decode("utf-8-sig", "replace").split("\n") if line.strip()]
    except (ValueError, RecursionError):
        return None
    if not all(isinstance(row, dict) for row in rows) or not any(isinstance(row.get("file_name"), str) for row in rows):
        return None
    named = [(row["file_name"], row) for row in rows if isinstance(row.get("file_name"), str)]
    if len({name for name, _ in named}) < len(named):
        return {}
    captions = {name.removesuffix(".jpg"): row.get("caption", row.get("text")) for name, row in named if name in names}
    return {name: caption for name, caption in captions.items() if isinstance(caption, str)}


def _table(folder: Path, names: list[str], image: bytes, draw: Random) -> dict[str, str | None]:
    tab = draw.random() < 0.5
    buffer = io.StringIO()
    writer = csv.writer(buffer, delimiter="\t" if tab else ",", lineterminator="\n")
    writer.writerow(["file_name", "caption"])
    captions: dict[str, str | None] = {}
    for name in names:
        caption = draw.choice([text for text in _TEXTS if "\0" not in text and not text.startswith(" ")])
        writer.writerow([name, caption])
        captions[name.removesuffix(".jpg")] = caption.encode("utf-8", "surrogatepass").decode("utf-8", "replace")
    data = buffer.getvalue().encode("utf-8", "surrogatepass")
    (folder / f"captions.{'tsv' if tab else 'csv'}").write_bytes(data)
    return captions


def _coco(folder: Path, names: list[str], image: bytes, draw: Random) -> dict[str, str | None] | None:
    images = [{"id": draw.choice((number, str(number))), "file_name": name} for number, name in enumerate(names)]
    said = [{"image_id": image["id"], "caption": _value(draw, 0)} for image in images]
    data = json.dumps({"images": images, "annotations": said}).encode()
    if draw.random() < 0.5:
        data = damaged(draw, data)
    (folder / "captions_val.json").write_bytes(data)
    return None if data != json.dumps({"images": images, "annotations": said}).encode() else {}


def _flickr(folder: Path, names: list[str], image: bytes, draw: Random) -> dict[str, str | None] | None:
    text = draw.choice(("image,caption\n", "image_name| comment_number| comment\n", ""))
    for name in names:
        separator = "," if "," in text else "| 0| " if text else "\t"
        text += f"{name}{separator}{draw.choice(('a cat', 'é', 'x' * 9000, ''))}\n"
    data = text.encode()
    (folder / "captions.txt").write_bytes(damaged(draw, data) if draw.random() < 0.5 else data)
    return None
