"""What an image may cost: bombs of every format are refused, or cost what their first frame costs."""

from __future__ import annotations

import io
import struct
import time
import zlib
from contextlib import suppress

import numpy as np
import pytest
from helpers import encode
from PIL import Image, features

from dedupkit.hashing.pdq import decimate
from dedupkit.images import ImageError, decode_luma, open_image


def chunk(kind: bytes, data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")


def with_chunk(png: bytes, kind: bytes, data: bytes) -> bytes:
    return png[:33] + chunk(kind, data) + png[33:]


@pytest.fixture(scope="module")
def png(photo: Image.Image) -> bytes:
    return encode(photo.resize((90, 80)), "PNG")


@pytest.mark.parametrize("kind", [b"zTXt", b"iTXt", b"iCCP"])
def test_text_and_profiles_that_unpack_to_much_are_not_unpacked(png: bytes, kind: bytes) -> None:
    packed = zlib.compress(bytes(64 << 20), 9)
    head = b"name\0\1\0\0\0" if kind == b"iTXt" else b"name\0\0"
    started = time.process_time()
    with suppress(ImageError):  # a reader that skips the chunk is as good
        open_image(with_chunk(png, kind, head + packed))
    assert time.process_time() - started < 0.5


def test_an_animation_costs_what_its_first_frame_costs(photo: Image.Image) -> None:
    first = photo.resize((64, 64)).quantize(16)
    one = encode(first, "GIF")
    frame = one[one.index(b"\x2c", 13 + 48) : -1]
    many = one[:-1] + frame * 3000 + b";"
    started = time.process_time()
    assert decode_luma(many).width == 64
    assert time.process_time() - started < 0.5


@pytest.mark.skipif(not features.check("webp"), reason="this Pillow has no WebP")
def test_a_canvas_of_hundreds_of_megapixels_is_refused_from_its_header(photo: Image.Image) -> None:
    frames = [photo.resize((64, 64)), photo.resize((64, 64)).rotate(90)]
    data = bytearray(encode(frames[0], "WEBP", save_all=True, append_images=frames[1:]))
    assert data[12:16] == b"VP8X"
    data[24:30] = (16_382).to_bytes(3, "little") * 2
    with pytest.raises(ImageError, match="too large: 16383x16383 is 268 megapixels"):
        decode_luma(bytes(data))


@pytest.mark.skipif(not features.check("webp"), reason="this Pillow has no WebP")
def test_three_rows_of_ten_million_pixels_are_refused(photo: Image.Image) -> None:
    frames = [photo.resize((8, 3)), photo.resize((8, 3)).rotate(180)]
    data = bytearray(encode(frames[0], "WEBP", save_all=True, append_images=frames[1:]))
    data[24:27] = (10_682_375).to_bytes(3, "little")
    with pytest.raises(ImageError, match="10682376x3 has a side of more than 300,000 pixels"):
        decode_luma(bytes(data))


def test_a_tiff_that_claims_much_is_refused_or_read_in_time(photo: Image.Image) -> None:
    whole = encode(photo.resize((40, 30)), "TIFF")
    start = struct.unpack_from("<I", whole, 4)[0]
    (entries,) = struct.unpack_from("<H", whole, start)
    for number in range(entries):
        for count in (0, 0x7FFFFFFF, 0xFFFFFFFF):
            data = bytearray(whole)
            struct.pack_into("<I", data, start + 2 + 12 * number + 4, count)
            began = time.process_time()
            (found,) = decimate([bytes(data)])
            assert isinstance(found, ImageError) or np.isfinite(found.buffers).all()
            assert time.process_time() - began < 1
    looped = bytearray(whole)
    struct.pack_into("<I", looped, start + 2 + 12 * entries, start)  # a directory that follows itself
    assert decode_luma(bytes(looped)).width == 40


@pytest.mark.parametrize("error", [MemoryError, RecursionError, KeyError, OverflowError])
def test_whatever_a_decoder_raises_is_the_reason_of_one_image(
    png: bytes, monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    def fail(*arguments: object, **options: object) -> None:
        raise error("inside")

    broken = with_chunk(png, b"tEXt", b"a\0b")
    original = Image.open

    def opening(file: io.BytesIO, *arguments: object, **options: object) -> Image.Image:
        return fail() if file.getvalue() == broken else original(file, *arguments, **options)  # type: ignore[return-value,arg-type]

    monkeypatch.setattr(Image, "open", opening)
    before, failed, after = decimate([png, broken, png])
    assert isinstance(failed, ImageError) and error.__name__ in str(failed)
    assert not isinstance(before, ImageError) and not isinstance(after, ImageError)
