"""A guard says of generated images which training image they copy; a look-up of hashes is exact."""

from __future__ import annotations

import io
import shutil
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from helpers import ROOT, encode, python, run, write_tar
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

import dedupkit as dk
from dedupkit.images import ImageError
from dedupkit.memorization import CopyCheck
from dedupkit.memorization import guard as guards
from dedupkit.memorization.deciding import candidate_bound, stated_threshold
from dedupkit.memorization.guard import DESCRIPTOR_COPY, cosine_bound, no_threshold
from dedupkit.memorization.queries import embed_one
from dedupkit.neighbors import dihedral_distance
from dedupkit.neighbors.cosine.lookup import VectorLookup
from dedupkit.neighbors.hamming.lookup import HashLookup
from dedupkit.runfolder import RunConfig, RunFolder
from dedupkit.workflows.search import Search


class Colours:
    """An embedder for tests: a small, blurred image."""

    name, dim, key, min_side, precision, device = "colours", 192, "colours-1", 32, "float32", "cpu"

    def preprocess(self, image):
        return np.asarray(image.convert("RGB").resize((8, 8), Image.Resampling.BOX))

    def encode(self, batch):
        flat = batch.reshape(len(batch), -1).astype(np.float32) - 128
        return flat / np.linalg.norm(flat, axis=1, keepdims=True)


class Shuffled(Colours):
    """The same with its values in another order."""

    key = "shuffled-1"

    def __init__(self, name="shuffled"):
        self.name = name

    def encode(self, batch):
        return super().encode(batch)[:, ::-1]


class Spoilt(Colours):
    """The same, but for images that its weights overflow on, or see nothing in."""

    def __init__(self, value):
        self.value = value

    def encode(self, batch):
        return np.full((len(batch), self.dim), self.value, np.float32)


class Short(Colours):
    """Another model of the same name."""

    dim = 8

    def encode(self, batch):
        return super().encode(batch)[:, :8]


@pytest.fixture(scope="module")
def training(photos, tmp_path_factory):
    """A tar of photos, three of which were copied, and others that the training set never saw."""
    folder = tmp_path_factory.mktemp("training")
    seen = {name: photos[name].convert("RGB") for name in ("astronaut", "coffee", "chelsea", "rocket")}
    members = [(f"{name}.jpg", encode(photo, quality=90)) for name, photo in seen.items()]
    members += [(f"{name}.txt", f"a photo of {name}".encode()) for name in seen]
    members += [(f"coffee{k}.jpg", encode(seen["coffee"].resize((300, 200 + k)), quality=70)) for k in range(3)]
    return write_tar(folder / "train.tar", sorted(members))


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(0, 40), st.sampled_from([5, 400]))
def test_a_look_up_finds_exactly_the_hashes_within_the_radius_in_any_orientation(seed, radius, count):
    rng = np.random.default_rng(seed)
    hashes = rng.integers(0, 256, (count, 32), dtype=np.uint8)
    bits = np.unpackbits(hashes[0])
    if seed % 2:  # the transposed and complemented forms are orientations too
        bits = bits.reshape(16, 16).T.reshape(-1)
    bits[rng.choice(256, rng.integers(0, 45), replace=False)] ^= 1
    query = np.packbits(bits)
    rows, distances = HashLookup.of(hashes).within(query, radius)
    true = dihedral_distance(np.repeat(query[None], count, 0), hashes)
    assert sorted(rows.tolist()) == np.flatnonzero(true <= radius).tolist()
    assert distances.tolist() == true[rows].tolist() == sorted(distances.tolist())


