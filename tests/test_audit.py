"""An audit says which generated images copy the training set, with a floor from real ones."""

from __future__ import annotations

import csv
import hashlib
import json
import re
import shutil
import tracemalloc

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from browsing import evaluate, opened
from helpers import command, encode, one_line, run, write_tar
from PIL import Image, ImageFilter, ImageOps
from test_guard import Colours, Short

import dedupkit as dk
from dedupkit.errors import MissingExtraError
from dedupkit.memorization.audited import Left
from dedupkit.memorization.copied import CopiedGroups
from dedupkit.memorization.deciding import first_in
from dedupkit.memorization.extraction import Filter, adaptive_distance
from dedupkit.memorization.nearest import nearest_of
from dedupkit.memorization.neighbours import Neighbours
from dedupkit.runfolder import RunFolder
from dedupkit.workflows.audit import AuditOptions, AuditResult, audit

HOSTILE = "<script>alert(1)</script>"


@pytest.fixture(scope="module")
def train(photos, tmp_path_factory):
    """A run over four photos, one with three copies under two captions."""
    folder = tmp_path_factory.mktemp("train")
    members = []
    for name in ("astronaut", "chelsea", "coffee", "rocket"):
        members += [(f"{name}.jpg", encode(photos[name].convert("RGB"))), (f"{name}.txt", HOSTILE.encode())]
    for number, words in enumerate((HOSTILE, "a mug")):
        image = photos["coffee"].resize((240 + number, 160))
        members += [(f"coffee{number}.jpg", encode(image)), (f"coffee{number}.txt", words.encode())]
    return run(write_tar(folder / "train.tar", sorted(members)), folder / "run")


@pytest.fixture(scope="module")
def generated(photos, tmp_path_factory):
    """A mirrored copy, a photo that was never trained on, a broken file, and two that have no prompt."""
    made = [("a.jpg", encode(ImageOps.mirror(photos["coffee"]))), ("a.txt", HOSTILE.encode()), ("b.jpg", b"broken")]
    made += [("c.png", encode(photos["camera"], "PNG")), ("d.png", encode(photos["coins"].convert("RGBA"), "PNG"))]
    return write_tar(tmp_path_factory.mktemp("made") / "made.tar", made)


def rows(folder):
    return {row["key"]: row for row in pq.read_table(folder / "audit.parquet").to_pylist()}


def test_copies_are_named_and_counted_and_the_page_shows_them_blurred(train, generated, photos, tmp_path):
    real = write_tar(tmp_path / "real.tar", [("moon.jpg", encode(photos["moon"]))])
    out = tmp_path / "out"
    done = command("audit", generated, "--against", train.path, "--out", out, "--real", real, "--json")
    assert done.returncode == 0, done.stderr
    found = AuditResult.from_json(json.loads(done.stdout))
    assert (found.generated, found.unreadable, found.copies.count, found.groups, found.takedown) == (3, 1, 1, 1, 3)
    assert found.copies.low < found.copies.share < found.copies.high
    assert (found.floor.images, found.floor.false_alarms.count, found.floor.false_alarms.of) == (1, 0, 1)
    assert (found.left.one, found.left.several, found.eidetic) == (1, 0, {"1": 0, "10": 1, "100": 1})
    assert json.loads((out / "audit.json").read_text()) == json.loads(done.stdout)
    row = rows(out)["a"]
    assert row["copy"]
    assert row["verified"]
    assert "mirrored" in row["relation"]
    assert (row["kept_key"], row["group_size"], row["group_kept"], row["one_left"]) == ("coffee", 3, 1, True)
    assert (row["captions"], row["caption"], row["caption_count"], row["floor"]) == (2, HOSTILE, 2, 0)
    assert rows(out)["b"]["error"]
    assert not rows(out)["c"]["copy"]
    with (out / "audit.csv").open(newline="") as stream:
        assert [line["key"] for line in csv.DictReader(stream)] == ["a", "b", "c", "d"]
    page = (out / "audit.html").read_text("utf-8")
    assert "default-src 'none'" in page
    assert "<script" not in page
    assert "&lt;script" in page
    assert page.count("<img ") == 2 * found.shown == 2
    assert "0 of 1 real images are as near" in page
    assert "the rule in force keeps one" in page
    again = command("audit", generated, "--against", train.path, "--out", out, "--real", real)
    assert "1 of 3 generated images copy" in again.stdout
    assert "of the 1 copied groups the rule keeps one sample at most in 1, several in 0; 0 are images" in again.stdout


