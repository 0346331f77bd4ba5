"""The perceptual hashes against the packages that define them, bit for bit."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image, ImageOps

from dedupkit.hashing.perceptual import (
    PERCEPTUAL_HASHES,
    ahash,
    dhash,
    perceptual_hash,
    perceptual_hashes,
    phash,
    whash,
)
from dedupkit.hashing.transforms import dct_corner, haar_low, haar_without_mean

SHIPPED = ["astronaut", "brick", "camera", "chelsea", "coffee", "coins", "grass", "gravel", "moon", "page"]
SHIPPED += ["rocket", "text"]
WINDOWS = 500
# NumPy 1's FFT rounds otherwise than SciPy's, which turns ties in the pHash of a few images.
NUMPY_2 = int(np.__version__.split(".")[0]) >= 2
ODD_SHAPES = [
    (1, 1),
    (1, 2),
    (2, 1),
    (7, 7),
    (8, 8),
    (9, 8),
    (32, 32),
    (3, 200),
    (200, 3),
    (1, 300),
    (256, 257),
]
# How the file is stored that imagededup reads; it takes an array as well, but only of RGB and grey.
STORED = {
    "L": "png",
    "RGB": "png",
    "RGBA": "png",
    "LA": "png",
    "P": "png",
    "1": "png",
    "CMYK": "tiff",
    "YCbCr": "tiff",
}

Expect = Callable[[Image.Image], dict[str, str]]


@pytest.fixture(scope="module")
def expect(tmp_path_factory: pytest.TempPathFactory) -> Expect:
    """Ask both packages for the hex of all eight hashes."""
    imagehash = pytest.importorskip("imagehash")
    methods = pytest.importorskip("imagededup.methods")
    ours_to_theirs = {"phash": "phash", "dhash": "dhash", "ahash": "average_hash", "whash": "whash"}
    first = {ours: getattr(imagehash, theirs) for ours, theirs in ours_to_theirs.items()}
    second = {
        f"{kind[0].lower()}hash_imagededup": getattr(methods, kind)(verbose=False)
        for kind in ("PHash", "DHash", "AHash", "WHash")
    }
    folder = tmp_path_factory.mktemp("stored")

    def ask(image: Image.Image) -> dict[str, str]:
        if image.mode in ("RGB", "L"):
            argument = {"image_array": np.asarray(image)}
        else:
            path = folder / f"image.{STORED[image.mode]}"
            image.save(path, **({"compress_level": 1} if path.suffix == ".png" else {}))
            argument = {"image_file": str(path)}
        answers = {name: str(hasher(image)) for name, hasher in first.items()}
        answers |= {name: hasher.encode_image(**argument) for name, hasher in second.items()}
        return answers

    return ask


@pytest.fixture(scope="module")
def photos() -> list[Image.Image]:
    data = pytest.importorskip("skimage.data")
    return [Image.fromarray(getattr(data, name)()) for name in SHIPPED]


def disagreements(images: Iterator[tuple[str, Image.Image]], expect: Expect) -> tuple[int, list[str]]:
    count, found = 0, []
    for label, image in images:
        ours = perceptual_hashes(image, PERCEPTUAL_HASHES)
        for name, theirs in expect(image).items():
            if ours[name].tobytes().hex() != theirs:
                found.append(f"{label} {image.mode} {image.size}: {name} {ours[name].tobytes().hex()} != {theirs}")
        count += 1
    if not NUMPY_2 and len(found) <= count // 25:
        found = [line for line in found if ": phash" not in line]
    return count, found


def to_mode(image: Image.Image, mode: str, rng: np.random.Generator) -> Image.Image:
    """Convert, with a palette of any kind and with an alpha that is not all opaque."""
    image = image.convert("RGB")
    if mode in ("RGBA", "LA"):
        image = image.convert(mode)
        image.putalpha(Image.fromarray(rng.integers(0, 256, image.size[::-1], dtype=np.uint8)))
        return image
    if mode == "P":
        image = image.quantize(int(rng.integers(2, 257))) if rng.random() < 0.5 else image.convert("P")
        if rng.random() < 0.5:
            image.info["transparency"] = 1
        return image
    return image.convert(mode)


def windows(photos: list[Image.Image], count: int, seed: int) -> Iterator[tuple[str, Image.Image]]:
    """Random windows, resized, turned, mirrored onto themselves and posterised, in every mode."""
    rng = np.random.default_rng(seed)
    edits: dict[str, Callable[[Image.Image], Image.Image]] = {
        "window": lambda image: image,
        "resized": lambda image: image.resize(tuple(int(side) for side in rng.integers(1, 300, 2))),
        "rotated": lambda image: image.rotate(float(rng.uniform(-180, 180)), expand=bool(rng.integers(2))),
        "turned": lambda image: image.transpose(Image.Transpose(int(rng.integers(7)))),
        # Symmetric and posterised images have many coefficients that are equal but for rounding.
        "symmetric": lambda image: Image.blend(image, ImageOps.mirror(image), 0.5),
        "posterised": lambda image: ImageOps.posterize(image, int(rng.integers(1, 4))),
        "bordered": lambda image: ImageOps.expand(image, int(rng.integers(1, 100)), (255, 255, 255)),
    }
    modes = list(STORED)
    for number in range(count):
        photo = photos[rng.integers(len(photos))].convert("RGB")
        width, height = (int(min(side, np.exp(rng.uniform(0, np.log(400))))) for side in photo.size)
        left, top = int(rng.integers(photo.width - width + 1)), int(rng.integers(photo.height - height + 1))
        name = list(edits)[rng.integers(len(edits))]
        image = edits[name](photo.crop((left, top, left + width, top + height)))
        yield f"{name} {number}", to_mode(image, modes[rng.integers(len(modes))], rng)


def synthetic() -> Iterator[tuple[str, Image.Image]]:
    """Images made of ties: flat, ramps, stripes, checks, discs, two-level noise, single dots."""
    for level in range(0, 256, 3):
        yield f"flat {level}", Image.new("L", (64, 48), level)
    rng = np.random.default_rng(5)
    for height, width in ((32, 32), (8, 8), (64, 64), (100, 60), (33, 257)):
        y, x = np.mgrid[:height, :width]
        patterns = {
            "ramp x": x * 255 // max(width - 1, 1),
            "ramp y": y * 255 // max(height - 1, 1),
            "ramp xy": (x + y) * 255 // (width + height - 2),
            "disc": 200 * ((2 * x - width + 1) ** 2 + (2 * y - height + 1) ** 2 < min(width, height) ** 2 // 2),
            "dot": 255 * ((x == width // 2) & (y == height // 2)),
            "half": 255 * (x < width // 2),
            "noise": rng.integers(0, 2, (height, width)) * 3 + 100,
        }
        for step in (1, 2, 3, 4, 8, 16):
            patterns[f"stripes {step}"] = 255 * (x // step % 2)
            patterns[f"checks {step}"] = 40 + 90 * ((x // step + y // step) % 2)
        for name, pixels in patterns.items():
            grey = Image.fromarray(pixels.astype(np.uint8))
            yield name, grey
            yield f"{name} tinted", Image.merge("RGB", (grey, grey.point(lambda v: 255 - v), grey))


def test_windows_of_photos(photos: list[Image.Image], expect: Expect) -> None:
    count, found = disagreements(windows(photos, WINDOWS, seed=7), expect)
    assert count == WINDOWS
    assert not found, f"{len(found)} hashes, first {found[:5]}"


def test_whole_photos_in_every_mode(photos: list[Image.Image], expect: Expect) -> None:
    rng = np.random.default_rng(3)
    images = (
        (SHIPPED[i], to_mode(photo, mode, rng)) for i, photo in enumerate(photos) for mode in list(STORED)[i % 2 :: 4]
    )
    _, found = disagreements(images, expect)
    assert not found


def test_odd_shapes_in_every_mode(photos: list[Image.Image], expect: Expect) -> None:
    rng = np.random.default_rng(4)
    images = ((f"{shape}", to_mode(photos[0].resize(shape), mode, rng)) for shape in ODD_SHAPES for mode in STORED)
    _, found = disagreements(images, expect)
    assert not found


def test_synthetic_images_whose_bits_are_ties(expect: Expect) -> None:
    count, found = disagreements(synthetic(), expect)
    assert count > 250
    assert not found, f"{len(found)} hashes, first {found[:5]}"


def test_photos_of_the_data_folder(expect: Expect) -> None:
    folder = os.environ.get("DEDUPKIT_DATA")
    if not folder:
        pytest.skip("DEDUPKIT_DATA names no data folder")
    archive = Path(folder) / "photos" / "imagenet125.tar"
    if not archive.is_file():
        pytest.skip("the data folder holds no photos/imagenet125.tar")

    def stored() -> Iterator[tuple[str, Image.Image]]:
        with tarfile.open(archive) as tar:
            for member in tar:
                if member.name.lower().endswith((".jpg", ".jpeg", ".png", ".webp")):
                    yield member.name, Image.open(io.BytesIO(tar.extractfile(member).read()))

    count, found = disagreements(stored(), expect)
    assert count == 125
    assert not found


@pytest.mark.skipif(not NUMPY_2, reason="NumPy 1 has another FFT")
def test_dct_rounds_as_scipy_does() -> None:
    fftpack = pytest.importorskip("scipy.fftpack")
    rng = np.random.default_rng(1)
    for high in (2, 4, 256):
        for _ in range(100):
            pixels = rng.integers(0, high, (32, 32), dtype=np.uint8)
            full = fftpack.dct(fftpack.dct(pixels, axis=0), axis=1)
            np.testing.assert_array_equal(dct_corner(pixels), full[:8, :8])


@pytest.mark.parametrize("size", [1, 2, 8, 64, 256])
def test_haar_rounds_as_pywavelets_does(size: int) -> None:
    pywt = pytest.importorskip("pywt")
    rng = np.random.default_rng(size)
    pixels = rng.integers(0, 256, (size, size)) / 255.0
    bands = pywt.wavedec2(pixels, "haar", level=int(np.log2(size)))
    bands[0] = bands[0] * 0
    centred = haar_without_mean(pixels)
    np.testing.assert_array_equal(centred, pywt.waverec2(bands, "haar"))
    if size >= 8:
        level = int(np.log2(size)) - 3
        np.testing.assert_array_equal(haar_low(centred, 8), pywt.wavedec2(centred, "haar", level=level)[0])


@settings(max_examples=40, deadline=None)
@given(arrays(np.uint8, st.tuples(st.integers(1, 40), st.integers(1, 40))))
def test_grey_pixels_hash_alike_in_every_form(pixels: np.ndarray) -> None:
    hashes = perceptual_hashes(pixels, PERCEPTUAL_HASHES)
    assert list(hashes) == list(PERCEPTUAL_HASHES)
    forms = [Image.fromarray(pixels), np.stack([pixels] * 3, axis=-1)]
    for name, bits in hashes.items():
        assert bits.shape == (8,)
        assert bits.dtype == np.uint8
        for form in forms:
            np.testing.assert_array_equal(perceptual_hash(form, name), bits, err_msg=name)


def test_named_functions_and_unchanged_input(photos: list[Image.Image]) -> None:
    image = photos[0].copy()
    for function in (phash, dhash, ahash, whash):
        kind = function.__name__
        np.testing.assert_array_equal(function(image), perceptual_hash(image, kind))
        np.testing.assert_array_equal(function(image, "imagededup"), perceptual_hash(image, f"{kind}_imagededup"))
    assert image.tobytes() == photos[0].tobytes()
    assert perceptual_hashes(image, []) == {}


def test_errors_name_what_is_wrong() -> None:
    image = Image.new("L", (9, 9))
    with pytest.raises(ValueError, match="unknown perceptual hash 'md5'; known: phash, dhash"):
        perceptual_hash(image, "md5")
    with pytest.raises(ValueError, match="unknown definition 'opencv'; known: imagehash, imagededup"):
        phash(image, "opencv")  # type: ignore[arg-type]
    for wrong in (np.zeros((4, 4)), np.zeros((4, 4, 2), np.uint8), np.zeros(4, np.uint8)):
        with pytest.raises(ValueError, match="pixels must be uint8 of shape"):
            phash(wrong)
    for empty in (np.zeros((0, 4), np.uint8), Image.new("RGB", (0, 4))):
        with pytest.raises(ValueError, match="no pixels"):
            phash(empty)
    for other in ("a.jpg", b"", [[0, 1]], None):
        with pytest.raises(TypeError):
            phash(other)