def test_a_look_up_of_vectors_in_cells_finds_what_was_planted(tmp_path):
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((21_000, 24)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    VectorLookup.of(vectors, np.arange(21_000) + 5).save(tmp_path)
    samples, scores = VectorLookup.open(tmp_path).nearest(vectors[:50], 2)
    assert (samples[:, 0] == np.arange(50) + 5).mean() >= 0.98
    assert scores[:, 0] == pytest.approx(1, abs=0.01)


def test_a_copy_in_any_orientation_is_found_with_its_group_and_an_unseen_image_is_none(training, tmp_path, photos):
    finished = run(training, tmp_path / "run")
    guard = dk.CopyGuard(finished)
    file = tmp_path / "generated.png"
    photos["coffee"].save(file)
    for image in (
        file,
        str(file),
        photos["coffee"].resize((256, 256)),
        ImageOps.mirror(photos["coffee"]),
        photos["coffee"].rotate(90, expand=True),
        encode(photos["coffee"], quality=30),
        np.asarray(photos["coffee"]),
        photos["coffee"].convert("RGBA"),
    ):
        found = guard.check(image)
        assert found
        assert found.nearest.signal == "pdq"
        assert found.nearest.score <= found.threshold == 31
        assert found.nearest.group_size == 4
        assert found.nearest.key.startswith("coffee")
        assert found.nearest.kept_key == "coffee"
    unseen = guard.check(photos["camera"])
    assert not unseen
    assert "no vectors" in unseen.note
    assert f"dedupkit run {training} --out {finished.path} --rule copies " in unseen.note
    assert "--embed copy" in unseen.note
    assert "too flat" in guard.check(Image.new("RGB", (64, 64))).note
    assert CopyCheck.from_json(found.to_json()) == found
    assert guard.nbytes > 0
    with pytest.raises(dk.DedupkitError, match=r"missing\.png cannot be read: No such file"):
        guard.check("missing.png")
    with pytest.raises(TypeError, match="an image is a path, .* not NoneType"):
        guard.check(None)


def test_the_index_is_made_once_and_made_anew_where_it_is_damaged(training, tmp_path, photos):
    finished = run(training, tmp_path / "run")
    assert dk.CopyGuard(finished).check(photos["rocket"])
    file = tmp_path / "run" / "index" / "pdq" / "codes.npy"
    made = file.stat().st_mtime_ns
    assert dk.CopyGuard(finished).check(photos["rocket"])
    assert file.stat().st_mtime_ns == made
    file.write_bytes(file.read_bytes()[:-8])
    assert dk.CopyGuard(tmp_path / "run").check(photos["rocket"])
    run(training, tmp_path / "run", rule="exact")  # the folder still is a run's


def test_many_first_uses_at_once_wait_for_the_one_that_makes_the_index(training, tmp_path, photos, monkeypatch):
    finished = run(training, tmp_path / "run", embed=Colours())
    with ThreadPoolExecutor(6) as pool:
        guards = list(pool.map(lambda _: dk.CopyGuard(finished, embedder=Colours()), range(6)))
    assert all(guard.check(photos["rocket"]) for guard in guards)
    code = f"import dedupkit as dk; dk.CopyGuard({str(finished.path)!r}, embedder=False); print('made')"
    (tmp_path / "run" / "index" / "pdq" / "codes.npy").unlink()
    with ThreadPoolExecutor(3) as pool:
        done = list(pool.map(lambda _: python("-c", code), range(3)))
    assert [each.stdout for each in done] == ["made\n"] * 3, done
    (tmp_path / "run" / "index" / "pdq" / "codes.npy").unlink()
    monkeypatch.setattr("dedupkit.stages.index._PATIENCE", 0.0)
    with (
        RunFolder(finished.path).locked(),
        pytest.raises(dk.DedupkitError, match="has been writing into it for 0 minutes"),
    ):
        dk.CopyGuard(finished, embedder=False)


def test_vectors_decide_only_where_a_threshold_is_known(training, tmp_path, photos):
    crop = photos["coffee"].crop((20, 20, 560, 370))
    finished = run(training, tmp_path / "run", embed=Colours())
    undecided = dk.CopyGuard(finished, embedder=Colours()).check(crop)
    assert not undecided.copy
    assert "min_cosine" in undecided.note
    guard = dk.CopyGuard(finished, embedder=Colours(), min_cosine=0.9)
    found = guard.check(crop)
    assert found.copy
    assert found.nearest.signal == "colours"
    assert found.nearest.group_size == 4
    with pytest.raises(dk.DedupkitError, match="embedder="):
        dk.CopyGuard(finished)
    assert not dk.CopyGuard(finished, embedder=False).check(crop)
    for value in (np.nan, 0):
        said = dk.CopyGuard(finished, embedder=Spoilt(value), min_cosine=0.9).check(crop)
        assert (said.copy, said.nearest) == (False, None)
        assert "no vector that can be compared" in said.note
        assert "no vector that can be compared" in Search(finished.path, embedder=Spoilt(value)).image(crop).notes[-1]
    for use in (dk.CopyGuard, Search):
        with pytest.raises(dk.DedupkitError, match=r"vectors of 8 values, those of colours in .* have 192"):
            use(finished.path, embedder=Short())


def test_the_vectors_of_the_model_that_is_given_are_compared(training, tmp_path, photos):
    crop = photos["coffee"].crop((20, 20, 560, 370))
    finished = run(training, tmp_path / "run", embed=[Colours(), Shuffled()])
    for model in (Colours(), Shuffled()):
        found = dk.CopyGuard(finished, embedder=model, min_cosine=0.9).check(crop)
        assert found.copy
        assert (found.nearest.signal, found.nearest.group_size) == (model.name, 4)
    with pytest.raises(dk.DedupkitError, match="no vectors of other; it has those of colours, shuffled"):
        dk.CopyGuard(finished, embedder=Shuffled("other"))


def test_an_embedder_of_the_run_is_chosen_by_its_name(training, tmp_path, photos, monkeypatch):
    finished = run(training, tmp_path / "run", embed=[Colours(), Shuffled()])
    monkeypatch.setattr(guards, "model_of", lambda near, name, device: {"shuffled": Shuffled()}[name])
    found = dk.CopyGuard(finished, embedder="shuffled", min_cosine=0.9).check(photos["coffee"].crop((20, 20, 560, 370)))
    assert found.nearest.signal == "shuffled"
    with pytest.raises(dk.DedupkitError, match="no vectors of bb; it has those of colours, shuffled"):
        dk.CopyGuard(finished, embedder="bb")
    for other in (True, 1, object()):
        with pytest.raises(TypeError, match="embedder is the name of one of the run's embedders, a model, or False"):
            dk.CopyGuard(finished, embedder=other)
    without = run(training, tmp_path / "without")
    with pytest.raises(dk.DedupkitError, match="no vectors of colours; it has those of none"):
        dk.CopyGuard(without, embedder="colours")


def test_a_bound_for_normalised_scores_is_no_cosine():
    specs = {"colours": "onnx:model.onnx?name=colours", "normal": "onnx:model.onnx?name=normal&background=other.npy"}
    rule = "exact or colours>=0.8 or normal>=0.3 or (colours>=0.6 and verified) or (normal>=0.1 and verified)"
    config = RunConfig(("a",), ("a",), rule, rule, "sample", embedders=specs)
    assert [cosine_bound(config, name, 100) for name in specs] == [0.8, None]
    assert [stated_threshold(config, name, 100) is None for name in specs] == [False, True]
    assert [candidate_bound(config, name) for name in specs] == [0.6, 0.5]


def test_the_bundled_descriptor_decides_until_strangers_reach_its_threshold_by_chance():
    specs = {"copy": "copy", "near": "copy?name=near", "fitted": "copy?name=fitted&project=copies", "lite": "lite"}
    rule = "exact or (copy>=0.35 and verified)"
    config = RunConfig(("a",), ("a",), rule, rule, "sample", embedders=specs)
    assert [cosine_bound(config, name, 10_000) for name in specs] == [DESCRIPTOR_COPY, DESCRIPTOR_COPY, None, None]
    assert "with 0.059 of 10,000 training images" in stated_threshold(config, "copy", 10_000).origin
    assert cosine_bound(config, "copy", 1_000_000) is None
    assert "0.796" in no_threshold(config, "copy", 1_000_000)
    assert "with 5.9 of 1,000,000 training images" in no_threshold(config, "copy", 1_000_000)
    assert no_threshold(config, "lite", 1_000_000) == "no threshold is known for vectors of lite"


def test_images_of_any_mode_are_asked_by_vector(training, tmp_path, photos):
    finished = run(training, tmp_path / "run", embed=Colours())
    guard = dk.CopyGuard(finished, embedder=Colours(), min_cosine=0.9)
    search = Search(finished.path, embedder=Colours())
    crop = photos["coffee"].crop((20, 20, 560, 370))
    for mode in ("CMYK", "YCbCr", "HSV", "RGBX"):
        found = guard.check(crop.convert(mode))
        assert found.copy and found.nearest.group_size == 4, mode
        assert found.nearest.sample in [each.sample for each in search.image(crop.convert(mode)).found], mode
    for image in (crop.convert("F"), crop.convert("I"), Image.new("LAB", (64, 64), (128, 90, 30))):
        assert guard.check(image).nearest.signal == "colours"
    with pytest.raises(ImageError, match="La"):
        embed_one(Colours(), Image.new("La", (64, 64)))


def test_an_opened_image_has_the_vector_of_its_file(photos):
    turned, tag = Image.Exif(), 0x0112
    turned[tag] = 6
    photo = photos["coffee"].convert("RGB")
    cut = photo.copy()
    cut.paste((1, 2, 3), (100, 100, 400, 300))
    for data in (encode(photo, quality=95, exif=turned), encode(cut, "PNG", transparency=(1, 2, 3))):
        image = Image.open(io.BytesIO(data))
        assert image.mode == "RGB"
        assert embed_one(Colours(), image) @ embed_one(Colours(), data) > 0.999


def test_many_threads_get_the_answers_that_one_gets(training, tmp_path, photos):
    guard = dk.CopyGuard(run(training, tmp_path / "run"))
    images = [photo.resize((128, 128)) for photo in photos.values()] * 3
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(guard.check, images)) == [guard.check(image) for image in images]