def test_only_the_training_images_on_the_page_are_read(train, generated, tmp_path):
    shutil.copytree(train.path, tmp_path / "run")
    config = json.loads((tmp_path / "run" / "run.json").read_text())
    found = audit(generated, tmp_path / "run", tmp_path / "none", options=AuditOptions(show=0))
    assert (found.copies.count, found.shown) == (1, 0)
    assert "<img" not in (tmp_path / "none" / "audit.html").read_text()
    assert config["sources"]
    moved = audit(generated, tmp_path / "run", tmp_path / "none", source=tmp_path / "run")
    assert moved.copies.count == 1
    assert any("cannot be looked at" in note or "could be looked at" in note for note in moved.notes)


def without_opencv(_):
    raise MissingExtraError("verification needs OpenCV")


def test_a_held_out_set_that_overlaps_is_refused_and_its_images_are_listed(
    train, generated, photos, tmp_path, monkeypatch
):
    crop = photos["astronaut"].crop((60, 40, 470, 440))  # too much for the hash; local features know it
    members = [("x.jpg", encode(crop)), ("y.jpg", encode(photos["moon"])), ("z.jpg", encode(photos["rocket"]))]
    real = write_tar(tmp_path / "real.tar", members)
    with pytest.raises(dk.DedupkitError, match=r"1 of 3 real images are in the training set \(z is rocket"):
        audit(generated, train.path, tmp_path / "out", real=real)
    assert (tmp_path / "out" / "overlap.txt").read_text() == f"{real}\tz\n"
    with_vectors = run(train.config["sources"], tmp_path / "run", embed=Colours())
    with pytest.raises(dk.DedupkitError, match="2 of 3 real images"):
        audit(generated, with_vectors.path, tmp_path / "out2", real=real, embed=Colours())
    assert (tmp_path / "out2" / "overlap.txt").read_text() == f"{real}\tx\n{real}\tz\n"
    monkeypatch.setattr("dedupkit.memorization.again.features_of", without_opencv)
    write_tar(real, members[:2])
    notes = audit(generated, with_vectors.path, tmp_path / "out2", real=real, embed=Colours()).notes
    assert any("by hash and bytes alone: verification needs OpenCV" in note for note in notes)


def test_equal_bytes_are_sought_in_columns_of_several_pieces():
    # texts of more than 2 GiB, of 33 million training images, do not fit into one
    trained = pa.chunked_array([["a", "b"], [None, "b", "c"], []], pa.string())
    assert first_in(pa.chunked_array([["c", "x"], ["b", "a"]]), trained).tolist() == [4, -1, 1, 0]


def test_vectors_find_crops_by_a_threshold_that_real_images_choose(train, photos, tmp_path):
    crop = photos["chelsea"].crop((40, 30, 400, 270))
    made = write_tar(tmp_path / "made.tar", [("crop.png", encode(crop, "PNG"))])
    names = ("camera", "coins", "moon", "retina", "brick", "grass")
    real = write_tar(tmp_path / "real.tar", [(f"{name}.jpg", encode(photos[name].convert("RGB"))) for name in names])
    finished = run(train.config["sources"], tmp_path / "run", embed=Colours())
    undecided = audit(made, finished.path, tmp_path / "out", embed=Colours())
    assert undecided.copies.count == undecided.takedown == 0
    assert "--real" in " ".join(undecided.notes)
    spared = run(train.config["sources"], tmp_path / "next", against=tmp_path / "out" / "takedown.txt")
    assert (spared.summary["blocked"], spared.summary["references"][0]["rows"]) == (0, 0)
    verified = audit(made, finished.path, tmp_path / "out", embed=Colours(), options=AuditOptions(verify=True))
    assert verified.copies.count == verified.verified == 1
    assert "crop" in rows(tmp_path / "out")["crop"]["relation"]
    found = audit(made, finished.path, tmp_path / "out", real=real, embed=Colours(), options=AuditOptions(verify=True))
    assert (found.threshold, found.copies.count, found.candidate) == (None, 1, 0.5)
    assert (found.floor.calibrated_on, found.floor.false_alarms.count, found.floor.false_alarms.of) == (0, 0, 6)
    found = audit(made, finished.path, tmp_path / "out", real=real, embed=Colours())
    assert (found.floor.calibrated_on, found.floor.false_alarms.of) == (3, 3)
    assert "3 real images reach" in found.threshold.origin
    assert 0 <= rows(tmp_path / "out")["crop"]["floor"] <= 1
    with pytest.raises(dk.DedupkitError, match="no vectors of lite"):
        audit(made, finished.path, tmp_path / "out", embed="lite")
    with pytest.raises(dk.DedupkitError, match=r"vectors of 8 values, those of colours in .* have 192"):
        audit(made, finished.path, tmp_path / "out2", embed=Short())
    assert not (tmp_path / "out2").exists(), "nothing was embedded before"
    short = run(made, tmp_path / "short", embed=Short(), rule="exact")
    with pytest.raises(dk.DedupkitError, match="vectors of 8 values"):  # where a specification names the model
        nearest_of(RunFolder(short.path), Neighbours(finished.path), "colours")
    given = audit(made, finished.path, tmp_path / "out2")
    assert "--embed" in " ".join(given.notes)


