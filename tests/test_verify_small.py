"""Small images: the same photo cut, squeezed and recoloured is found, and what only looks alike is not."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps

from dedupkit.verification import Features, features_of, verify_pair

pytest.importorskip("cv2")
data = pytest.importorskip("skimage.data")

NAMES = ["astronaut", "camera", "cat", "chelsea", "coffee", "rocket"]  # cat and chelsea are one photo
Box = tuple[float, float, float, float]
WHOLE: Box = (0.0, 0.0, 1.0, 1.0)


def photo(name: str) -> Image.Image:
    return Image.fromarray(getattr(data, name)()).convert("RGB")


def thumbnail(image: Image.Image, box: Box = WHOLE, size: tuple[int, int] = (32, 32)) -> Image.Image:
    """Squeeze a part of an image, given as fractions."""
    return image.resize(size, Image.Resampling.BICUBIC, (np.array(box) * (*image.size, *image.size)).tolist())


def stored(image: Image.Image, quality: int) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def known() -> dict[str, Features]:
    return {name: features_of(thumbnail(photo(name))) for name in NAMES}


@pytest.mark.parametrize("name", ["astronaut", "camera", "cat", "coffee"])
@pytest.mark.parametrize("box", [WHOLE, (0.06, 0.0, 1.0, 0.96), (0.0, 0.04, 0.93, 0.98)])
def test_a_photo_cut_otherwise_is_found_with_its_map(known: dict[str, Features], name: str, box: Box) -> None:
    image = thumbnail(photo(name), box)
    edited = ImageOps.mirror(ImageEnhance.Contrast(ImageEnhance.Brightness(image).enhance(1.1)).enhance(0.8))
    for other, mirrored in ((image, False), (edited, True)):
        found = verify_pair(stored(other, 90), known[name])
        assert found.verified, found.describe()
        assert found.mirrored is mirrored
        assert found.box_b == pytest.approx(box, abs=0.02)


def test_sizes_may_differ(known: dict[str, Features]) -> None:
    image = photo("coffee")
    for size in ((24, 40), (40, 20), (16, 16)):
        found = verify_pair(thumbnail(image, size=size), known["coffee"])
        assert found.verified, found.describe()
        assert found.matrix is not None
        np.testing.assert_allclose(found.matrix, [[32 / size[0], 0, 0], [0, 32 / size[1], 0]], atol=0.3)
    assert verify_pair(known["coffee"], image).verified


def test_other_photos_are_not(known: dict[str, Features]) -> None:
    for first in NAMES:
        for second in NAMES:
            same = first == second or {first, second} == {"cat", "chelsea"}
            assert verify_pair(known[first], known[second]).verified is same


def test_a_part_that_differs_stands_out(known: dict[str, Features]) -> None:
    image = thumbnail(photo("camera"))
    image.paste((120, 120, 120), (20, 3, 27, 10))  # in the sky
    found = verify_pair(image, known["camera"])
    assert not found.verified
    assert "a part differs" in found.reason


def test_the_same_silhouette_is_no_copy() -> None:
    """Two blots before a sky correlate well; no detail says that they are one."""
    rows, columns = np.mgrid[:32, :32] / 31 - 0.5

    def blot(width: float, seed: int) -> Image.Image:
        inside = 1 / (1 + np.exp(40 * (np.hypot(columns / width, rows / 0.2) - 1)))
        noise = np.random.default_rng(seed).normal(0, 12, (32, 32))
        return Image.fromarray((200 - 120 * inside + noise).clip(0, 255).astype(np.uint8))

    assert verify_pair(blot(0.3, 1), blot(0.3, 1)).verified
    found = verify_pair(blot(0.3, 1), blot(0.31, 2))
    assert not found.verified
    assert found.agreement > 0.8


def test_a_small_part_is_not_enough() -> None:
    image = photo("cat")
    found = verify_pair(thumbnail(image, (0.08, 0.08, 0.92, 0.92)), thumbnail(image))
    assert not found.verified
    assert "shared" in found.reason or "agree" in found.reason


def test_even_images_and_gradients_prove_nothing() -> None:
    even, ramp = np.full((32, 32), 90, np.uint8), np.tile(np.arange(0, 256, 8, dtype=np.uint8), (32, 1))
    for a in (even, ramp):
        for b in (even, ramp, ramp[::-1], ramp // 2 + 60):
            assert not verify_pair(a, b).verified


@pytest.mark.parametrize("shape", [(1, 1), (7, 7), (40, 1), (8, 8), (9, 30)])
def test_any_shape_is_compared(shape: tuple[int, int], known: dict[str, Features]) -> None:
    tiny = features_of(np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8))
    for other in (known["cat"], tiny):
        found = verify_pair(tiny, other)
        assert 0 <= found.overlap <= 1
        assert other is tiny or not found.verified