@pytest.fixture
def updated(photos, tmp_path):
    """A run over three photos, one with a copy, and its update with another one and a second copy, all with vectors."""
    coffee, chelsea = photos["coffee"].convert("RGB"), photos["chelsea"].convert("RGB")
    members = [("0.jpg", encode(chelsea)), ("1.jpg", encode(coffee)), ("2.jpg", encode(coffee.resize((300, 200))))]
    old = run(write_tar(tmp_path / "old.tar", [*members, ("3.jpg", encode(photos["moon"]))]), tmp_path / "old")
    old = run(old.config["sources"], tmp_path / "old", embed=Colours())
    members = [("0.jpg", encode(photos["rocket"])), ("1.jpg", encode(coffee.resize((240, 160))))]
    return dk.update(old.path, write_tar(tmp_path / "new.tar", members), tmp_path / "new", embed=Colours(), workers=0)


def test_a_guard_of_an_update_sees_what_was_trained_on_earlier(updated, photos, tmp_path):
    old = str(tmp_path / "old")
    guard = dk.CopyGuard(updated, embedder=Colours(), min_cosine=0.9)
    assert "6 samples" in repr(guard)
    found = guard.check(photos["coffee"].rotate(90, expand=True)).nearest
    assert (found.run, found.sample, found.key, found.group_size, found.kept_key) == (old, 1, "1", 2, "1")
    assert guard.check(photos["rocket"]).nearest.run is None
    crop = photos["chelsea"].crop((10, 10, 430, 290))
    found = guard.check(crop)
    assert (found.nearest.signal, found.nearest.run, found.nearest.key) == ("colours", old, "0")
    search = Search(updated.path, embedder=Colours())
    assert [(each.run, each.sample) for each in search.image(crop, top=1).found] == [(old, 0)]
    assert [each.run for each in search.named("3").found][:1] == [old]
    small = search.named("1")
    assert [(each.run, each.sample) for each in small.found][:2] == [(None, 1), (old, 1)]
    assert (small.found[0].kept_key, small.found[0].kept_source) == ("1", old)
    assert f"(remove, kept as 1 of {old}; " in str(small)
    assert f"(keep, in a group of 2 kept as 1; in the earlier run {old}; " in str(small)
    assert small._repr_html_().count("<img") == len(small.found)
    assert not guard.check(photos["camera"]).note
    shutil.rmtree(old)
    guard = dk.CopyGuard(updated, embedder=Colours(), min_cosine=0.9)
    assert f"images of {old}, which the run updates, are not seen: {old} holds no run" in guard.check(crop).note
    assert old in Search(updated.path, embedder=Colours()).image(crop).notes[0]


