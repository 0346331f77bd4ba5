"""imagededup's functions, against imagededup itself."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from dedupkit.interop.imagededup import (
    encode_image,
    encode_images,
    find_duplicates,
    find_duplicates_to_remove,
    plot_duplicates,
)

PHOTOS = ["astronaut", "camera", "chelsea", "coffee", "rocket"]  # shipped with scikit-image
THEIRS = {"phash": "PHash", "dhash": "DHash", "ahash": "AHash", "whash": "WHash"}
METHODS = ["pdq", *THEIRS]
ORIENTATION = 0x0112

pytestmark = pytest.mark.filterwarnings("ignore:Parameter num_enc_workers:RuntimeWarning")  # imagededup's, on any map


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """A folder of photos and their edits, in a few formats, with files that are no image."""
    data = pytest.importorskip("skimage.data")
    folder = tmp_path_factory.mktemp("photos")
    for name in PHOTOS:
        image = Image.fromarray(getattr(data, name)())
        image.thumbnail((320, 320))
        image.save(folder / f"{name}.jpg", quality=92)
        image.save(folder / f"{name}_low.jpg", quality=30)
        image.resize((image.width // 2, image.height // 2)).save(folder / f"{name}_half.png", compress_level=1)
        ImageOps.mirror(image).save(folder / f"{name}_mirror.jpg", quality=92)
        image.rotate(90, expand=True).save(folder / f"{name}_turned.webp", quality=80)
    image = Image.open(folder / "coffee.jpg")
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    image.save(folder / "coffee_exif.jpg", quality=92, exif=exif)
    Image.open(folder / "chelsea.jpg").save(folder / "chelsea_exif.jpg", quality=92, exif=exif)
    image.convert("P").save(folder / "coffee.gif")
    image.convert("CMYK").save(folder / "coffee_cmyk.tif")
    image.convert("RGBA").save(folder / "no_suffix", "PNG", compress_level=1)
    image.convert("L").save(folder / "coffee.jp2")  # Pillow reads it, imagededup does not
    Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 200).save(folder / "coffee_16bit.png")
    for name in ("flat_a.png", "flat_b.png"):
        Image.new("RGB", (120, 90), (40, 90, 160)).save(folder / name)
    (folder / "readme.txt").write_text("no image")
    (folder / "broken.jpg").write_bytes((folder / "astronaut.jpg").read_bytes()[:3000])
    (folder / "empty.png").touch()
    (folder / ".hidden.jpg").write_bytes((folder / "astronaut.jpg").read_bytes())
    (folder / "more" / "deep").mkdir(parents=True)
    (folder / "more" / "deep" / "rocket.jpg").write_bytes((folder / "rocket.jpg").read_bytes())
    return folder


@pytest.fixture(scope="module")
def imagededup():
    return pytest.importorskip("imagededup.methods")


@pytest.fixture(scope="module")
def maps(photos):
    return {method: encode_images(photos, method=method) for method in METHODS}


def as_sets(found):
    assert all(len(set(others)) == len(others) for others in found.values())
    return {name: set(others) for name, others in found.items()}


# The same as imagededup.


@pytest.mark.parametrize("method", THEIRS)
def test_same_as_imagededup(photos, maps, imagededup, method):
    package = getattr(imagededup, THEIRS[method])(verbose=False)
    assert maps[method] == package.encode_images(photos, num_enc_workers=1)
    for threshold in (0, 10, 24):
        settings = {"encoding_map": maps[method], "max_distance_threshold": threshold}
        scored = package.find_duplicates(**settings, scores=True, num_dist_workers=1)
        assert find_duplicates(**settings, scores=True, method=method) == scored  # in the same order, too
        assert find_duplicates(**settings, method=method) == package.find_duplicates(**settings, num_dist_workers=1)
        removed = find_duplicates_to_remove(**settings, method=method)
        assert len(set(removed)) == len(removed)
        assert set(removed) == set(package.find_duplicates_to_remove(**settings, num_dist_workers=1))
    assert find_duplicates(photos, method=method) == find_duplicates(encoding_map=maps[method], method=method)


def test_recursive_names_are_those_of_imagededup(photos, imagededup):
    found = encode_images(photos, recursive=True, method="dhash")
    assert found == imagededup.DHash(verbose=False).encode_images(photos, recursive=True, num_enc_workers=1)
    assert "more/deep/rocket.jpg" in {Path(name).as_posix() for name in found}


def test_outfile_is_that_of_imagededup(maps, imagededup, tmp_path):
    ours, theirs = tmp_path / "ours.json", tmp_path / "theirs.json"
    package = imagededup.PHash(verbose=False)
    for scores in (False, True):
        package.find_duplicates(encoding_map=maps["phash"], scores=scores, outfile=str(theirs), num_dist_workers=1)
        find_duplicates(encoding_map=maps["phash"], scores=scores, outfile=ours, method="phash")
        assert ours.read_bytes() == theirs.read_bytes()
    removed = find_duplicates_to_remove(encoding_map=maps["phash"], outfile=ours, method="phash")
    assert json.loads(ours.read_text()) == removed


@pytest.mark.parametrize("method", THEIRS)
def test_one_image_is_hashed_as_in_the_folder(photos, maps, imagededup, method):
    package = getattr(imagededup, THEIRS[method])(verbose=False)
    for name in ("astronaut.jpg", "coffee_exif.jpg"):
        assert encode_image(photos / name, method=method) == maps[method][name]
        assert encode_image(image_file=str(photos / name), method=method) == maps[method][name]
    for name in ("camera.jpg", "chelsea.jpg"):  # grey and colour
        pixels = np.asarray(Image.open(photos / name))
        assert encode_image(image_array=pixels, method=method) == package.encode_image(image_array=pixels)


@pytest.mark.parametrize("method", THEIRS)
@pytest.mark.parametrize("dtype", [np.int16, np.int64, np.float32, np.float64])
def test_arrays_of_other_numbers_are_cast_as_imagededup_casts_them(photos, imagededup, method, dtype):
    package = getattr(imagededup, THEIRS[method])(verbose=False)
    pixels = np.asarray(Image.open(photos / "chelsea.jpg"))
    whole = pixels.astype(dtype)
    assert encode_image(image_array=whole, method=method) == encode_image(image_array=pixels, method=method)
    cut = (pixels * 1.3).astype(dtype)  # beyond 255
    with pytest.warns(RuntimeWarning, match="scale them"):
        assert encode_image(image_array=cut, method=method) == package.encode_image(image_array=cut)


def test_a_missing_file_gives_way_to_an_array(photos, imagededup):
    pixels = np.asarray(Image.open(photos / "chelsea.jpg"))
    both = {"image_file": "nowhere.jpg", "image_array": pixels}
    assert encode_image(**both, method="phash") == imagededup.PHash(verbose=False).encode_image(**both)


def test_no_outfile_is_written_where_it_is_false(maps, imagededup, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for function in (find_duplicates, find_duplicates_to_remove):
        for outfile in (None, False, ""):
            function(encoding_map=maps["phash"], outfile=outfile, method="phash")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["find_duplicates", "find_duplicates_to_remove"])
def test_arguments_without_effect_are_warned_of_in_imagededups_words(maps, imagededup, name):
    ours, theirs = globals()[name], getattr(imagededup.PHash(verbose=False), name)
    with pytest.warns() as expected:
        theirs(encoding_map=maps["phash"], recursive=True, num_enc_workers=2, num_dist_workers=1)
    with pytest.warns() as seen:
        ours(encoding_map=maps["phash"], recursive=True, num_enc_workers=2, method="phash")
    assert {(w.category, str(w.message)) for w in seen} == {(w.category, str(w.message)) for w in expected}
    assert {w.filename for w in seen} == {__file__}


def test_without_such_arguments_nothing_is_warned_of(maps, recwarn):
    find_duplicates(encoding_map=maps["phash"], method="phash")
    assert not list(recwarn)
    with pytest.warns(RuntimeWarning, match="search_method has no effect"):
        find_duplicates(encoding_map=maps["phash"], search_method="bktree", method="phash")


def test_positions_of_arguments_are_those_of_imagededup(imagededup):
    import inspect

    for ours in (encode_image, encode_images, find_duplicates, find_duplicates_to_remove):
        theirs = list(inspect.signature(getattr(imagededup.PHash, ours.__name__)).parameters)[1:]
        assert list(inspect.signature(ours).parameters)[: len(theirs)] == theirs, ours.__name__


def test_a_progress_bar_counts_images_where_someone_can_see_it(photos, capsys, monkeypatch):
    encode_images(photos, method="dhash")
    assert capsys.readouterr().err == ""
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    encode_images(photos, method="dhash", verbose=False)
    assert capsys.readouterr().err == ""
    encode_images(photos, method="dhash")
    total = len([path for path in photos.iterdir() if path.is_file() and not path.name.startswith(".")])
    assert f"{total}/{total}" in capsys.readouterr().err


# PDQ, the default.


def test_pdq_finds_every_edit_in_every_orientation(photos):
    found = find_duplicates(photos)
    for name in PHOTOS:
        family = {f"{name}{edit}" for edit in (".jpg", "_low.jpg", "_half.png", "_mirror.jpg", "_turned.webp")}
        assert family - {f"{name}.jpg"} <= set(found[f"{name}.jpg"])
        assert not set(found[f"{name}.jpg"]) & {f"{other}.jpg" for other in PHOTOS}
    assert "chelsea_exif.jpg" in found["chelsea.jpg"]
    assert found == find_duplicates(photos, max_distance_threshold=31, num_enc_workers=0, num_dist_workers=0)


def test_flat_images_match_in_a_map_only(photos, maps):
    assert find_duplicates(photos)["flat_a.png"] == []
    assert "flat_b.png" not in find_duplicates_to_remove(photos)
    assert "flat_b.png" in find_duplicates(encoding_map=maps["pdq"])["flat_a.png"]


def test_pdq_of_one_image(photos, maps):
    pixels = np.asarray(Image.open(photos / "chelsea_half.png"))
    assert (
        encode_image(image_array=pixels) == encode_image(photos / "chelsea_half.png") == maps["pdq"]["chelsea_half.png"]
    )
    assert len(maps["pdq"]["chelsea.jpg"]) == 64


# What holds for every method.


@pytest.mark.parametrize("method", METHODS)
def test_maps_are_complete_symmetric_and_sorted(photos, maps, method):
    scored = find_duplicates(photos, scores=True, method=method)
    assert list(scored) == sorted(maps[method]) == list(maps[method])
    for name, others in scored.items():
        assert [distance for _, distance in others] == sorted(distance for _, distance in others)
        for entry in others:
            assert isinstance(entry, tuple)
            other, distance = entry
            assert type(distance) is int
            assert other != name
            assert (name, distance) in scored[other]


def test_files_that_are_no_image_are_left_out_with_a_warning(photos, caplog):
    with caplog.at_level(logging.WARNING, logger="dedupkit.interop.imagededup"):
        found = encode_images(photos)
    left_out = {"readme.txt", "broken.jpg", "empty.png"}
    assert not left_out & set(found)
    assert ".hidden.jpg" not in found
    assert {record.args[0].name for record in caplog.records} == left_out
    assert encode_image(photos / "broken.jpg") is None
    assert encode_image(photos / "readme.txt", method="phash") is None


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("method", ["pdq", "phash"])
def test_removal_leaves_no_pair_and_each_removed_has_a_kept_duplicate(seed, method):
    """Hashes that wander a few bits at a time: long chains, where neighbours are duplicates and the ends are not."""
    rng = np.random.default_rng(seed)
    flips = rng.random((60, 256 if method == "pdq" else 64)) < rng.choice([0.02, 0.05])
    bits = np.logical_xor.accumulate(flips, axis=0)
    names = [f"{number}.jpg" for number in rng.permutation(len(bits))]
    codes = {name: np.packbits(row).tobytes().hex() for name, row in zip(names, bits, strict=True)}
    duplicates = as_sets(find_duplicates(encoding_map=codes, method=method))
    removed = find_duplicates_to_remove(encoding_map=codes, method=method)
    kept = set(codes) - set(removed)
    assert removed == [name for name in codes if name not in kept]
    assert all(not duplicates[name] & kept for name in kept)
    assert all(duplicates[name] & kept for name in removed)
    assert next(iter(codes)) in kept


@pytest.mark.parametrize("method", ["pdq", "dhash"])
def test_processes_change_nothing(photos, maps, caplog, monkeypatch, method):
    monkeypatch.setattr("dedupkit.interop.imagededup.encoding._FILES_PER_TASK", 8)
    found = encode_images(photos, num_enc_workers=2, method=method)
    assert list(found.items()) == list(maps[method].items())
    assert {record.args[0].name for record in caplog.records} >= {"readme.txt", "broken.jpg", "empty.png"}


def test_nothing_to_compare(tmp_path):
    assert encode_images(tmp_path) == {}
    for method in METHODS:
        assert find_duplicates(tmp_path, method=method) == find_duplicates(encoding_map={}, method=method) == {}
        assert find_duplicates_to_remove(tmp_path, method=method) == []


# Wrong arguments.


@pytest.mark.parametrize("function", [find_duplicates, find_duplicates_to_remove])
def test_wrong_arguments(function, photos, tmp_path):
    code = {"a.jpg": "0" * 64}
    with pytest.raises(ValueError, match="either image_dir or encoding_map"):
        function()
    with pytest.raises(ValueError, match="either image_dir or encoding_map"):
        function(photos, code)
    with pytest.raises(ValueError, match="existing folder"):
        function(tmp_path / "nowhere")
    with pytest.raises(TypeError, match="must be an int"):
        function(encoding_map=code, max_distance_threshold=0.9)
    for threshold, method in ((-1, "pdq"), (257, "pdq"), (65, "phash")):
        with pytest.raises(ValueError, match="must be from 0 to"):
            function(encoding_map=code, max_distance_threshold=threshold, method=method)
    with pytest.raises(ValueError, match="unknown method 'PHash'; known: pdq, phash"):
        function(encoding_map=code, method="PHash")
    with pytest.raises(ValueError, match=r"'phash' has 16 hex digits, but 'a.jpg' has '000"):
        function(encoding_map=code, method="phash")
    for digits in ("xyz", "0" * 16, None):
        with pytest.raises(ValueError, match="'pdq' has 64 hex digits"):
            function(encoding_map={"a.jpg": digits})


def test_wrong_arguments_of_encoding(photos, tmp_path):
    for folder in (None, tmp_path / "nowhere", photos / "coffee.jpg"):
        with pytest.raises(ValueError, match="existing folder"):
            encode_images(folder)
    with pytest.raises(ValueError, match="unknown method"):
        encode_images(photos, method="sha")
    with pytest.raises(ValueError, match="image_file or image_array"):
        encode_image()
    with pytest.raises(ValueError, match="does not exist"):
        encode_image(tmp_path / "nowhere.jpg")
    for shape in ((4, 4, 4), (4,), (4, 4, 3, 1)):
        with pytest.raises(ValueError, match=r"\(h, w, 3\)"):
            encode_image(image_array=np.zeros(shape, np.uint8))
    for array in (np.zeros((0, 4), np.uint8), np.full((4, 4), "a"), [[1, 2], [3, 4]]):
        with pytest.raises(ValueError, match="array of numbers"):
            encode_image(image_array=array)
    with pytest.raises(ValueError, match="outfile must be a path"):
        find_duplicates(encoding_map={}, outfile=True)


# The plot.


@pytest.fixture
def plt():
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    return pytest.importorskip("matplotlib.pyplot")


def test_plot_writes_a_file(photos, plt, tmp_path):
    found = find_duplicates(photos, scores=True)
    plot_duplicates(photos, found, "coffee.jpg", outfile=tmp_path / "plot.png")
    with Image.open(tmp_path / "plot.png") as picture:
        assert picture.width == 1000
        assert picture.height > 600
    assert plt.get_fignums() == []


@pytest.fixture
def drawn(plt, monkeypatch):
    """The titles of each figure that is shown."""
    figures = []

    def show():
        (number,) = plt.get_fignums()
        figures.append([axes.get_title() for axes in plt.figure(number).axes])

    monkeypatch.setattr(plt, "show", show)
    return figures


def test_plot_without_outfile_is_shown(photos, plt, drawn):
    plot_duplicates(str(photos), {"rocket.jpg": ["coffee.gif", "coffee_16bit.png"]}, "rocket.jpg")
    assert drawn == [["rocket.jpg\n2 duplicates", "coffee.gif", "coffee_16bit.png"]]
    assert plt.get_fignums() == []


def test_plot_shows_scores_as_they_are_or_as_read_from_a_file(photos, drawn):
    for entry in (("rocket_half.png", 4), ["rocket_half.png", 4]):
        plot_duplicates(photos, {"rocket.jpg": [entry]}, "rocket.jpg")
    assert drawn == [["rocket.jpg\n1 duplicate", "rocket_half.png\ndistance 4"]] * 2


def test_plot_is_bounded(photos, drawn, monkeypatch):
    monkeypatch.setattr("dedupkit.interop.imagededup.plot._MOST_PLOTTED", 3)
    plot_duplicates(photos, {"rocket.jpg": ["rocket_half.png"] * 300}, "rocket.jpg")
    assert drawn == [["rocket.jpg\n300 duplicates, 3 shown", *["rocket_half.png"] * 3]]


def test_wrong_arguments_of_the_plot(photos, tmp_path):
    found = {"coffee.jpg": ["rocket.jpg"], "flat_a.png": []}
    with pytest.raises(ValueError, match="existing folder"):
        plot_duplicates(tmp_path / "nowhere", found, "coffee.jpg")
    with pytest.raises(ValueError, match="what find_duplicates returns"):
        plot_duplicates(photos, ["coffee.jpg"], "coffee.jpg")
    with pytest.raises(ValueError, match=r"'tea\.jpg' is no key"):
        plot_duplicates(photos, found, "tea.jpg")
    with pytest.raises(ValueError, match=r"'flat_a\.png' has no duplicates"):
        plot_duplicates(photos, found, "flat_a.png")
