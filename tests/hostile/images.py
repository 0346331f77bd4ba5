"""Mutated images of all formats but baseline JPEG: a row as Pillow's pixels have it, or a reason."""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any

import hostile_jpeg
import numpy as np
from helpers import encode
from PIL import Image, ImageOps, features

from dedupkit.hashing.decimator import luma_buffer
from dedupkit.hashing.pdq import decimate, pdq_from_buffers
from dedupkit.images import ImageError, luma_of
from hostile.changes import damaged
from hostile.section import Section, Tally

_FORMATS = ("AVIF", "BMP", "DIB", "GIF", "ICO", "JPEG", "JPEG2000", "MPO", "PNG", "PPM", "TIFF", "WEBP")
_BOUNDS = ("too large", "too many scans")  # reasons that Pillow does not know
_MOST_BITS = 20  # between a hash of full pixels and one of averaged blocks


class ImagesSection(Section):
    """PNG, WebP, GIF, TIFF, BMP, AVIF, JPEG 2000, ICO, PPM and progressive or CMYK JPEG, changed with and without
    regard to their structure."""

    name = "images"
    oracle = "Pillow: what it loads has a row with its size and the hash of its pixels, what it refuses a reason"
    volume = 250_000

    def open(self, folder: Path) -> None:
        """The files that are mutated."""
        warnings.simplefilter("ignore")
        self._files = _originals()

    def attempt(self, draw: Random, number: int) -> Tally:
        """One image."""
        kind, data = self._files[draw.randrange(len(self._files))]
        data = _mutated(kind, data, [other for _, other in self._files], draw)
        tally = Tally()
        (found,) = decimate([data])
        if isinstance(found, ImageError) and str(found).startswith(_BOUNDS):  # Pillow would take its time
            tally.check(_is_costly(data), f"{kind}: {found}")
            return tally
        try:
            shown = _by_pillow(data)
        except Exception as error:
            # Pillow's own words differ from place to place; that there is a reason is what counts.
            tally.check(isinstance(found, ImageError), f"{kind} was read, which Pillow refuses: {error!r}")
            return tally
        if isinstance(found, ImageError):
            tally.lose(f"{kind} of {shown.size} that Pillow reads: {found}")
            return tally
        tally.check((found.width, found.height) == shown.size, f"{kind}: size {found.width}x{found.height}")
        ours, _ = pdq_from_buffers(found.buffers)
        bits = min(_distance(ours, form) for form in _luminances(data, shown))
        tally.check(bits <= _MOST_BITS, f"{kind} of {shown.size}: {bits} bits from Pillow's pixels")
        return tally


def _is_costly(data: bytes) -> bool:
    """Whether an image is beyond the bounds that docs/images-and-hashing.md states."""
    scans = data.count(b"\xff\xda")
    try:
        width, height = Image.open(io.BytesIO(data), formats=_opened()).size
    except Exception:  # too large for Pillow to open, or broken as well
        return True
    return width * height > 64_000_000 or max(width, height) > 300_000 or scans > 100 or scans * width * height > 10**9


def _opened() -> list[str]:
    return [name for name in _FORMATS if name in Image.OPEN]


def _luminances(data: bytes, shown: Image.Image) -> list[Image.Image]:
    """An image; for a colour JPEG also its luminance as it is stored: another one where colours are clipped."""
    is_jpeg = shown.mode == "RGB" and data[:2] == b"\xff\xd8"
    return [shown, _by_pillow(data, "L")] if is_jpeg else [shown]


def _distance(ours: np.ndarray, image: Image.Image) -> int:
    """Bits between a hash and that of an image's pixels; 0 where those say too little to be hashed."""
    theirs, (quality,) = pdq_from_buffers(luma_buffer(luma_of(image, min_side=10**6))[None])
    return int(np.unpackbits(ours ^ theirs).sum()) if quality >= 50 else 0