def test_vectors_of_another_model_in_an_earlier_run_are_not_compared(updated, photos, tmp_path):
    shutil.rmtree(tmp_path / "old")
    run(tmp_path / "old.tar", tmp_path / "old")
    found = dk.CopyGuard(updated, embedder=Colours(), min_cosine=0.9).check(photos["chelsea"].crop((10, 10, 430, 290)))
    assert not found
    assert f"{tmp_path / 'old'}, which the run updates, has no vectors of colours" in found.note
    run(tmp_path / "old.tar", tmp_path / "old", embed=Shuffled("colours"))
    assert "by the same model" in dk.CopyGuard(updated, embedder=Colours()).check(photos["camera"]).note


def test_the_kept_sample_is_named_with_its_shard(photos, tmp_path):
    coffee = photos["coffee"].convert("RGB")
    first = write_tar(tmp_path / "a.tar", [("0.jpg", encode(coffee)), ("1.jpg", encode(photos["rocket"]))])
    second = write_tar(tmp_path / "b.tar", [("0.jpg", encode(photos["moon"])), ("1.jpg", encode(coffee, quality=40))])
    finished = run([first, second], tmp_path / "run")
    found = dk.CopyGuard(finished).check(encode(coffee, quality=40)).nearest
    assert (found.key, found.source) == ("1", str(second))
    assert (found.kept_key, found.kept_source) == ("0", str(first))
    assert f"in a group of 2 kept as 0 of {first}; {second})" in str(
        Search(finished.path).image(encode(coffee, quality=40))
    )


