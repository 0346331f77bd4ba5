"""Bytes to luminance, and PDQ of it, against Pillow and the reference's own hashes."""

from __future__ import annotations

import io
import os
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from helpers import encode, python
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, ImageOps, features

from dedupkit.hashing import pdq, pdq_dihedral, pixel_hash
from dedupkit.hashing.decimator import luma_buffer
from dedupkit.images import ImageError, Luma, decode_luma, luma_of, open_image

ORIENTATION = 0x0112
# What turns an upright image into the one that a camera stores under each EXIF orientation.
STORED_AS = {
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


def reduced(grey: NDArray[np.uint8], block: int) -> NDArray[np.float64]:
    """Means over blocks, the partial ones at the right and bottom over what they have."""
    rows, cols = (np.arange(0, side, block) for side in grey.shape)
    sums = np.add.reduceat(np.add.reduceat(grey.astype(np.float64), rows, 0), cols, 1)
    counts = np.diff(np.append(rows, grey.shape[0]))[:, None] * np.diff(np.append(cols, grey.shape[1]))
    return sums / counts


def assert_close(luma: Luma, grey: NDArray[np.uint8], mean: float = 1.0, interior: int = 12) -> None:
    """The plane shows ``grey``, the upright image in full, at the plane's own scale."""
    assert (luma.height, luma.width) == grey.shape
    top, left = luma.trimmed
    flips = (slice(None, None, -1 if top else 1), slice(None, None, -1 if left else 1))
    wanted = reduced(grey[flips], luma.block)[flips]
    assert luma.plane.shape == wanted.shape
    differing = np.abs(luma.plane.astype(np.float64) - wanted)
    assert differing.mean() < mean
    assert np.percentile(differing, 99) < interior


def grey_of(image: Image.Image) -> NDArray[np.uint8]:
    return np.asarray(image.convert("RGB").convert("L"))


def bits(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> int:
    return int(np.unpackbits(first ^ second).sum())


# Formats and modes --------------------------------------------------------------------------------------------------

FORMATS = [
    ("JPEG", {"quality": 95}, 1.5),
    ("JPEG", {"quality": 95, "progressive": True}, 1.5),
    ("JPEG", {"quality": 95, "subsampling": 0}, 1.5),
    ("PNG", {}, 0.1),
    ("WEBP", {"lossless": True}, 0.1),
    ("WEBP", {"quality": 95}, 2.0),
    ("BMP", {}, 0.1),
    ("TIFF", {}, 0.1),
    ("TIFF", {"compression": "tiff_lzw"}, 0.1),
    ("GIF", {}, 12.0),
    ("AVIF", {"quality": 95}, 2.0),
]


@pytest.mark.parametrize(("kind", "options", "mean"), FORMATS, ids=lambda value: str(value))
def test_every_format_decodes_to_the_same_image(
    photo: Image.Image, kind: str, options: dict[str, object], mean: float
) -> None:
    if kind in ("AVIF", "WEBP") and not features.check(kind.lower()):
        pytest.skip(f"this Pillow has no {kind}")
    small = photo.crop((0, 0, 300, 211))
    data = encode(small, kind, **options)
    luma = decode_luma(data)
    assert luma.format == kind.lower()
    assert_close(luma, grey_of(small), mean, interior=60 if kind == "GIF" else 12)
    assert bits(pdq(data)[0], pdq(small)[0]) <= 16
    assert open_image(data).size == small.size


def test_the_name_says_nothing_and_the_bytes_all(photo: Image.Image) -> None:
    """The decoder sees no name; a GIF called .jpg is a GIF."""
    assert decode_luma(encode(photo, "GIF")).format == "gif"


@pytest.mark.parametrize("side", [100, 250, 287, 288, 289, 575, 576, 577, 1151, 1152, 1300])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_jpegs_are_decoded_at_the_scale_that_hashing_needs(photo: Image.Image, side: int, mode: str) -> None:
    """Means over 1, 2, 4 or 8 pixels, never fewer than 144 a side, whatever the partial blocks at the borders."""
    image = photo.resize((side + 13, side)).convert(mode)
    data = encode(image, quality=95)
    luma = decode_luma(data)
    assert luma.block == max(block for block in (1, 2, 4, 8) if block == 1 or side / block >= 144)
    # libjpeg pads a partial block with its last pixel instead of leaving it out
    assert_close(luma, np.asarray(Image.open(io.BytesIO(data)).convert("L")), 1.5)


def test_cmyk_jpegs_decode(photo: Image.Image) -> None:
    cmyk = photo.convert("CMYK")
    luma = decode_luma(encode(cmyk, quality=95))
    assert (luma.width, luma.height, luma.format) == (*photo.size, "jpeg")
    assert bits(pdq(encode(cmyk, quality=95))[0], pdq(photo)[0]) <= 16


def over_white(image: Image.Image) -> NDArray[np.uint8]:
    rgba = np.asarray(image.convert("RGBA")).astype(np.float64)
    alpha = rgba[..., 3:] / 255
    return grey_of(Image.fromarray((rgba[..., :3] * alpha + 255 * (1 - alpha)).round().astype(np.uint8)))


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])
def test_alpha_lies_over_white(photo: Image.Image, mode: str, kind: str) -> None:
    image = photo.resize((200, 180)).convert(mode)
    image.putalpha(Image.linear_gradient("L").resize(image.size))
    data = encode(image, kind, **({"lossless": True, "exact": True} if kind == "WEBP" else {}))
    assert_close(decode_luma(data), over_white(image))


