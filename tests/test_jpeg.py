"""Coefficients of JPEGs against libjpeg's pixels, and what is left to libjpeg."""

from __future__ import annotations

import ast
import io
import os
import random
import re
import time
import warnings
from dataclasses import replace

import hostile_jpeg
import numpy as np
import pytest
import simplejpeg
from helpers import ROOT, encode, python
from numpy.typing import NDArray
from PIL import Image, ImageOps

from dedupkit.embedding.pixels import decode_rgb
from dedupkit.hashing import pdq
from dedupkit.hashing.decimator import coefficient_buffers, frequencies, luma_buffer
from dedupkit.hashing.pdq import decimate, pdq_from_buffers
from dedupkit.images import ImageError, decode_luma, luma_of, open_image
from dedupkit.images.jpeg import coefficients, layout
from dedupkit.images.jpeg.checks import check_sizes
from dedupkit.images.jpeg.coefficients import Coefficients, read_coefficients
from dedupkit.images.orientation import UPRIGHT
from dedupkit.neighbors.hamming.dihedral import POPCOUNT

SIZES = [(1, 1), (1, 90), (90, 1), (8, 8), (9, 17), (16, 16), (33, 47), (200, 133), (640, 480)]


def read(image: bytes, keep: int = 8) -> Coefficients | None:
    return read_coefficients([image], lambda length: keep)[0]


