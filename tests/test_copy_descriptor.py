"""The copy descriptor that comes with the package."""

import sys

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageOps

from dedupkit.embedding import Embedder, embedder_key, load_embedder, shared_embedder
from dedupkit.embedding.frame import without_frame
from dedupkit.embedding.keys import copy_weights
from dedupkit.embedding.pixels import decode_rgb
from dedupkit.errors import MissingExtraError
from dedupkit.images.transformations import TRANSFORMATIONS


def vectors_of(model, images):
    return model.encode(np.stack([model.preprocess(image) for image in images]))


def test_it_knows_transformed_copies_from_other_photos(photos):
    pytest.importorskip("onnxruntime")
    model = shared_embedder("copy")
    assert isinstance(model, Embedder)
    assert (model.name, model.dim, model.min_side) == ("copy", 512, 160)
    pictures = [photo.convert("RGB") for photo in photos.values()][:9]
    originals = vectors_of(model, pictures)
    assert np.allclose(np.linalg.norm(originals, axis=1), 1, atol=1e-4)
    others = originals @ originals.T
    np.fill_diagonal(others, -1)
    nearest = others.max(axis=1)
    ranked_first = []
    for edit in TRANSFORMATIONS:
        copies = vectors_of(model, [decode_rgb(edit.file(picture), 160) for picture in pictures])
        ranked_first.append(((originals * copies).sum(axis=1) > nearest).mean())
    assert np.mean(ranked_first) > 0.97


@pytest.mark.parametrize("colour", ["black", "white", (90, 20, 160)])
def test_borders_and_the_corners_of_a_rotation_move_a_vector_little(photos, colour):
    pytest.importorskip("onnxruntime")
    pictures = [photos[name].convert("RGB") for name in ("astronaut", "coffee", "chelsea", "rocket")]
    model = shared_embedder("copy")
    originals = vectors_of(model, pictures)
    bordered = vectors_of(model, [ImageOps.expand(picture, (90, 60), colour) for picture in pictures])
    assert (originals * bordered).sum(axis=1).min() > 0.9
    for expand, least in ((False, 0.55), (True, 0.4)):
        rotated = [picture.rotate(20, Image.Resampling.BICUBIC, expand, fillcolor=colour) for picture in pictures]
        assert (originals * vectors_of(model, rotated)).sum(axis=1).min() > least


def test_only_a_frame_is_cut_off(photos, photo):
    assert without_frame(photo) is photo
    even = Image.new("RGB", (50, 40), "white")
    assert without_frame(even) is even
    dot = even.copy()
    dot.paste("black", (20, 20, 25, 25))  # a quarter of each side must be left
    assert without_frame(dot) is dot
    strip = ImageOps.expand(photo, (0, 30, 0, 0), "navy")
    assert without_frame(strip).size == (photo.width, photo.height - 1)
    for angle in (-30, 8, 30):
        filled = without_frame(photos["coffee"].rotate(angle, Image.Resampling.BICUBIC))
        corners = np.asarray(filled)[[1, 1, -2, -2], [1, -2, 1, -2]]
        assert (corners.max(axis=1) > 25).all()


def test_a_card_with_rounded_corners_is_not_turned_and_a_square_by_45_degrees_is(photo):
    for radius in (16, 40, 64):
        card = Image.new("L", photo.size)
        ImageDraw.Draw(card).rounded_rectangle((0, 0, photo.width - 1, photo.height - 1), radius, fill=255)
        rounded = Image.composite(photo, Image.new("RGB", photo.size, "white"), card).reduce(3)
        assert without_frame(rounded) is rounded
    for expand in (False, True):
        turned = photo.resize((400, 400)).rotate(45, Image.Resampling.BICUBIC, expand, fillcolor="white").reduce(2)
        assert without_frame(turned) is not turned


def test_a_long_strip_is_not_turned(photo):
    strip = np.array(photo.resize((40, 6000)))  # turned, it took 210 MB
    triangle = np.tri(15, dtype=bool)[::-1]
    for down in (1, -1):
        for right in (1, -1):
            strip[::down, ::right][:15, :15][triangle] = 255
    image = Image.fromarray(strip)
    assert without_frame(image) is image


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (9, 1), (2, 2), (7, 3), (300, 2)])
def test_an_image_of_any_size_keeps_a_pixel(size):
    draw = np.random.default_rng(0)
    for levels in (1, 2, 256):
        image = Image.fromarray(draw.integers(0, levels, (*size, 3), np.uint8))
        assert min(without_frame(image).size) >= 1


@pytest.mark.parametrize("threads", ["1", "2,1"])
@pytest.mark.parametrize("adds_bytes", [True, False])
def test_an_image_has_one_vector_whatever_is_beside_it_and_computes_it(photos, monkeypatch, threads, adds_bytes):
    pytest.importorskip("onnxruntime")
    pictures = [photo.convert("RGB") for photo in photos.values()][:5]
    together = vectors_of(shared_embedder("copy"), pictures)
    monkeypatch.setenv("OMP_NUM_THREADS", threads)
    monkeypatch.setattr("dedupkit.embedding.onnx._adds_bytes", lambda: adds_bytes)
    model = load_embedder("copy")
    alone = np.concatenate([vectors_of(model, [picture]) for picture in pictures])
    assert np.array_equal(together, alone)


def test_its_key_is_that_of_its_file():
    assert embedder_key("copy") == embedder_key("copy?name=other")
    assert copy_weights().stat().st_size < 10e6


def test_without_onnxruntime_an_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingExtraError, match=r"onnxruntime.*verify"):
        load_embedder("copy")