def test_what_is_no_image_is_one_error_below_the_base(training, tmp_path):
    guard = dk.CopyGuard(run(training, tmp_path / "run"))
    for bad in (b"no image", np.zeros((2, 2, 7), np.uint8), np.zeros((4, 4), np.float64)):
        with pytest.raises(dk.DedupkitError):
            guard.check(bad)
    search = Search(tmp_path / "run")
    for empty in (np.zeros((0, 0, 3), np.uint8), np.zeros(0, np.uint8), np.uint8([[]]), Image.new("RGB", (0, 4))):
        for use in (guard.check, search.find):
            with pytest.raises(ImageError, match="no pixels|pixels must be uint8"):
                use(empty)
    with pytest.raises(dk.DedupkitError, match="no run"):
        dk.CopyGuard(tmp_path)


def test_the_example_filters_a_generation_loop(training, tmp_path, photos):
    run(training, tmp_path / "run")
    (tmp_path / "made").mkdir()
    ImageOps.mirror(photos["coffee"]).save(tmp_path / "made" / "0.png")
    photos["camera"].save(tmp_path / "made" / "1.png")
    (tmp_path / "made" / "1.txt").write_text("a camera")
    (tmp_path / "made" / "2.png").write_bytes(b"broken")
    done = python(str(ROOT / "examples" / "guard_generations.py"), str(tmp_path / "run"), str(tmp_path / "made"))
    assert "1 passed, 1 copied a training image, 1 could not be read" in done.stdout, done.stderr
    assert "2.png: " in done.stdout and "1.txt" not in done.stdout