def pixels(image: Coefficients) -> NDArray[np.float64]:
    """The inverse transform (T.81, A.3.3) of all 8x8 coefficients."""
    x, u = np.arange(8)[:, None], np.arange(8)
    waves = np.cos((2 * x + 1) * u * np.pi / 16) * np.where(u == 0, np.sqrt(1 / 8), 1 / 2)
    blocks, _, values = image.plane.shape
    plane = np.einsum("xu,aubv,yv->axby", waves, image.plane.reshape(blocks, 8, values // 8, 8), waves)
    return (plane.reshape(blocks * 8, values)[: image.height, : image.width] + 128).clip(0, 255)


def luma(image: bytes) -> NDArray[np.float64]:
    opened = Image.open(io.BytesIO(image))
    opened.draft("L", opened.size)  # libjpeg's own luminance
    return np.asarray(opened, np.float64)


def noise(width: int, height: int) -> Image.Image:
    coarse = np.random.default_rng(width * height).integers(0, 256, (height // 4 + 1, width // 4 + 1, 3), np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    "options",
    [
        {"quality": q, "subsampling": s, "optimize": o}
        for q, s, o in [(95, 2, False), (30, 0, True), (100, 1, True), (75, 2, True)]
    ],
)
def test_the_coefficients_are_those_of_libjpeg(size, options):
    for mode in ("RGB", "L"):
        image = encode(noise(*size).convert(mode), **(options if mode == "RGB" else {"quality": options["quality"]}))
        found = read(image)
        assert found is not None and (found.width, found.height) == size
        assert np.abs(pixels(found) - luma(image)).max() <= 2  # libjpeg's transform is one of whole numbers


def test_images_read_together_are_those_read_alone():
    images = [encode(noise(*size), quality=quality) for quality in (20, 90) for size in SIZES]
    images[3:3] = [b"", b"no image", images[0][:-9]]
    for found, image in zip(read_coefficients(images, lambda length: 5), images, strict=True):
        alone = read(image, 5)
        assert (found is None) == (alone is None)
        if found is not None:
            np.testing.assert_array_equal(found.plane, alone.plane)


def test_fewer_frequencies_are_the_lowest_of_all():
    image = encode(noise(100, 60))
    whole, low = read(image), read(image, 3)
    by_block = whole.plane.reshape(whole.plane.shape[0], 8, -1, 8)
    np.testing.assert_array_equal(low.plane.reshape(by_block.shape[0], 3, -1, 3), by_block[:, :3, :, :3])


def test_what_is_not_plain_is_left_to_libjpeg():
    photo = noise(120, 90)
    plain = encode(photo, quality=90)
    assert read(plain) is not None
    end = plain.rindex(b"\xff\xd9")
    scan = plain.index(b"\xff\xda")
    others = {
        "progressive": encode(photo, progressive=True),
        "restart markers": encode(photo, restart_marker_blocks=2),
        "four colours": encode(photo.convert("CMYK")),
        "not YCbCr": encode(photo, keep_rgb=True),
        "no end": plain[:end],
        "cut in the scan": plain[: (scan + end) // 2] + plain[end:],
        "bytes too many": plain[:end] + b"\0\0" + plain[end:],
        "no scan": plain[:scan],
        "twice the frame": plain[:2] + plain[plain.index(b"\xff\xc0") : scan] + plain[2:],
        "png": encode(photo, "PNG"),
    }
    for name, image in others.items():
        assert read(image) is None, name
        unreadable = name in ("no end", "no scan", "twice the frame")  # of a cut scan Pillow shows what there is
        assert isinstance(decimate([image])[0], ImageError) == unreadable, name
    assert read_coefficients([plain], lambda length: 8, max_pixels=120 * 90 - 1) == [None]
    assert isinstance(decimate([others["no scan"]])[0], ImageError)


def with_ac_table(image: bytes, counts: dict[int, int]) -> bytes:
    """The image with another first table of AC coefficients: so many codes of each length, all for the same symbol."""
    lengths = bytes(counts.get(length, 0) for length in range(1, 17))
    table = b"\x10" + lengths + bytes([1]) * sum(lengths)
    scan = image.index(b"\xff\xda")
    return image[:scan] + b"\xff\xc4" + (2 + len(table)).to_bytes(2, "big") + table + image[scan:]


@pytest.mark.parametrize("counts", [dict.fromkeys(range(12, 17), 255), {16: 255, 15: 2}], ids=["1,275", "257"])
def test_a_table_of_more_symbols_than_a_byte_has_values_is_refused(counts):
    """Its definition would not fit into its place, and the kernel would write outside its tables."""
    plain = [encode(noise(100 + n, 80), quality=90) for n in range(31)]
    hostile = with_ac_table(plain[0], counts)
    found = read_coefficients([hostile, *plain], lambda length: 8)
    assert found[0] is None
    for neighbour, image in zip(found[1:], plain, strict=True):
        np.testing.assert_array_equal(neighbour.plane, read(image).plane)
    assert isinstance(decimate([hostile])[0], ImageError)


def test_a_code_of_ones_alone_is_refused_as_libjpeg_does():
    plain = encode(noise(100, 80))
    assert read(with_ac_table(plain, {8: 256 - 1})) is None  # codes that do not decode this scan
    hostile = with_ac_table(plain, {1: 2})
    assert read(hostile) is None and isinstance(decimate([hostile])[0], ImageError)


def test_padding_and_trailing_bytes_are_none_of_the_image():
    plain = encode(noise(120, 90))
    end = plain.rindex(b"\xff\xd9")
    for image in (plain[:end] + b"\xff\xff" + plain[end:], plain + b"trailing"):
        np.testing.assert_array_equal(read(image).plane, read(plain).plane)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_image_is_hashed_as_its_exif_block_turns_it(photos, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = encode(photos["astronaut"].convert("RGB").resize((301, 203)), quality=95, exif=exif)
    assert read(image) is not None
    (decimated,) = decimate([image])
    assert (decimated.width, decimated.height) == ((203, 301) if orientation > 4 else (301, 203))
    shown = ImageOps.exif_transpose(Image.open(io.BytesIO(image)))
    assert POPCOUNT[pdq(image)[0] ^ pdq(shown)[0]].sum() <= 6


def test_no_mutated_file_makes_the_kernel_touch_memory_that_is_not_its_own():
    """In a process of its own, which a write outside an array ends with a signal."""
    count = 100_000 if os.environ.get("DEDUPKIT_HOSTILE") else 30_000
    tried = python(str(ROOT / "tests" / "hostile_jpeg.py"), str(count))
    assert tried.returncode == 0, (tried.returncode, tried.stderr)
    result = ast.literal_eval(tried.stdout)
    assert result["tried"] >= count and result["read"] > count // 10
    assert (result["wrong"], result["crashes"]) == (0, 0)


def test_sizes_that_do_not_fit_together_never_reach_the_kernel(monkeypatch):
    calls = []
    monkeypatch.setattr(coefficients, "_call", calls.append)
    read_coefficients([encode(noise(40, 30)), encode(noise(9, 70))], lambda length: 5)
    (arrays,) = calls
    check_sizes(*arrays)
    jobs, sizes = arrays[1], arrays[-1]
    for array, columns in ((jobs[1:], jobs.shape[1] - 1), (sizes[None], sizes.size)):
        for column in set(range(columns)) - ({layout.DATA_START} if array is not sizes else set()):
            for value in (-1, 1 << 40):
                before = array[0, column]
                array[0, column] = value
                with pytest.raises(ValueError, match="do not fit together"):
                    check_sizes(*arrays)
                array[0, column] = before
    definitions = arrays[2].copy()
    definitions[1] = 255  # codes of one bit
    with pytest.raises(ValueError, match="Huffman"):
        check_sizes(*arrays[:2], definitions, *arrays[3:])


def libjpeg(image: bytes) -> NDArray[np.uint8]:
    """The luminance of a file that Pillow opens and loads, and libjpeg decodes without a warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Image.open(io.BytesIO(image)).load()
    return simplejpeg.decode_jpeg(image, "GRAY", strict=True)[:, :, 0]


def test_every_mutated_file_is_refused_or_hashed_as_libjpeg_decodes_it(photos):
    draw = random.Random(4)
    originals = [
        encode(
            photo.convert("L" if n % 5 == 0 else "RGB").resize((70 + 9 * n, 150 - 7 * n)), quality=(20, 50, 90)[n % 3]
        )
        for n, photo in enumerate(list(photos.values())[:10])
    ]
    files = [hostile_jpeg.mutate(draw.choice(originals), originals, draw) for _ in range(4000)]
    read_here = 0
    for file, found in zip(files, read_coefficients(files, frequencies), strict=True):
        if found is None:
            continue
        read_here += 1
        plane = libjpeg(file)
        ours, _ = pdq_from_buffers(coefficient_buffers(replace(found, turned=UPRIGHT)))
        theirs, (quality,) = pdq_from_buffers(luma_buffer(luma_of(Image.fromarray(plane), min_side=10_000))[None])
        assert quality < 50 or POPCOUNT[ours ^ theirs].sum() <= 20
    assert read_here > 300


def test_what_libjpeg_refuses_or_warns_of_is_not_read():
    plain = encode(noise(120, 90), quality=90)
    assert read(plain) is not None
    scan = plain.index(b"\xff\xda")
    first, second = (m.start() for m in re.finditer(b"\xff\xdb", plain[:scan]))
    sixteen = b"\xff\xdb\x01\x04" + (b"\x10" + b"\0\x08" * 64) + (b"\x11" + b"\0\x09" * 64)
    adobe = b"\xff\xee\0\x0eAdobe\0\x64" + bytes(5)
    frame = plain.index(b"\xff\xc0")
    others = {
        "two tables of 16 bits in a segment": plain[:first] + sixteen + plain[second + 69 :],
        "no chroma quantization": plain[:second] + plain[second + 69 :],
        "a segment of half a table": plain[:first] + b"\xff\xdb\0\x22" + bytes(32) + plain[first:],
        "a table that nobody numbers": plain[:first] + b"\xff\xdb\0\x43\x07" + bytes(64) + plain[first:],
        "JFIF 2": plain.replace(b"JFIF\0\1", b"JFIF\0\2", 1),
        "half a JFIF segment": b"\xff\xd8\xff\xe0\0\x07JFIF\0" + plain[2:],
        "colours that are not YCbCr": plain[:first] + adobe + plain[first:],
        "junk between segments": plain[:first] + b"\0" + plain[first:],
        "components of one name": plain[: frame + 13] + b"\1" + plain[frame + 14 :],
        "too many blocks": plain[: frame + 11] + b"\x44" + plain[frame + 12 :],
        "half a triplet": plain[: frame + 3] + b"\x12" + plain[frame + 4 : frame + 19] + b"\1" + plain[frame + 19 :],
    }
    for name, image in others.items():
        assert read(image) is None, name


@pytest.mark.parametrize("orientation", [3, 6])
def test_hash_vector_and_full_image_are_turned_alike_wherever_exif_lies(photo, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = encode(photo.resize((300, 200)), quality=95, exif=exif)
    behind = image[:2] + b"".join(b"\xff\xec\xff\xff" + bytes(0xFFFD) for _ in range(2)) + image[2:]
    shown = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(behind))).convert("L"), np.float32)
    for stored in (image, behind):
        seen = [decode_luma(stored).plane, decode_rgb(stored, 200).convert("L"), open_image(stored).convert("L")]
        for plane in seen:
            assert np.abs(np.asarray(plane, np.float32) - shown).mean() < 2
        assert POPCOUNT[pdq(stored)[0] ^ pdq(shown.astype(np.uint8))[0]].sum() <= 6


def test_a_file_of_a_thousand_scans_is_refused_before_it_is_decoded(photo):
    whole = encode(photo.resize((256, 256)), progressive=True)
    assert decode_luma(whole).width == 256
    last = whole.rindex(b"\xff\xda")
    many = whole[:-2] + whole[last:-2] * 1000 + b"\xff\xd9"
    for decode in (decode_luma, open_image, lambda data: decode_rgb(data, 64)):
        started = time.process_time()
        with pytest.raises(ImageError, match="too many scans: over 100 in a JPEG of 256x256 pixels"):
            decode(many)
        assert time.process_time() - started < 1
    assert not isinstance(decimate([whole + bytes(range(256)) * 999])[0], ImageError)  # what follows an image is none


def test_memory_that_runs_out_costs_one_image(photo, monkeypatch):
    def out_of_memory(*arguments, **options):
        raise MemoryError("no room")

    image = encode(photo.resize((90, 80)), progressive=True)
    monkeypatch.setattr(simplejpeg, "decode_jpeg", out_of_memory)
    failed, fine = decimate([image, encode(photo.resize((90, 80)))])
    assert isinstance(failed, ImageError) and str(failed) == "MemoryError: no room"
    assert isinstance(failed.__cause__, MemoryError)  # by which a scan knows that it may pass
    assert not isinstance(fine, ImageError)


@pytest.mark.parametrize("side", [1, 5, 8, 16])
def test_images_that_are_enlarged_fourfold_and_more_are_hashed_from_their_pixels(photo, side):
    """Many of their bits compare what is equal but for rounding; so a JPEG has the hash of its pixels to the bit."""
    for size in ((side, side), (side, 90)):
        image = encode(photo.crop((100, 50, 300, 250)).resize(size), quality=90)
        assert read(image) is not None
        np.testing.assert_array_equal(pdq(image)[0], pdq(libjpeg(image))[0])