def test_a_threshold_that_chance_reaches_lies_above_every_cosine(train, generated, photos, tmp_path, monkeypatch):
    monkeypatch.setattr("dedupkit.workflows.audit.overlap", lambda *_: {})
    blank = [(f"{number}.png", encode(Image.new("RGB", (64, 64), (255, 128, 128)), "PNG")) for number in range(4)]
    sources = write_tar(tmp_path / "train.tar", [*blank, ("coffee.jpg", encode(photos["coffee"]))])
    finished = run(sources, tmp_path / "run", embed=Colours())
    found = audit(
        generated, finished.path, tmp_path / "out", real=write_tar(tmp_path / "real.tar", blank), embed=Colours()
    )
    assert (found.threshold.cosine, found.floor.false_alarms.count) == (1.0001, 0)
    assert "no colours cosine is enough for a copy, because more than 0.1 % of 2 real images have" in str(found)
    assert "No cosine of colours vectors is enough" in (tmp_path / "out" / "audit.html").read_text()


class Descriptor(Colours):
    """An embedder that bears the name of a copy descriptor."""

    name, key = "sscd", "colours-sscd"


def test_shares_above_the_published_cosines_are_for_a_copy_descriptor(train, generated, tmp_path):
    finished = run(train.config["sources"], tmp_path / "run", embed=Descriptor())
    found = audit(generated, finished.path, tmp_path / "out", embed=Descriptor())
    assert [each.cosine for each in found.sscd] == [0.5, 0.75]
    assert found.sscd[0].generated.count >= found.sscd[1].generated.count >= 1
    assert (found.threshold.cosine, found.threshold.origin) == (0.75, "as published for SSCD (arXiv 2202.10261)")
    assert "arXiv:2403.03206" in (tmp_path / "out" / "audit.html").read_text()


def noisy(image: Image.Image, seed: int) -> Image.Image:
    pixels = np.asarray(image.convert("RGB").resize((256, 256)), np.int16)
    noise = np.random.default_rng(seed).normal(0, 6, pixels.shape)
    return Image.fromarray(np.clip(pixels + noise, 0, 255).astype(np.uint8))


def test_generations_that_are_near_copies_of_each_other_are_a_clique(train, photos, tmp_path, monkeypatch):
    folder = tmp_path / "made"
    folder.mkdir()
    square = photos["coffee"].crop((100, 0, 500, 400))
    for number in range(6):
        noisy(square, number).save(folder / f"{number}.png")
        (folder / f"{number}.txt").write_text("a cup")
        photos[("camera", "coins", "moon", "retina", "brick", "grass")[number]].save(folder / f"other{number}.png")
        (folder / f"other{number}.txt").write_text("anything")
    (folder / "lonely.txt").write_text("one")
    noisy(photos["rocket"], 0).save(folder / "lonely.png")
    done = command("audit", folder, "--against", train.path, "--out", tmp_path / "out", "--clique", "5", "--json")
    assert done.returncode == 0, done.stderr
    found = AuditResult.from_json(json.loads(done.stdout)).extraction
    assert (found.prompts, found.cliques, found.generations, found.too_few, found.cut) == (2, 1, 6, 1, 0)
    prompts = {row["prompt"]: row for row in pq.read_table(tmp_path / "out" / "prompts.parquet").to_pylist()}
    assert (prompts["a cup"]["clique"], prompts["a cup"]["extracted"]) == (6, True)
    assert not prompts["anything"]["extracted"]
    assert rows(tmp_path / "out")["0.png"]["clique"] == 6
    assert (prompts["a cup"]["generations"], prompts["a cup"]["compared"]) == (6, 6)
    monkeypatch.setattr("dedupkit.memorization.prompted.MOST_GENERATIONS", 5)
    cut = audit(folder, train.path, tmp_path / "out", options=AuditOptions(filter=Filter(clique=5)))
    assert (cut.extraction.cut, cut.extraction.generations) == (2, 5)
    assert "generations of 2 prompts not all were compared" in " ".join(cut.notes)
    table = pq.read_table(tmp_path / "out" / "prompts.parquet")
    assert (table["generations"].to_pylist(), table["compared"].to_pylist()) == ([6, 6], [5, 5])
    few = audit(folder, train.path, tmp_path / "out")
    assert (few.extraction.prompts, few.extraction.too_few) == (0, 3)
    assert "too few for a clique" in " ".join(few.notes)
    assert not (tmp_path / "out" / "prompts.parquet").exists()
    made = [(f"{n}.png", encode(noisy(photos["astronaut"], n), "PNG")) for n in range(5)]
    made += [(f"{n}.txt", b"an astronaut") for n in range(5)]
    near = audit(
        write_tar(tmp_path / "astronauts.tar", sorted(made)),
        train.path,
        tmp_path / "astronauts",
        options=AuditOptions(filter=Filter(clique=5)),
    ).extraction
    assert (near.cliques, near.near_training, near.eidetic["1"]) == (1, 1, 1)
    page = (tmp_path / "astronauts" / "audit.html").read_text()
    assert "5 of 5 generations of the prompt are near-copies" in page