@pytest.mark.parametrize("kind", ["PNG", "GIF"])
def test_palettes_with_and_without_transparency(photo: Image.Image, kind: str) -> None:
    image = photo.resize((200, 180)).quantize(64)
    assert_close(decode_luma(encode(image, kind)), grey_of(image))
    transparent = Image.open(io.BytesIO(encode(image, kind, transparency=3)))
    shown = decode_luma(encode(image, kind, transparency=3))
    assert_close(shown, over_white(transparent))
    hole = np.asarray(image) == 3
    assert hole.any()
    assert shown.plane[hole].min() >= 254


@pytest.mark.parametrize(("mode", "value"), [("L", 7), ("RGB", (7, 8, 9)), ("1", 0)])
def test_a_transparent_colour_lies_over_white(mode: str, value: object) -> None:
    image = Image.new(mode, (200, 180), 255 if mode != "RGB" else (200, 200, 200))
    image.paste(value, (50, 50, 150, 150))
    shown = decode_luma(encode(image, "PNG", transparency=value))
    assert shown.plane[100, 100] == 255


def test_one_bit_images(photo: Image.Image) -> None:
    image = photo.convert("1")
    for kind in ("PNG", "TIFF", "BMP"):
        shown = decode_luma(encode(image, kind))
        full = np.asarray(image).astype(np.uint8) * 255
        assert np.abs(shown.plane - reduced(full, shown.block)).max() <= 1


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bits_are_scaled_to_eight(photo: Image.Image, kind: str) -> None:
    grey = np.asarray(photo.convert("L").resize((200, 180)))
    deep = Image.fromarray(grey.astype(np.uint16) * 257)
    assert_close(decode_luma(encode(deep, kind)), grey, interior=2)


@pytest.mark.parametrize("dtype", [np.int32, np.float32])
@pytest.mark.parametrize("scale", [1 / 255, 1, 257, 1e6], ids=["unit", "8 bit", "16 bit", "any"])
def test_thirty_two_bit_tiffs(photo: Image.Image, dtype: type, scale: float) -> None:
    """Integers and floats: 0 to 1, 0 to 255 and 0 to 65535 are full scales, all else is stretched from its range."""
    grey = np.asarray(photo.convert("L").resize((200, 180)))
    if dtype is np.int32 and scale < 1:
        grey = (grey > 127).astype(np.uint8) * 255
    values = (grey * float(scale) - (5 if scale > 1000 else 0)).round(6).astype(dtype)
    low, high = int(grey.min()), int(grey.max())
    wanted = grey if scale < 1000 else ((grey - low) / (high - low) * 255).astype(np.uint8)
    assert_close(decode_luma(encode(Image.fromarray(values), "TIFF")), wanted, interior=2)


@pytest.mark.parametrize("value", [0, -1, 1e6, np.nan, np.inf, -np.inf])
def test_flat_and_infinite_tiffs_are_flat(value: float) -> None:
    data = encode(Image.fromarray(np.full((20, 20), value, np.float32)), "TIFF")
    assert np.ptp(decode_luma(data).plane) == 0
    assert pdq(data)[1] == 0