def _by_pillow(data: bytes, mode: str | None = None) -> Image.Image:
    image = Image.open(io.BytesIO(data), formats=_opened())
    if mode is not None:
        image.draft(mode, image.size)
    image.load()
    with suppress(Exception):  # an EXIF block that cannot be read turns nothing
        image = ImageOps.exif_transpose(image)
    return image.convert("RGB") if image.mode == "LAB" else image


def _originals() -> list[tuple[str, bytes]]:
    """Small files of every format and mode that Pillow writes."""
    Image.init()
    draw, files = np.random.default_rng(2), []
    forms: list[tuple[str, str, dict[str, Any]]] = [
        *(("PNG", mode, {}) for mode in ("L", "RGB", "RGBA", "P", "1", "LA", "I;16")),
        ("PNG", "RGB", {"save_all": True, "append_images": True}),
        ("GIF", "P", {}), ("GIF", "P", {"save_all": True, "append_images": True}),
        *(("BMP", mode, {}) for mode in ("RGB", "L", "P", "1", "RGBA")), ("DIB", "RGB", {}),
        *(("TIFF", mode, {"compression": packed}) for mode in ("RGB", "L", "RGBA", "CMYK", "LAB")
          for packed in ("raw", "tiff_lzw", "tiff_deflate", "packbits")),
        ("TIFF", "1", {"compression": "group4"}), ("TIFF", "RGB", {"compression": "jpeg"}), ("TIFF", "F", {}),
        ("PPM", "RGB", {}), ("PPM", "L", {}), ("PPM", "1", {}), ("ICO", "RGBA", {}),
        *(("JPEG", mode, {"progressive": True}) for mode in ("RGB", "L", "CMYK")), ("JPEG", "CMYK", {}),
    ]  # fmt: skip
    if features.check("webp"):
        forms += [("WEBP", "RGB", {}), ("WEBP", "RGBA", {"lossless": True}), ("WEBP", "RGB", {"quality": 20})]
        forms.append(("WEBP", "RGB", {"save_all": True, "append_images": True}))
    if features.check("avif"):
        forms += [("AVIF", "RGB", {"speed": 10}), ("AVIF", "RGBA", {"speed": 10})]
    if features.check("jpg_2000"):
        forms += [("JPEG2000", "RGB", {}), ("JPEG2000", "L", {})]
    for kind, mode, options in forms:
        for side in (3, 40, 90):
            pixels = draw.integers(0, 256, (side // 3 + 2, side // 4 + 2, 3), np.uint8)
            image = Image.fromarray(pixels).resize((side + 5, side))
            image = image.convert("LAB" if mode == "LAB" else "L" if mode in ("I;16", "F") else mode)
            image = image.convert(mode) if mode == "F" else image
            if mode == "I;16":
                image = Image.fromarray(np.asarray(image).astype(np.uint16) * 257)
            more = {"append_images": [image.rotate(90)]} if "append_images" in options else {}
            files.append((kind, encode(image, kind, **options | more)))
    return files


def _mutated(kind: str, data: bytes, others: list[bytes], draw: Random) -> bytes:
    if draw.random() < 0.6:
        if kind == "PNG":
            data = _changed_png(data, draw)
        elif kind == "TIFF":
            data = _changed_tiff(data, draw)
        elif kind in ("WEBP", "AVIF", "JPEG2000"):
            data = _changed_boxes(kind, data, draw)
        elif kind == "JPEG":
            jpegs = [other for other in others if other[:2] == b"\xff\xd8"]
            data = hostile_jpeg.mutate(data, jpegs, draw)
        else:
            place = draw.randrange(min(len(data), 64))  # the header of the simple formats
            data = data[:place] + draw.choice([b"\0", b"\xff", draw.randbytes(1)]) + data[place + 1 :]
        if draw.random() < 0.6:
            return data
    if draw.random() < 0.03:
        return data[: len(data) // 2] + draw.choice(others)[-len(data) // 2 :]
    return damaged(draw, data)


def _changed_png(data: bytes, draw: Random) -> bytes:
    """Chunks changed, moved, doubled or dropped, with checksums that fit."""
    chunks, place = [], 8
    while place + 8 <= len(data):
        (size,) = struct.unpack_from(">I", data, place)
        chunks.append((data[place + 4 : place + 8], data[place + 8 : place + 8 + size]))
        place += 12 + size
    at = draw.randrange(len(chunks))
    name, body = chunks[at]
    kind = draw.randrange(6)
    if kind == 0 and body:
        chunks[at] = name, damaged(draw, body)
    elif kind == 1:
        header = bytearray(chunks[0][1])
        header[draw.randrange(len(header))] = draw.choice([0, 1, 2, 3, 4, 6, 8, 16, 255])
        chunks[0] = chunks[0][0], bytes(header)
    elif kind == 2:
        del chunks[at]
    elif kind == 3:
        chunks.insert(draw.randrange(len(chunks) + 1), (name, body))
    elif kind == 4:
        extra = draw.choice([b"tEXt", b"zTXt", b"iTXt", b"iCCP", b"PLTE", b"tRNS", b"gAMA", b"eXIf", b"acTL", b"fcTL"])
        content = zlib.compress(bytes(draw.randrange(100_000))) if draw.random() < 0.5 else draw.randbytes(30)
        chunks.insert(draw.randrange(len(chunks)), (extra, draw.choice([b"", b"n\0\0", b"n\0\1\0\0\0"]) + content))
    else:
        for where, (other, packed) in enumerate(chunks):
            if other == b"IDAT":
                raw = bytes(draw.randrange(2000)) if draw.random() < 0.3 else packed
                chunks[where] = other, zlib.compress(raw)
    parts = [data[:8]]
    for name, body in chunks:
        parts += [struct.pack(">I", len(body)), name, body, struct.pack(">I", zlib.crc32(name + body))]
    return b"".join(parts)


def _changed_tiff(data: bytes, draw: Random) -> bytes:
    """Fields of the directory changed: tags, types, counts and values."""
    result = bytearray(data)
    order = "<" if data[:2] == b"II" else ">"
    (start,) = struct.unpack_from(order + "I", data, 4)
    (entries,) = struct.unpack_from(order + "H", data, start)
    for _ in range(draw.choice((1, 1, 2))):
        entry = start + 2 + 12 * draw.randrange(entries)
        if entry + 12 > len(result):
            continue
        kind = draw.randrange(4)
        if kind == 0:
            struct.pack_into(
                order + "H", result, entry, draw.choice([256, 257, 258, 259, 262, 273, 277, 278, 279, 320])
            )
        elif kind == 1:
            struct.pack_into(order + "H", result, entry + 2, draw.randrange(14))
        elif kind == 2:
            struct.pack_into(order + "I", result, entry + 4, draw.choice([0, 1, 2, 255, 0x7FFFFFFF, 0xFFFFFFFF]))
        else:
            value = draw.choice([0, 1, 2, 3, 5, 7, 8, 16, 32, 255, 65535, 0x7FFFFFFF, 0xFFFFFFFF, start, len(data)])
            struct.pack_into(order + "I", result, entry + 8, value)
    return bytes(result)


def _changed_boxes(kind: str, data: bytes, draw: Random) -> bytes:
    """Sizes and names of RIFF chunks and ISO boxes changed."""
    result, at = bytearray(data), 12 if kind == "WEBP" else 0
    places = []
    while at + 8 <= len(data):
        (size,) = struct.unpack_from("<I" if kind == "WEBP" else ">I", data, at + 4 if kind == "WEBP" else at)
        places.append(at)
        at += size + size % 2 + 8 if kind == "WEBP" else max(size, 8)
    place = draw.choice(places)
    value = draw.choice([0, 1, 7, 8, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, draw.randrange(len(data))])
    if draw.random() < 0.5:
        struct.pack_into("<I" if kind == "WEBP" else ">I", result, place + (4 if kind == "WEBP" else 0), value)
    else:
        inside = place + draw.randrange(min(40, len(data) - place))
        result[inside] = draw.randrange(256)
    return bytes(result)