def test_small_images_are_compared_by_the_adaptive_distance(photos, tmp_path):
    rng = np.random.default_rng(0)
    tiles = [np.asarray(photo.convert("RGB").resize((256, 256))) for photo in list(photos.values())[:8]]
    pieces = [
        Image.fromarray(tile[y : y + 32, x : x + 32]) for tile in tiles for y in range(0, 256, 64) for x in (0, 96, 192)
    ]
    members = [(f"{number:03d}.png", encode(piece, "PNG")) for number, piece in enumerate(pieces)]
    finished = run(write_tar(tmp_path / "train.tar", members), tmp_path / "run")
    kept = [row["key"] for row in finished.manifest.to_pylist() if row["verdict"] == "keep"]
    key = kept[len(kept) // 2]
    copy = pieces[int(key)].filter(ImageFilter.GaussianBlur(0.4))
    noise = Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8))
    made = write_tar(tmp_path / "made.tar", [("copy.png", encode(copy, "PNG")), ("noise.png", encode(noise, "PNG"))])
    other = photos["page"].convert("RGB").resize((32, 32)) if "page" in photos else noise
    real = write_tar(tmp_path / "real.tar", [("real.png", encode(other, "PNG"))])
    found = audit(made, finished.path, tmp_path / "out", real=real, options=AuditOptions(adaptive=True))
    assert found.adaptive.real.count == 0
    assert found.adaptive.generated.count == 1
    assert rows(tmp_path / "out")["copy"]["adaptive_key"] == key
    assert rows(tmp_path / "out")["noise"]["adaptive"] > 1
    tar, lost = tmp_path / "train.tar", dict(members)[f"{kept[0]}.png"]
    tar.write_bytes(tar.read_bytes().replace(lost, bytes(len(lost))))
    members = [("copy.png", encode(copy, "PNG")), ("dot.png", encode(Image.new("RGB", (1, 1)), "PNG"))]
    mixed = write_tar(tmp_path / "mixed.tar", [*members, ("noise.png", encode(noise, "PNG"))])
    found = audit(mixed, finished.path, tmp_path / "mixed", options=AuditOptions(adaptive=True))
    assert "1 kept training images cannot be read again" in " ".join(found.notes)
    assert "1 generated images have another size than the 32x32 pixels of most" in " ".join(found.notes)
    assert rows(tmp_path / "mixed")["copy"]["adaptive_key"] == key
    large = write_tar(tmp_path / "large.tar", [("a.png", encode(photos["coffee"], "PNG"))])
    with pytest.raises(dk.DedupkitError, match="--adaptive"):
        audit(large, finished.path, tmp_path / "out2", options=AuditOptions(adaptive=True))