def test_tiny_and_narrow_images(photo: Image.Image) -> None:
    for size in [(1, 1), (1, 2), (2, 1), (1, 5000), (5000, 1), (3, 700), (7, 9)]:
        for kind in ("JPEG", "PNG"):
            data = encode(photo.resize(size), kind)
            luma = decode_luma(data)
            assert (luma.width, luma.height) == size
            assert luma_buffer(luma).shape == (64, 64)
            assert np.isfinite(luma_buffer(luma)).all()
            hashed, quality = pdq(data)
            assert hashed.shape == (32,)
            assert 0 <= quality <= 100


@pytest.mark.parametrize("kind", ["GIF", "WEBP"])
def test_of_an_animation_the_first_frame(photos: dict[str, Image.Image], kind: str) -> None:
    frames = [photos[name].convert("RGB").resize((240, 200)) for name in ("astronaut", "coffee", "rocket")]
    data = encode(frames[0], kind, save_all=True, append_images=frames[1:], duration=50)
    assert Image.open(io.BytesIO(data)).n_frames == 3
    assert_close(decode_luma(data), grey_of(frames[0]), 12, interior=60)
    assert bits(pdq(data)[0], pdq(frames[0])[0]) <= 16
    assert bits(pdq(data)[0], pdq(frames[1])[0]) > 60


# EXIF orientation ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "size"),
    [("JPEG", (200, 181)), ("JPEG", (330, 323)), ("JPEG", (1290, 1285)), ("PNG", (200, 181)), ("WEBP", (200, 181))],
    ids=["full", "half", "eighth", "png", "webp"],
)
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(photo: Image.Image, orientation: int, kind: str, size: tuple[int, int]) -> None:
    upright = photo.resize(size)
    operation = STORED_AS[orientation]
    stored = upright if operation is None else upright.transpose(operation)
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    options = {"JPEG": {"quality": 95}, "PNG": {"compress_level": 1}, "WEBP": {"lossless": True}}[kind]
    data = encode(stored, kind, exif=exif, **options)
    luma = decode_luma(data)
    assert_close(luma, grey_of(upright), 1.5)
    assert np.asarray(open_image(data)).shape == (size[1], size[0], 3)
    plain, quality = pdq(encode(upright, kind, **options))
    turned, same = pdq(data)
    assert bits(plain, turned) <= 8
    assert abs(quality - same) <= 2


def test_a_broken_exif_block_does_not_matter(photo: Image.Image) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    data = bytearray(encode(photo, exif=exif))
    start = data.index(b"Exif\0\0") + 6
    data[start : start + 8] = b"\xff" * 8
    assert_close(decode_luma(bytes(data)), grey_of(photo))
    exif[ORIENTATION] = 77
    assert_close(decode_luma(encode(photo, exif=exif)), grey_of(photo))


@pytest.mark.parametrize("scene", ["Landscape", "Portrait"])
def test_photos_in_every_orientation_agree(scene: str) -> None:
    folder = Path(os.environ.get("DEDUPKIT_DATA", "")) / "exif"
    if "DEDUPKIT_DATA" not in os.environ or not folder.is_dir():
        pytest.skip("set DEDUPKIT_DATA to a folder with exif/{scene}_{0..8}.jpg")
    upright = folder.joinpath(f"{scene}_1.jpg").read_bytes()
    wanted = ImageOps.exif_transpose(Image.open(io.BytesIO(upright)))
    for orientation in range(9):
        data = folder.joinpath(f"{scene}_{orientation}.jpg").read_bytes()
        luma = decode_luma(data)
        assert (luma.width, luma.height) == wanted.size
        assert_close(luma, grey_of(wanted), 6, interior=60)
        assert bits(pdq(data)[0], pdq(upright)[0]) <= 16


# What cannot be decoded ---------------------------------------------------------------------------------------------


def test_an_empty_file_says_so() -> None:
    for decode in (decode_luma, open_image):
        with pytest.raises(ImageError, match="empty file"):
            decode(b"")


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP"])
@pytest.mark.parametrize("share", [0.3, 0.9])
def test_truncated_files_are_errors(photo: Image.Image, kind: str, share: float) -> None:
    data = encode(photo, kind)
    with pytest.raises(ImageError):
        decode_luma(data[: int(len(data) * share)])


