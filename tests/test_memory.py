"""Images in memory: PIL images, arrays, bytes and Hugging Face data sets give a run that leaves nothing behind."""

from __future__ import annotations

import gc
import io
import os
import pickle
import struct
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers import encode, snapshot
from PIL import Image

import dedupkit as dk
from dedupkit.sources.memory import Images, lay_down


@pytest.fixture
def scratch(tmp_path, monkeypatch) -> Path:
    """Where temporary folders go, so that a test sees them."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    return folder


@pytest.fixture(scope="module")
def pictures(photos) -> list[Image.Image]:
    """Two photos, each twice: once more compressed."""
    found = []
    for name in ("astronaut", "coffee"):
        image = photos[name].convert("RGB").resize((240, 180))
        found += [image, Image.open(io.BytesIO(encode(image, quality=40)))]
    return found


def verdicts(run: dk.Run) -> list[str]:
    return run.manifest["verdict"].to_pylist()


def test_every_form_gives_the_same_verdicts_and_leaves_nothing(scratch, pictures):
    arrays = [np.asarray(image) for image in pictures]
    forms = [
        pictures,
        tuple(arrays),
        np.stack(arrays),
        (image for image in pictures),
        [encode(image, "PNG") for image in pictures],
        [pictures[0], arrays[1], encode(pictures[2], "PNG"), pictures[3]],
    ]
    for images in forms:
        run = dk.dedup(images, workers=1)
        assert verdicts(run) == ["keep", "remove", "keep", "remove"]
        assert run.kept["sample"].to_pylist() == [0, 2]
        assert len(list(scratch.iterdir())) == 1
        del run
        gc.collect()
        assert list(scratch.iterdir()) == []


def test_the_result_is_a_run_like_any_other(scratch, pictures, tmp_path):
    images = dk.Images(pictures, keys=["a", 2, "c", "d"], captions=["one", None, "three", "four"])
    run = dk.dedup(images, workers=1)
    assert run.manifest["key"].to_pylist() == ["a", "2", "c", "d"]
    assert run.manifest["caption"].to_pylist() == ["one", None, "three", "four"]
    assert "duplicate of a" in str(run.explain("2"))
    draft = run.decide("exact")
    group, pair = run.groups[0], run.borderline()[0]
    assert draft.summary["keep"] == 4
    page = run.report(tmp_path / "report.html").read_text("utf-8")
    assert page.count("data:image/jpeg") >= 4
    assert run.apply(tmp_path / "clean")["samples"] == 2
    del run
    gc.collect()
    assert "<img" in group.show()._repr_html_()  # what was taken from the run keeps its images
    assert "<img" in pair.show()._repr_html_()
    saved = draft.save()
    assert verdicts(saved) == ["keep"] * 4
    shown, keep = group.show(), saved.keep_filter()
    del draft, group, pair, saved
    gc.collect()
    assert "<img" in shown._repr_html_()
    del shown
    gc.collect()
    assert pickle.loads(pickle.dumps(keep))({"__key__": "a"})  # as a data loader's worker gets it
    del keep
    gc.collect()
    assert list(scratch.iterdir()) == []


def test_with_out_the_run_stays(scratch, pictures, tmp_path):
    dk.dedup(pictures, tmp_path / "out", workers=1)
    gc.collect()
    assert list(scratch.iterdir()) == []
    assert verdicts(dk.Run(tmp_path / "out")) == ["keep", "remove", "keep", "remove"]


def test_the_same_images_again_go_on_with_the_run(scratch, pictures, tmp_path):
    """As where a cell of a notebook is run again."""
    out = tmp_path / "out"
    first = dk.dedup(pictures, out, rule="exact", workers=0)
    before, made = snapshot(out / "samples"), first.manifest
    assert dk.dedup(pictures, rule="exact", workers=0).manifest == made  # wherever images and run lie
    again = dk.dedup(iter(pictures), out, rule="exact or pdq<=31", workers=0)
    assert snapshot(out / "samples") == before  # nothing is read again
    assert verdicts(again) == ["keep", "remove", "keep", "remove"]
    del first
    gc.collect()
    assert again.apply(tmp_path / "clean")["samples"] == 2
    for other in (pictures[::-1], dk.Images(pictures, captions=list("abcd"))):
        with pytest.raises(dk.DedupkitError, match=r"a run over other sources \(images-in-memory-[0-9a-f]{16}\)"):
            dk.dedup(other, out, rule="exact", workers=0)
    del again
    gc.collect()
    assert list(scratch.iterdir()) == []


def test_missing_values_of_pandas_are_no_text(scratch, pictures):
    pandas = pytest.importorskip("pandas")
    missing = [float("nan"), pandas.NA, pandas.NaT, np.float32("nan")]
    for captions in (missing, [[nothing] for nothing in missing]):
        run = dk.dedup(dk.Images(pictures, keys=[*missing[:3], "named"], captions=captions), rule="exact", workers=0)
        assert run.manifest["caption"].to_pylist() == [None] * 4
        assert run.manifest["key"].to_pylist() == ["00000000", "00000001", "00000002", "named"]


def test_a_hugging_face_dataset(scratch, pictures):
    datasets = pytest.importorskip("datasets")
    stored = [{"bytes": encode(image, quality=95), "path": None} for image in pictures]
    columns = {"image": stored, "text": ["one", "two", None, "four"], "id": [7, 8, 9, 10], "name": list("wxyz")}
    dataset = datasets.Dataset.from_dict(columns).cast_column("image", datasets.Image())
    run = dk.dedup(dataset, workers=1)
    rows = run.manifest.to_pylist()
    assert [row["verdict"] for row in rows] == ["keep", "remove", "keep", "remove"]
    assert [row["caption"] for row in rows] == ["one", "two", None, "four"]
    assert [row["uid"] for row in rows] == ["7", "8", "9", "10"]
    assert {row["format"] for row in rows} == {"jpeg"}  # the stored bytes, not decoded and packed again
    assert dataset.select(run.kept["sample"].to_pylist())["name"][:] == ["w", "y"]
    named = dk.dedup(dk.Images(dataset, keys="name", captions=list("abcd")), workers=1)
    assert named.manifest["key"].to_pylist() == list("wxyz")
    assert named.manifest["caption"].to_pylist() == list("abcd")
    repeating = dataset.add_column("__key__", ["0", "1", "0", "0"])  # as tars that are loaded together have them
    assert dk.dedup(repeating, rule="exact", workers=0).manifest["key"].to_pylist() == ["0", "1", "0#2", "0#3"]
    with pytest.raises(dk.DedupkitError, match="two images have the key '0'"):
        dk.dedup(dk.Images(repeating, keys="__key__"))
    with pytest.raises(dk.DedupkitError, match="there are 4 images and 5 captions"):
        dk.dedup(dk.Images(dataset, captions=list("abcde")))
    with pytest.raises(dk.DedupkitError, match="no column 'nmae'; its columns: image, text, id, name"):
        dk.dedup(dk.Images(dataset, keys="nmae"))
    with pytest.raises(dk.DedupkitError, match="one split"):
        dk.dedup(datasets.DatasetDict({"train": dataset}))
    with pytest.raises(dk.DedupkitError, match="this data set has none"):
        dk.dedup(dataset.remove_columns("image"))


def test_numbers_of_a_hugging_face_dataset_decide_which_copy_stays(scratch, pictures):
    datasets = pytest.importorskip("datasets")
    stored = [{"bytes": encode(image, quality=95), "path": None} for image in pictures]
    columns = {"image": stored, "aesthetic": [4.5, 6.0, None, 9.0], "key": list("abcd"), "similarity": [3, 2, 1, 0]}
    dataset = datasets.Dataset.from_dict(columns).cast_column("image", datasets.Image())
    assert dk.dedup(dataset, workers=0).kept["key"].to_pylist() == ["a", "c"]
    assert dk.dedup(dataset, workers=0, keep="-meta:aesthetic").kept["key"].to_pylist() == ["b", "d"]
    assert dk.dedup(dataset, workers=0, keep="clip_score").kept["key"].to_pylist() == ["b", "d"]
    with pytest.raises(dk.DedupkitError, match="there are: aesthetic, similarity"):
        dk.dedup(dataset, workers=0, keep="-meta:beauty")


def test_numbers_of_a_hugging_face_dataset_keep_their_types_and_values(scratch, tmp_path, pictures):
    datasets = pytest.importorskip("datasets")
    stored = [{"bytes": encode(image, quality=95), "path": None} for image in pictures]
    columns = {"image": stored, "count": [2**62 + 1, 2, None, 4], "label": [0, 1, 1, 0], "share": [0.1, 0.2, 0.3, None]}
    columns |= {"half": [0.5] * 4, "box": [[[1.0, 2.0]]] * 4}
    dataset = datasets.Dataset.from_dict(columns).cast_column("image", datasets.Image())
    dataset = dataset.cast_column("label", datasets.ClassLabel(names=["cat", "dog"]))
    dataset = dataset.cast_column("share", datasets.Value("float32")).cast_column("half", datasets.Value("float16"))
    dataset = dataset.cast_column("box", datasets.Array2D((1, 2), "float32"))
    expected = {"count": (pa.int64(), 2**62 + 1), "label": (pa.int64(), 0), "half": (pa.float16(), 0.5)}
    expected |= {"share": (pa.float32(), float(np.float32(0.1)))}
    iterable = dataset.remove_columns("count").to_iterable_dataset().with_format("numpy")
    assert dk.dedup(iterable, workers=0, rule="exact", keep="meta:label").config["meta"] == ["label"]
    for name, form in (("plain", dataset), ("arrays", dataset.with_format("numpy"))):
        run = dk.dedup(form, workers=0, rule="exact")
        run.apply(tmp_path / name, format="parquet", workers=0)
        table = pq.read_table(tmp_path / name / "00000.parquet")
        found = {column: (table.schema.field(column).type, table[column][0].as_py()) for column in expected}
        assert found == expected and table["count"].to_pylist()[2] is None


def test_a_renamed_column_of_a_dataset_is_another_one(scratch, tmp_path, pictures):
    datasets = pytest.importorskip("datasets")
    stored = [{"bytes": encode(image, quality=95), "path": None} for image in pictures]
    columns = {"image": stored, "a": [1, 2, 3, 4], "b": [2, 1, 4, 3]}
    dataset = datasets.Dataset.from_dict(columns).cast_column("image", datasets.Image())
    swapped = dataset.rename_columns({"a": "b", "b": "a"}).select_columns(["image", "b", "a"])
    names = {lay_down(Images(form), tmp_path / str(n)).name for n, form in enumerate((dataset, swapped, dataset))}
    assert len(names) == 2


def test_what_cannot_be_read_is_a_row_with_its_reason(scratch, pictures):
    broken = Image.open(io.BytesIO(encode(pictures[0], quality=90)[:2000]))
    width_as_text, turn = struct.pack("<HHI4s", 0x100, 2, 4, b"wide"), struct.pack("<HHIHH", 0x112, 3, 1, 6, 0)
    exif = b"Exif\0\0II*\0\x08\0\0\0\x02\0" + width_as_text + turn + bytes(4)
    turned = Image.open(io.BytesIO(encode(pictures[0], exif=exif)))
    run = dk.dedup([pictures[0], None, broken, b"no image", turned], workers=1)
    assert verdicts(run) == ["keep", *["unreadable"] * 4]
    reasons = run.manifest["reason"].to_pylist()[1:]
    assert reasons[0] == "unreadable: no image"
    assert "truncated" in reasons[1]
    assert "not an image" in reasons[2]


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "I;16", "I", "F", "HSV"])
def test_every_mode_can_be_given(scratch, mode, photos):
    grey = photos["camera"].convert("L").resize((96, 96))
    via = grey if mode in ("I;16", "I", "F") else grey.convert("RGB")
    run = dk.dedup([via.convert("LA") if mode == "LA" else via.convert(mode)], workers=1)
    assert verdicts(run) == ["keep"]


@pytest.mark.parametrize(("mode", "dtype"), [("F", np.float32), ("I", np.int32), ("I;16B", ">u2"), ("I;16", "<u2")])
def test_values_beyond_8_bits_differ_as_in_files(scratch, tmp_path, photos, mode, dtype):
    """Depth in metres, counts below zero or above 65535, 16 bits in either order: what clips would be all the same."""
    span = {"F": (0.0, 1.0), "I": (-1e6, 1e6)}.get(mode, (0, 65535))
    images = []
    for name in ("camera", "coins", "camera"):
        grey = np.asarray(photos[name].convert("L").resize((96, 96)), np.float64) / 255
        images.append(Image.fromarray((span[0] + grey * (span[1] - span[0])).astype(dtype)))
    assert {image.mode for image in images} == {mode}
    (tmp_path / "files").mkdir()
    for number, image in enumerate(images):
        image.save(tmp_path / "files" / f"{number}.tiff")
    of_files = dk.dedup(tmp_path / "files", tmp_path / "out", rule="exact or pdq<=31", workers=0).manifest
    of_images = dk.dedup(images, rule="exact or pdq<=31", workers=0).manifest
    assert of_images["verdict"].to_pylist() == of_files["verdict"].to_pylist() == ["keep", "keep", "remove"]
    assert of_images["pdq"].to_pylist() == of_files["pdq"].to_pylist()


def test_orientation_counts_as_in_a_file(scratch, photos):
    image = photos["astronaut"].convert("RGB").resize((240, 180))
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = Image.open(io.BytesIO(encode(image, quality=95, exif=exif)))
    row = dk.dedup([turned], workers=1).manifest.to_pylist()[0]
    assert (row["width"], row["height"]) == (180, 240)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (lambda: [np.zeros((4, 4, 3), np.float32)], r"image 0 is an array \(4, 4, 3\) of float32"),
        (lambda: [np.zeros((3, 8, 8), np.uint8)], r"give \(h, w\)"),
        (lambda: np.zeros((4, 4, 3), np.uint8), "no batch of images"),
        (lambda: [object()], "image 0 is a object"),
        (lambda: 7, "int is no collection"),
        (lambda: dk.Images([b"x", b"y"], keys=["a", "a"]), "two images have the key 'a'"),
        (lambda: dk.Images([b"x", b"y"], keys=["a"]), "more images than keys"),
        (lambda: dk.Images([b"x"], captions=["a", "b"]), "1 images and 2 captions"),
        (lambda: dk.Images([b"x"], keys="id"), "the images are no Dataset"),
        (lambda: dk.Images([]), "the collection is empty"),
        (list, "neither images nor sources given: the collection is empty"),
        (
            lambda: Path(__file__).parent.glob("test_memory.py"),
            r"image 0 is a path, .*; .* as a list: dedup\(list\(paths\), out\)",
        ),
        (lambda: iter(["a.tar"]), r"image 0 is a path, a.tar; .* as a list: dedup\(list\(paths\), out\)"),
    ],
)
def test_what_is_no_image_is_refused_and_leaves_nothing(scratch, images, message):
    with pytest.raises(dk.DedupkitError, match=message):
        dk.dedup(images())
    gc.collect()
    assert list(scratch.iterdir()) == []


def test_shards_still_need_a_run_folder(tmp_path):
    with pytest.raises(dk.DedupkitError, match=r"dedup\(sources, out\)"):
        dk.dedup(os.fspath(tmp_path))
