"""Verification accepts every edit with the map that made it, and rejects what only looks alike."""

from __future__ import annotations

import io
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
from helpers import encode
from PIL import Image, ImageDraw, ImageEnhance, ImageOps

from dedupkit.images import ImageError
from dedupkit.verification import features_of
from dedupkit.verification.glance import worth_aligning
from dedupkit.verification.maps import inverse
from dedupkit.verification.pair import Features, Verification, local_features, verify_pair

cv2 = pytest.importorskip("cv2")
data = pytest.importorskip("skimage.data")

NAMES = ["astronaut", "camera", "cat", "coffee", "rocket"]
BICUBIC = Image.Resampling.BICUBIC
Edit = Callable[[Image.Image], Image.Image]


def features(image: Image.Image) -> Features:
    return local_features(np.asarray(image.convert("L")))


def photo(name: str) -> Image.Image:
    image = Image.fromarray(getattr(data, name)()).convert("RGB")
    image.thumbnail((480, 480))
    return image


@pytest.fixture(scope="module")
def photos() -> dict[str, Image.Image]:
    return {name: photo(name) for name in NAMES}


@pytest.fixture(scope="module")
def known(photos: dict[str, Image.Image]) -> dict[str, Features]:
    return {name: features(image) for name, image in photos.items()}


def crop(image: Image.Image, left: float, top: float, right: float, bottom: float) -> Image.Image:
    width, height = image.size
    return image.crop((round(left * width), round(top * height), round(right * width), round(bottom * height)))


def stored(image: Image.Image, quality: int) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return Image.open(buffer)