def test_messages_do_not_change_from_run_to_run(photo: Image.Image) -> None:
    """A manifest is the same bytes for the same input, so no address may stand in a reason."""
    broken = [b"no image at all", encode(photo)[:2000], encode(photo, "PNG")[:5000], b"\xff\xd8\xff\xe0" + b"\0" * 99]
    for data in broken:
        messages = set()
        for _ in range(2):
            with pytest.raises(ImageError) as caught:
                decode_luma(bytes(data))
            messages.add(str(caught.value))
        assert len(messages) == 1
        assert " at 0x" not in messages.pop()


@settings(deadline=None, max_examples=200)
@given(
    st.binary(max_size=600),
    st.sampled_from([b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"RIFF\x20\0\0\0WEBP", b"II*\0", b"BM"]),
)
def test_random_bytes_are_errors_or_images_but_never_crashes(data: bytes, magic: bytes) -> None:
    try:
        luma = decode_luma(magic + data)
    except ImageError as error:
        assert str(error)
    else:
        assert luma.plane.size


@settings(deadline=None, max_examples=100)
@given(st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), min_size=1, max_size=30), st.integers(0, 5))
def test_damaged_files_are_errors_or_images_but_never_crashes(damage: list[tuple[int, int]], which: int) -> None:
    image = Image.linear_gradient("L").convert("RGB").resize((70, 50))
    data = bytearray(encode(image, ["JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP"][which]))
    for position, value in damage:
        data[position % len(data)] = value
    try:
        luma = decode_luma(bytes(data))
    except ImageError:
        return
    assert luma.plane.ndim == 2


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds next to nothing."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")

    head = width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes([8, 0, 0, 0, 0])
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(bytes(99))) + chunk(b"IEND", b"")


@pytest.mark.parametrize("side", [9_000, 12_000, 20_000, 100_000])
def test_decompression_bombs_are_refused_from_their_header(side: int) -> None:
    for decode in (decode_luma, open_image):
        with pytest.raises(ImageError, match="too large: .* megapixels, the limit is 64"):
            decode(png_header(side, side))


def test_the_limit_can_be_set(photo: Image.Image) -> None:
    data = encode(photo, "PNG")
    with pytest.raises(ImageError, match="too large: 512x512"):
        decode_luma(data, max_pixels=512 * 512 - 1)
    assert decode_luma(data, max_pixels=512 * 512).width == 512


HUGE = """
import resource, sys
from PIL import Image
from dedupkit.images import ImageError, decode_luma
import dedupkit.hashing
data = open(sys.argv[1], "rb").read()
try:
    luma = decode_luma(data)
    print(luma.width, luma.height, luma.block, luma.plane.shape, int(luma.plane.mean()))
    dedupkit.hashing.pdq(data)
except ImageError as error:
    print(error)
if sys.platform == "linux":  # ru_maxrss starts there at what the parent had
    status = open("/proc/self/status").read()
    print(int(status.split("VmHWM:")[1].split()[0]) // 1024)
else:
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 20)
"""


