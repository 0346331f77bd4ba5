"""Coefficients of JPEGs against libjpeg's pixels, and what is left to libjpeg."""

from __future__ import annotations

import io
import random

import numpy as np
import pytest
from helpers import encode, python
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, ImageOps

from dedupkit.hashing import pdq
from dedupkit.hashing.pdq import decimate
from dedupkit.images import ImageError
from dedupkit.images.jpeg.coefficients import Coefficients, read_coefficients
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
        if name not in ("no end", "cut in the scan", "no scan"):
            assert not isinstance(decimate([image])[0], ImageError) or name == "twice the frame"
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


@settings(max_examples=150, deadline=None)
@given(seed=st.integers(0, 2**32), kind=st.sampled_from(["bytes", "header", "cut", "hole", "more"]))
def test_broken_files_are_refused_or_read_but_harm_nothing(seed, kind):
    draw = random.Random(seed)
    options = {
        "quality": draw.choice([5, 50, 95]),
        "subsampling": draw.choice([0, 1, 2]),
        "optimize": draw.random() < 0.5,
    }
    images = []
    for _ in range(draw.randint(1, 6)):
        image = bytearray(encode(noise(draw.randint(1, 150), draw.randint(1, 150)), **options))
        at = draw.randrange(len(image))
        if kind == "bytes":
            image[at] = draw.randrange(256)
        elif kind == "header":
            image[draw.randrange(min(len(image), 640))] = draw.randrange(256)
        elif kind == "cut":
            del image[at:]
        elif kind == "hole":
            del image[at : at + draw.randint(1, 40)]
        else:
            image[at:at] = draw.randbytes(draw.randint(1, 40))
        images.append(bytes(image))
    for found, decimated in zip(read_coefficients(images, lambda length: 4), decimate(images), strict=True):
        if found is not None:
            assert (decimated.width, decimated.height) == (found.width, found.height)
            assert decimated.buffers.shape == (1, 64, 64)
        assert isinstance(decimated, ImageError) or np.isfinite(decimated.buffers).all()


def test_what_was_compiled_once_needs_no_compiler(tmp_path):
    image = tmp_path / "a.jpg"
    image.write_bytes(encode(noise(100, 80)))
    script = (
        "import sys; from pathlib import Path; from dedupkit.hashing import pdq;"
        f"print(pdq(Path({str(image)!r}).read_bytes())[0].tobytes().hex(), 'numba' in sys.modules)"
    )
    cache = {"NUMBA_CACHE_DIR": str(tmp_path / "cache")}
    first = python("-c", script, env=cache).stdout.split()
    assert first[1] == "True" and len(list((tmp_path / "cache").glob("*.o"))) == 1
    assert python("-c", script, env=cache).stdout.split() == [first[0], "False"]