def test_the_adaptive_distance_is_that_of_its_definition_however_numpy_orders_what_it_partitions(monkeypatch):
    real = np.partition

    def partition(values, kth, axis):
        parts = real(values, kth, axis)
        parts[:, :kth] = parts[:, :kth][:, ::-1]  # those below kth may come in any order
        return parts

    monkeypatch.setattr(np, "partition", partition)
    images = np.random.default_rng(0).integers(0, 256, (12, 4, 4, 3), np.uint8)
    training, made = images[:9], images[9:]
    at, best = adaptive_distance(made, training, neighbours=3)

    def distances(image):
        return np.sqrt(((training.astype(float) - image) ** 2).mean(axis=(1, 2, 3))) / 255

    scale = np.array([np.sort(distances(image.astype(float)))[1:4].mean() for image in training])
    expected = np.array([distances(image.astype(float)) / (0.5 * scale) for image in made])
    assert at.tolist() == expected.argmin(axis=1).tolist()
    assert best == pytest.approx(expected.min(axis=1), abs=1e-4)


def test_the_adaptive_distance_holds_a_block_of_generated_images_as_numbers():
    made = np.zeros((20_000, 8, 8, 3), np.uint8)
    tracemalloc.start()
    adaptive_distance(made, made[:10])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < made.nbytes


def test_the_takedown_list_blocks_the_copied_images_in_a_run(train, generated, tmp_path):
    audit(generated, train.path, tmp_path / "out")
    takedown = tmp_path / "out" / "takedown.txt"
    assert all(re.fullmatch("[0-9a-f]{64}", line) for line in takedown.read_text().split())
    done = command("run", *train.config["sources"], "--out", tmp_path / "again", "--against", takedown)
    assert done.returncode == 0, done.stderr
    verdicts = {
        row["key"]: row["verdict"] for row in pq.read_table(tmp_path / "again" / "manifest.parquet").to_pylist()
    }
    assert {key for key, verdict in verdicts.items() if verdict == "blocked"} == {"coffee", "coffee0", "coffee1"}
    assert {verdict for key, verdict in verdicts.items() if not key.startswith("coffee")} == {"keep"}


def test_copied_images_that_a_run_blocks_are_counted_apart(train, generated, photos, tmp_path):
    audit(generated, train.path, tmp_path / "out")
    spared = run(train.config["sources"], tmp_path / "run", against=tmp_path / "out" / "takedown.txt")
    found = audit(generated, spared.path, tmp_path / "again")
    assert (found.copies.count, found.groups, found.eidetic, found.left.single) == (
        1,
        0,
        {"1": 0, "10": 0, "100": 0},
        0,
    )
    assert (found.left.blocked, found.takedown) == (1, 1)
    assert "1 copied training images are blocked in the run" in " ".join(found.notes)
    row = rows(tmp_path / "again")["a"]
    assert (row["train_verdict"], row["kept_key"], row["kept_source"], row["group_size"]) == (
        "blocked",
        None,
        None,
        None,
    )
    page = (tmp_path / "again" / "audit.html").read_text()
    assert "the run blocks the training image" in page
    assert "no duplicate of the training image is known" not in page


def test_an_audit_of_an_update_covers_what_was_trained_on_earlier(train, generated, photos, tmp_path):
    shutil.copytree(train.path, tmp_path / "old")
    members = [("coffee.jpg", encode(photos["moon"])), ("rocket.jpg", encode(photos["rocket"].resize((320, 213))))]
    sources = write_tar(tmp_path / "new.tar", members)
    new = dk.update(tmp_path / "old", sources, tmp_path / "new", workers=0)
    found = audit(generated, new.path, tmp_path / "out")
    assert (found.samples, found.copies.count, found.groups, found.takedown, found.verified) == (8, 1, 1, 3, 1)
    assert (found.left.one, found.eidetic["10"]) == (1, 1)
    row = rows(tmp_path / "out")["a"]
    assert (row["train_run"], row["kept_key"], row["group_size"]) == (str(tmp_path / "old"), "coffee", 3)
    assert row["kept_source"] == row["train_source"] == train.config["sources"][0]
    page = (tmp_path / "out" / "audit.html").read_text()
    assert page.count("<img ") == 2
    assert f"of the earlier run {tmp_path / 'old'}" in page
    real = write_tar(
        tmp_path / "real\t.tar",
        [("z.jpg", encode(photos["rocket"].convert("RGB"))), ("y.jpg", encode(photos["brick"]))],
    )
    groups = CopiedGroups(Neighbours(new.path), np.array([1]))  # the rocket, a duplicate of one of the earlier run
    assert (groups.eidetic(), groups.left()) == ({"1": 0, "10": 1, "100": 1}, Left(0, 1, 0, 0))
    assert len(groups.hashes()) == 2
    with pytest.raises(dk.DedupkitError, match=r"1 of 2 real images are in the training set \(z is rocket of"):
        audit(generated, new.path, tmp_path / "out", real=real)
    assert (tmp_path / "out" / "overlap.txt").read_text() == f"{tmp_path}/real\\t.tar\tz\n"
    shutil.rmtree(tmp_path / "old")
    found = audit(generated, new.path, tmp_path / "out")
    assert (found.samples, found.copies.count) == (2, 0)
    assert f"images of {tmp_path / 'old'}, which the run updates, are not seen" in found.notes[0]