@pytest.fixture(scope="module")
def huge(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Flat grey, so that encoding it takes a second: 400 megapixels as JPEG, 81 where that is already too much."""
    folder = tmp_path_factory.mktemp("huge")
    files = {}
    for name, side, kind, options in (
        ("baseline", 20_000, "JPEG", {}),
        ("progressive", 9_000, "JPEG", {"progressive": True}),
        ("png", 9_000, "PNG", {"compress_level": 1}),
    ):
        files[name] = folder / name
        Image.new("L", (side, side), 90).save(files[name], kind, **options)
    return files


@pytest.mark.parametrize("kind", ["baseline", "progressive", "png"])
def test_huge_images_stay_within_the_memory_bound(huge: dict[str, Path], kind: str) -> None:
    result = python("-c", HUGE, str(huge[kind]))
    assert result.returncode == 0, result.stderr
    said, peak = result.stdout.splitlines()
    if kind == "baseline":
        assert said == "20000 20000 8 (2500, 2500) 90"
    else:
        assert said == "too large: 9000x9000 is 81 megapixels, the limit is 64"
    assert int(peak) < 500


# PDQ against the reference ------------------------------------------------------------------------------------------


def variants(photos: dict[str, Image.Image]) -> Iterator[bytes]:
    """Windows of the photos as JPEG and PNG files of many sizes."""
    for number, photo in enumerate(photos.values()):
        image = photo.convert("RGB")
        image.thumbnail((640, 640))
        width, height = image.size
        for index, side in enumerate((170, 210, 256, 333, 400, 512, 700, 901, 1300)):
            for shift in range(4 if side < 800 else int(number < 4)):
                left, top = (width // 9) * (shift % 3), (height // 11) * (shift % 4)
                window = image.crop((left, top, left + width * 3 // 4, top + height * 3 // 4))
                window = window.resize((side, max(160, side * (4 + shift) // 4)))
                if (number + index + shift) % 5:
                    data = encode(window, quality=(75, 85, 95)[shift % 3], progressive=shift == 2)
                else:
                    data = encode(window, "PNG", compress_level=0)
                yield data


def as_bytes(vector: object) -> NDArray[np.uint8]:
    """The reference's 256 numbers as 32 bytes."""
    return np.packbits(np.asarray(vector).astype(np.uint8))


def test_pdq_agrees_with_the_reference(photos: dict[str, Image.Image]) -> None:
    pdqhash = pytest.importorskip("pdqhash")
    distances, dihedral, blocks = [], [], set()
    # A scanned page is no photo: its even lines leave many coefficients near the median.
    for number, data in enumerate(variants({name: photo for name, photo in photos.items() if name != "page"})):
        pixels = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
        vectors, quality = pdqhash.compute_dihedral(pixels)
        ours, our_quality = pdq(data)
        assert abs(our_quality - quality) <= 8
        if quality < 80:
            continue
        blocks.add(decode_luma(data).block)
        distances.append(bits(ours, as_bytes(vectors[0])))
        if number % 2 == 0:
            views, same_quality = pdq_dihedral(data)
            assert views.shape == (8, 32)
            assert same_quality == our_quality
            assert bits(views[0], ours) == 0
            dihedral += [bits(view, as_bytes(theirs)) for view, theirs in zip(views, vectors, strict=True)]
    assert len(distances) >= 300
    assert blocks == {1, 2, 4, 8}
    assert np.mean(np.array(distances) <= 10) >= 0.99
    assert max(distances) <= 31
    assert np.mean(np.array(dihedral) <= 10) >= 0.99


def test_pdq_of_full_luminance_is_the_reference_to_the_bit(photos: dict[str, Image.Image]) -> None:
    """Without a scaled decode nothing is left to differ but float rounding."""
    pdqhash = pytest.importorskip("pdqhash")
    for photo in photos.values():
        pixels = np.asarray(photo.convert("RGB").resize((300, 217)))
        vector, quality = pdqhash.compute(pixels)
        ours, our_quality = pdq(pixels)
        assert bits(ours, as_bytes(vector)) <= 2
        assert abs(our_quality - quality) <= 1


def test_hashes_refuse_what_is_no_image() -> None:
    for measure in (pdq, pdq_dihedral, pixel_hash):
        for wrong in (np.zeros((4, 4, 2), np.uint8), np.zeros(9, np.uint8), np.zeros((4, 4))):
            with pytest.raises(ImageError, match="pixels must be uint8 of shape"):
                measure(wrong)
        for empty in (np.zeros((0, 3), np.uint8), Image.new("RGB", (0, 4))):
            with pytest.raises(ImageError, match="no pixels"):
                measure(empty)
        for other in ("photo.jpg", 1, None):
            with pytest.raises(TypeError, match=f"an array of uint8, not {type(other).__name__}"):
                measure(other)
    with pytest.raises(TypeError, match="decode them with dedupkit.images.open_image"):
        pixel_hash(b"bytes")


def test_pixels_have_the_hash_of_their_image(photo: Image.Image) -> None:
    for image in (photo.convert("L"), photo, photo.convert("RGBA")):
        assert pixel_hash(np.asarray(image)) == pixel_hash(image)


def test_bytes_pillow_and_arrays_hash_alike(photo: Image.Image) -> None:
    small = photo.resize((240, 200))
    data = encode(small, "PNG")
    from_bytes, quality = pdq(data)
    for other in (Image.open(io.BytesIO(data)), np.asarray(small)):
        hashed, same = pdq(other)
        assert (hashed.tobytes(), same) == (from_bytes.tobytes(), quality)
    assert luma_of(small).block == 1