def captioned(image: Image.Image) -> Image.Image:
    image, (width, height) = image.copy(), image.size
    draw = ImageDraw.Draw(image)
    draw.text((0.05 * width, 0.85 * height), "www.example-photos.test", fill="white", font_size=height // 14)
    draw.rectangle((0.8 * width, 0.05 * height, 0.95 * width, 0.2 * height), fill="red")
    return image


# What is made of the photo; then what is to be found: the part of the photo seen, the scale back to the photo,
# the rotation, whether mirrored, and how it is told.
WHOLE = (0.0, 0.0, 1.0, 1.0)
EDITS: dict[str, tuple[Edit, tuple[float, ...], float | None, float, bool, str]] = {
    "same": (lambda i: i, WHOLE, 1, 0, False, "the same image"),
    "half": (lambda i: i.resize((i.width // 2, i.height // 2)), WHOLE, 2, 0, False, "the same image, 50 % size"),
    "jpeg": (lambda i: stored(i, 30), WHOLE, 1, 0, False, "the same image"),
    "grey": (lambda i: i.convert("L"), WHOLE, 1, 0, False, "the same image"),
    "bright": (lambda i: ImageEnhance.Brightness(i).enhance(1.3), WHOLE, 1, 0, False, "the same image"),
    "square": (lambda i: i.resize((224, 224)), WHOLE, None, 0, False, "the same image, "),
    "text": (captioned, WHOLE, 1, 0, False, "the same image"),
    "border": (
        lambda i: ImageOps.expand(i, 40, "white"), WHOLE, 1, 0, False, "the same image inside a border",
    ),
    "mirror": (ImageOps.mirror, WHOLE, 1, 0, True, "the same image, mirrored"),
    "flip": (ImageOps.flip, WHOLE, 1, 180, True, "the same image, flipped top to bottom"),
    "turn": (
        lambda i: i.transpose(Image.Transpose.ROTATE_90),
        WHOLE, 1, 90, False, "the same image, rotated by 90 degrees",
    ),
    "rotate 10": (
        lambda i: i.rotate(10, BICUBIC), WHOLE, 1, 10, False, "the same image, rotated by 10 degrees",
    ),
    "rotate -25": (
        lambda i: i.rotate(-25, BICUBIC), WHOLE, 1, -25, False, "the same image, rotated by 25 degrees",
    ),
    "crop": (
        lambda i: crop(i, 0.1, 0.1, 0.9, 0.95), (0.1, 0.1, 0.9, 0.95), 1, 0, False, "a 68 % crop of the kept image",
    ),
    "crop, mirrored": (
        lambda i: ImageOps.mirror(crop(i, 0.05, 0.1, 0.95, 0.967)),
        (0.05, 0.1, 0.95, 0.967), 1, 0, True, "a 78 % crop, mirrored, of the kept image",
    ),
    "quarter": (
        lambda i: crop(i, 0.25, 0.3, 0.75, 0.8), (0.25, 0.3, 0.75, 0.8), 1, 0, False, "a 25 % crop of the kept image",
    ),
    "all": (
        lambda i: stored(crop(i, 0.1, 0.1, 0.9, 0.9).resize((300, 300 * i.height // i.width)), 40),
        (0.1, 0.1, 0.9, 0.9), None, 0, False, "a 64 % crop, ",
    ),
}  # fmt: skip


@pytest.mark.parametrize("edit", EDITS)
@pytest.mark.parametrize("name", NAMES)
def test_edits_are_accepted_with_their_map(
    photos: dict[str, Image.Image], known: dict[str, Features], name: str, edit: str
) -> None:
    make, box, scale, rotation, mirrored, words = EDITS[edit]
    image = photos[name]
    edited = make(image)
    found = verify_pair(features(edited), known[name])
    assert found.verified, found.describe()
    if edit.startswith("rotate"):  # the corners are lost, the bounds hardly
        assert min(found.shares) > 0.65
    else:
        assert found.box_b == pytest.approx(box, abs=0.03)
    if scale is None:
        scale = np.sqrt(
            (box[2] - box[0]) * (box[3] - box[1]) * image.width * image.height / edited.width / edited.height
        )
    assert found.scale == pytest.approx(scale, rel=0.02)
    assert (found.rotation - rotation + 180) % 360 - 180 == pytest.approx(0, abs=1)
    assert found.mirrored is mirrored
    told = found.describe()
    if words.startswith("a ") and found.inliers:  # the share may round otherwise
        share = int(words.split()[1])
        assert any(told.startswith(words.replace(str(share), str(near), 1)) for near in range(share - 2, share + 3))
    else:
        assert told.startswith(words)
    assert verify_pair(known[name], features(edited)).verified


def test_the_map_is_in_pixels_of_the_full_images(photos: dict[str, Image.Image]) -> None:
    image = photos["coffee"]
    window = image.crop((60, 40, 360, 300)).resize((600, 520))
    found = verify_pair(features(window), features(image))
    assert found.matrix is not None
    np.testing.assert_allclose(found.matrix, [[0.5, 0, 60], [0, 0.5, 40]], atol=1.0)
    assert found.box_a == pytest.approx(WHOLE, abs=0.01)
    assert found.shares[0] == pytest.approx(1, abs=0.01)
    assert found.shares[1] == pytest.approx(300 * 260 / image.width / image.height, abs=0.02)
    assert found.overlap == found.shares[0]


def test_a_reduced_plane_stands_for_the_full_image(photos: dict[str, Image.Image], known: dict[str, Features]) -> None:
    image = photos["cat"]
    half = np.asarray(image.convert("L").reduce(2))
    found = verify_pair(local_features(half, size=image.size), known["cat"])
    assert found.verified
    assert found.size_a == image.size
    assert found.scale == pytest.approx(1, rel=0.01)


def templated(inner: Image.Image, inset: int) -> Image.Image:
    page = Image.new("RGB", (480, 480), "white")
    draw = ImageDraw.Draw(page)
    for line in range(20):
        draw.text(
            (10, 8 + 23 * line),
            f"{line * 7919 % 977} lines of the same text for all of them, {line}",
            "black",
            font_size=15,
        )
    page.paste(inner.resize((inset, inset)), ((480 - inset) // 2, (480 - inset) // 2))
    return page


def parallax(image: Image.Image, amplitude: float) -> Image.Image:
    pixels = np.asarray(image)
    height, width = pixels.shape[:2]
    depth = np.random.default_rng(5).random((5, 5)).astype(np.float32)
    shift = cv2.resize(depth, (width, height), interpolation=cv2.INTER_CUBIC) * np.float32(amplitude * width)
    x, y = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    return Image.fromarray(cv2.remap(pixels, x + shift, y, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT))


def rejected(a: Image.Image, b: Image.Image) -> Verification:
    first, second = features(a), features(b)
    found = verify_pair(first, second)
    assert not found.verified, found.describe()
    assert not verify_pair(second, first).verified
    assert found.relation != "copy"
    assert found.describe().startswith("the template of" if found.relation == "template" else "not the kept image: ")
    return found


def test_a_stereo_pair_is_another_shot() -> None:
    left, right = (Image.fromarray(view).convert("RGB") for view in data.stereo_motorcycle()[:2])
    assert "another shot" in rejected(left, right).reason


@pytest.mark.parametrize("amplitude", [0.02, 0.04])
@pytest.mark.parametrize("name", ["astronaut", "coffee", "cat"])
def test_a_burst_with_parallax_is_another_shot(photos: dict[str, Image.Image], name: str, amplitude: float) -> None:
    rejected(photos[name], parallax(photos[name], amplitude))


@pytest.mark.parametrize(
    ("inset", "relation"), [(200, "template"), (240, "template"), (320, "template"), (420, "other")]
)
def test_a_template_with_another_picture_is_told(photos: dict[str, Image.Image], inset: int, relation: str) -> None:
    found = rejected(templated(photos["astronaut"], inset), templated(photos["coffee"], inset))
    assert found.relation == relation  # where the picture leaves next to nothing of the page, the page is no template
    if relation == "template":
        edge = (480 - inset) / 960
        assert found.differs == pytest.approx((edge, edge, 1 - edge, 1 - edge), abs=0.14)
        assert found.swapped().differs == pytest.approx(found.differs, abs=0.02)
        assert found.same == pytest.approx(1 - (inset / 480) ** 2, abs=0.3)
    same = verify_pair(*(features(templated(photos["cat"], inset)) for _ in range(2)))
    assert same.verified and same.relation == "copy" and same.same == 1


@pytest.mark.parametrize("edit", [lambda i: stored(i, 40), lambda i: i.resize((300, 300)), ImageOps.mirror])
def test_a_template_is_told_from_an_edited_copy_of_it(photos: dict[str, Image.Image], edit: Edit) -> None:
    page = templated(photos["astronaut"], 200)
    assert verify_pair(features(edit(templated(photos["coffee"], 200))), features(page)).relation == "template"
    assert verify_pair(features(edit(page)), features(page)).relation == "copy"


def test_a_product_on_white_is_not_another_product(photos: dict[str, Image.Image]) -> None:
    def product(name: str) -> Image.Image:
        page = Image.new("RGB", (400, 400), "white")
        page.paste(photos[name].resize((160, 200)), (120, 100))
        return page

    rejected(product("cat"), product("coffee"))


def test_neighbouring_windows_share_little(photos: dict[str, Image.Image]) -> None:
    left, right = crop(photos["astronaut"], 0, 0, 0.6, 1), crop(photos["astronaut"], 0.4, 0, 1, 1)
    found = rejected(left, right)
    assert found.overlap == pytest.approx(1 / 3, abs=0.03)
    assert found.box_a == pytest.approx((2 / 3, 0, 1, 1), abs=0.03)
    assert found.box_b == pytest.approx((0, 0, 1 / 3, 1), abs=0.03)
    assert found.reason == "only 33 % of the area is shared"


def test_different_photos_share_nothing(known: dict[str, Features]) -> None:
    for first in NAMES:
        for second in NAMES:
            assert verify_pair(known[first], known[second]).verified is (first == second)


def test_a_glance_tells_maps_that_are_worth_aligning(
    photos: dict[str, Image.Image], known: dict[str, Features]
) -> None:
    window = crop(photos["coffee"], 0.1, 0.2, 0.7, 0.9)
    to_whole = np.array([[1.0, 0, round(0.1 * photos["coffee"].width)], [0, 1, round(0.2 * photos["coffee"].height)]])
    right = worth_aligning(features(window), known["coffee"], to_whole, sure=True)
    back = worth_aligning(known["coffee"], features(window), inverse(to_whole), sure=True)
    away = worth_aligning(features(window), known["coffee"], to_whole - [[0, 0, 60], [0, 0, 60]], sure=False)
    other = worth_aligning(features(window), known["astronaut"], to_whole, sure=False)
    assert (right, back, away, other) == (True, True, False, False)


def clouds(seed: int, side: int = 240) -> Image.Image:
    """A sky in which SIFT finds nothing."""
    coarse = np.random.default_rng(seed).normal(128, 14, (7, 7)).astype(np.float32)
    return Image.fromarray(
        cv2.resize(coarse, (side, side), interpolation=cv2.INTER_CUBIC).clip(0, 255).astype(np.uint8)
    )


@pytest.mark.parametrize("edit", [ImageOps.mirror, ImageOps.flip, lambda i: i.resize((130, 120)), lambda i: i])
def test_images_without_features_are_compared_in_place(edit: Edit) -> None:
    sky = clouds(1)
    assert len(features(sky).keypoints) < 15
    found = verify_pair(features(edit(sky)), features(sky))
    assert found.verified
    assert found.mirrored is (edit in (ImageOps.mirror, ImageOps.flip))
    rejected(edit(sky), clouds(2))


def test_small_windows_without_contrast_need_no_sift(photos: dict[str, Image.Image]) -> None:
    """Where few corners stand out, fainter ones do."""
    faint = [photo.convert("L").crop((60, 60, 188, 156)).point(lambda v: 100 + v // 3) for photo in photos.values()]
    faint = [image for image in faint if np.asarray(image).std() > 8]  # the last one shows nothing
    assert len(faint) == 4
    for image in faint:
        found = verify_pair(features(stored(image.crop((8, 6, 120, 90)), 92)), features(image))
        assert (found.verified, found.by_sift) == (True, False)
    for one, other in pairwise(faint):
        found = verify_pair(features(one), features(other))
        assert (found.verified, found.by_sift) == (False, False)


def test_gradients_and_even_planes_prove_nothing() -> None:
    ramp = Image.fromarray(np.tile(np.arange(200, dtype=np.uint8), (200, 1)))
    rejected(ramp, ramp.point(lambda value: value // 2 + 60))
    even = Image.new("L", (100, 80), 90)
    assert rejected(even, even).matrix is None
    halves = even.copy()
    halves.paste(200, (0, 40, 100, 80))
    for turned in (halves, halves.rotate(90, expand=True)):
        assert rejected(turned, even).matrix is None
        verify_pair(features(turned), features(halves))  # border down to the line where the halves meet


@pytest.mark.parametrize("shape", [(1, 1), (8, 8), (7, 300), (300, 3), (1, 50)])
def test_tiny_images_are_no_match(shape: tuple[int, int], known: dict[str, Features]) -> None:
    tiny = local_features(np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8))
    for a, b in ((tiny, known["cat"]), (known["cat"], tiny), (tiny, tiny)):
        found = verify_pair(a, b)
        assert a is b or not found.verified
        assert 0 <= found.overlap <= 1
        found.describe()


def test_a_plane_of_bytes_is_asked_for() -> None:
    for wrong in (np.zeros((4, 4, 3), np.uint8), np.zeros((4, 4)), np.zeros((0, 4), np.uint8)):
        with pytest.raises(ValueError, match="uint8"):
            local_features(wrong)


def test_results_do_not_depend_on_what_ran_before(photos: dict[str, Image.Image], known: dict[str, Features]) -> None:
    edited = features(stored(photos["coffee"].rotate(7, BICUBIC), 40))
    results = []
    for seed in (1, 2):
        cv2.setRNGSeed(seed)
        verify_pair(known["cat"], known["rocket"])
        results.append(verify_pair(edited, known["coffee"]))
    first, second = results
    assert first.matrix is not None and second.matrix is not None
    assert first.matrix.tobytes() == second.matrix.tobytes()
    assert (first.inliers, first.agreement, first.coherence) == (second.inliers, second.agreement, second.coherence)


def test_words_for_other_relations(photos: dict[str, Image.Image], known: dict[str, Features]) -> None:
    image = photos["coffee"]
    window = features(crop(image, 0.1, 0.1, 0.9, 0.9))
    assert verify_pair(known["coffee"], window).describe() == "a wider image with the kept image in 64 % of it"
    bordered = features(ImageOps.expand(image, 40, "black"))
    assert verify_pair(known["coffee"], bordered).describe() == "the same image without a border"
    seen = verify_pair(window, known["coffee"])
    assert (
        seen.describe() == verify_pair(known["coffee"], window).swapped().describe() == "a 64 % crop of the kept image"
    )
    assert np.allclose(seen.swapped().swapped().matrix, seen.matrix)
    left, right = features(crop(image, 0, 0, 0.75, 1)), features(crop(image, 0.25, 0, 1, 1))
    assert verify_pair(left, right).describe("the other") == "an image that shares 67 % of its area with the other"


def test_images_are_compared_in_any_form(photos):
    image = photos["coffee"].convert("RGB")
    crop = image.crop((40, 30, image.width - 40, image.height - 50))
    first = verify_pair(crop, image)
    assert first.verified
    for form in (np.asarray(image), encode(image, "PNG"), features_of(image)):
        assert verify_pair(crop, form).describe() == first.describe()
    assert verify_pair(np.asarray(crop.convert("L")), image).verified
    assert not verify_pair(photos["rocket"], image).verified
    for wrong in (np.zeros((4, 4, 2), np.uint8), np.zeros((4, 4)), np.zeros((0, 3), np.uint8), b"no image"):
        with pytest.raises(ImageError):
            verify_pair(wrong, image)
    for other in (1, "photo.jpg", None):
        with pytest.raises(TypeError, match=f"an array of uint8, not {type(other).__name__}"):
            verify_pair(other, image)


def test_a_mirrored_copy_of_a_picture_that_is_its_own_mirror_image(photos: dict[str, Image.Image]) -> None:
    """Corners of the two halves match unmirrored too, under a map that the pixels do not confirm."""
    half = crop(photos["astronaut"], 0, 0, 0.5, 1)
    page = Image.new("RGB", (2 * half.width, half.height))
    page.paste(half, (0, 0))
    page.paste(ImageOps.mirror(half), (half.width, 0))
    page.paste(photos["cat"].resize((150, 150)), (0, 0))
    found = verify_pair(features(ImageOps.mirror(page)), features(page))
    assert found.verified and found.mirrored and not found.by_sift


def test_a_patch_without_shared_pixels_proves_nothing() -> None:
    """The only placement leaves no pixel clear of the edges."""
    thin = np.random.default_rng(1).integers(0, 256, (6, 40), dtype=np.uint8)
    assert not verify_pair(local_features(thin), local_features(thin[:, ::-1].copy())).verified