def test_copied_images_are_listed_by_what_a_run_compares(photos, tmp_path):
    flat = encode(Image.new("RGB", (300, 200), (40, 60, 80)))  # its PDQ hash is compared with none
    sources = write_tar(tmp_path / "in.tar", [("coffee.jpg", encode(photos["coffee"])), ("flat.jpg", flat)])
    near = Neighbours(run(sources, tmp_path / "run").path)
    listed = CopiedGroups(near, np.array([0, 1])).hashes()
    assert hashlib.sha256(flat).hexdigest() in listed
    (tmp_path / "takedown.txt").write_text("\n".join(listed))
    assert run(sources, tmp_path / "again", against=tmp_path / "takedown.txt").summary["blocked"] == 2


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--tiles", "5"), "square number"),
        (("--tiles", "1000000"), "at most 256, not 1000000"),
        (("--clique", "1"), "at least 2"),
        (("--delta", "0"), "delta"),
        (("--false-alarms", "1"), "false alarms"),
        (("--embed", "lite"), "no vectors"),
    ],
)
def test_bad_options_are_one_line(train, generated, tmp_path, options, words):
    done = command("audit", generated, "--against", train.path, "--out", tmp_path / "out", *options)
    assert done.returncode == 1
    assert words in one_line(done.stderr)


def test_bad_images_are_one_line(train, generated, tmp_path):
    (tmp_path / "empty").mkdir()
    failed = command("audit", tmp_path / "empty", "--against", train.path, "--out", tmp_path / "out")
    assert "nothing to read" in one_line(failed.stderr)
    broken = write_tar(tmp_path / "broken.tar", [("a.jpg", b"broken")])
    with pytest.raises(dk.DedupkitError, match="no image of .* can be read"):
        audit(broken, train.path, tmp_path / "out")
    with pytest.raises(dk.DedupkitError, match="no false-alarm rate"):
        audit(generated, train.path, tmp_path / "out2", real=broken)
    with pytest.raises(dk.DedupkitError, match="no run"):
        audit(generated, tmp_path / "empty", tmp_path / "out3")


def test_prompts_that_fit_no_image_are_said_and_images_of_any_size_and_mode_are_read(train, photos, tmp_path):
    folder = tmp_path / "made"
    folder.mkdir()
    coffee = photos["coffee"]
    modes = {
        "L": coffee.convert("L"),
        "P": coffee.convert("P"),
        "RGBA": coffee.convert("RGBA"),
        "CMYK": coffee.convert("CMYK"),
    }
    for mode, image in modes.items():
        image.save(folder / f"{mode}.{'jpg' if mode == 'CMYK' else 'png'}")
    Image.new("RGB", (1, 1)).save(folder / "dot.png")
    coffee.resize((2000, 30)).save(folder / "wide.png")
    (folder / "broken.png").write_bytes(b"no image")
    (folder / "captions.csv").write_text("file_name,text\nL.png,a cup\ngone.png,a dog\nbroken.png,a cup\nwide.png,  \n")
    (folder / "lost.txt").write_text("no image has this name")
    found = audit(folder, train.path, tmp_path / "out")
    assert (found.generated, found.copies.count, found.unreadable, found.without_prompt) == (6, 5, 1, 5)
    notes = " ".join(found.notes)
    assert "lost.txt" in notes
    assert "5 generated images have no prompt" in notes
    assert "too flat" in notes


def test_the_page_in_a_browser_blurs_its_images_until_it_is_asked(train, generated, tmp_path):
    audit(generated, train.path, tmp_path / "out")
    blur = "getComputedStyle(document.querySelector('.frame img')).filter"
    loaded = "[...document.images].map((each) => each.naturalWidth > 0).join()"
    with opened((tmp_path / "out" / "audit.html").as_uri(), tmp_path / "profile") as profile:
        said = evaluate(
            profile,
            ("0", blur),
            ("document.querySelector('.button').click()", f"{blur} === 'none' && 'shown'"),
            ("0", loaded),
            ("document.querySelector('.button').click()", f"{blur} !== 'none' && 'blurred'"),
        )
    assert said == ["blur(22px)", "shown", "true,true", "blurred"]
