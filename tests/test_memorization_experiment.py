"""The training experiment of benchmarks/memorization: its planted data, its test for copies, and one tiny run."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent.parent / "benchmarks"))

from memorization.arms import clean
from memorization.kinds import Curve, kinds_plan
from memorization.kinds import summarise as summarise_kinds
from memorization.metric import cluster_distances, distances, extracted, mcnemar, proportion, row_ratio
from memorization.photos import made_photos, read_photos
from memorization.planted import EDITS, Plan, edited, photos_needed, planted, read_rows, read_truth, write_planted
from memorization.record import claim, digest_of_photos

SMALL = Plan(((1, 14), (2, 3), (3, 1)), ((1, 2), (1, 1)))


def test_a_copy_among_copies_is_extracted_by_clusters_and_missed_by_the_usual_ratio():
    rng = np.random.default_rng(0)
    photos = rng.uniform(-1, 1, (3, 48))
    copies = photos[0] + rng.normal(0, 0.05, (20, 48))
    reference = np.concatenate([photos, copies])
    cluster = np.array([0, 1, 2] + [0] * 20)
    sample = photos[:1] + 0.04
    rows = distances(sample, reference)
    assert extracted(cluster_distances(rows, cluster, 3), np.array([0])).all()
    assert not extracted(cluster_distances(rows, cluster, 3), np.array([1])).any()  # it copies, but not its prompt
    assert row_ratio(rows)[0] > 1 / 3
    assert row_ratio(distances(sample, photos))[0] < 1 / 3


def test_a_mixture_of_two_photos_is_not_extracted():
    photos = np.random.default_rng(1).uniform(-1, 1, (4, 48))
    mixed = (photos[:1] + photos[1:2]) / 2
    by_cluster = cluster_distances(distances(mixed, photos), np.arange(4), 4)
    assert not extracted(by_cluster, np.array([0])).any()


def test_intervals_and_tests_say_what_small_counts_allow():
    assert proportion(0, 80)["high"] == pytest.approx(0.0458, abs=1e-3)
    assert proportion(0, 0)["share"] is None
    assert mcnemar(np.ones(5, bool), np.ones(5, bool))["p"] == 1
    assert mcnemar(np.array([1] * 10 + [0]), np.array([0] * 10 + [1]))["p"] == pytest.approx(0.01171875)


def test_the_plan_of_the_experiment_makes_2000_rows_of_1082_photos():
    plan = Plan()
    assert sum(photos * copies for photos, copies in plan.train) == 2000
    assert sum(photos for photos, _ in plan.train) == 1082
    assert photos_needed(plan) == 1130


@pytest.mark.parametrize("edit", EDITS)
def test_edits_change_the_bytes_and_give_images(edit: str):
    photo = made_photos(1)[0]
    first, extension = edited(photo.data, edit, np.random.default_rng(0))
    again, _ = edited(photo.data, edit, np.random.default_rng(0))
    assert first == again != photo.data
    assert extension in ("jpg", "png", "webp")
    assert Image.open(io.BytesIO(first)).convert("RGB").size > (30, 30)


def test_planted_rows_go_through_all_edits_and_keep_or_change_their_captions():
    rows = planted(made_photos(photos_needed(SMALL)), SMALL)
    by_photo: dict[int, list] = {}
    for row, *_, caption in rows:
        by_photo.setdefault(row.photo, []).append((row, caption))
    largest = max(by_photo.values(), key=len)
    kinds = Counter(row.edit for row, _ in largest)
    assert kinds["original"] == 1
    assert set(kinds) == {"original", "exact", *EDITS}
    captions = {row.captions: len({c for _, c in group}) for group in by_photo.values() for row, _ in group}
    assert captions["one"] == 1
    assert captions["several"] == 3


def test_the_plan_of_kinds_gives_a_photo_copies_of_one_kind_and_one_caption():
    for name, rows, photos in (("kinds", 4308, 1141), ("few", 1910, 1228)):
        plan = kinds_plan(name, 3)
        assert (plan.seed, plan.beside) == (3, 0)
        assert (plan.rows, photos_needed(plan)) == (rows, photos)
    small = Plan(((2, 1),), ((1, 1),), ((1, 4, "exact"), (1, 3, "crop"), (1, 14, "all")))
    groups: dict[int, list] = {}
    for row, data, _, caption in planted(made_photos(photos_needed(small)), small):
        groups.setdefault(row.photo, []).append((row.edit, data, caption))
    edits = {len(group): Counter(edit for edit, *_ in group) for group in groups.values() if len(group) > 1}
    assert edits[4] == {"original": 1, "exact": 3}
    assert edits[3] == {"original": 1, "crop": 2}
    assert set(edits[14]) == {"original", "exact", *EDITS}
    assert all(len({caption for *_, caption in group}) == 1 for group in groups.values())
    assert {len({data for _, data, _ in group}) for group in groups.values() if len(group) == 4} == {1}


def test_a_kind_that_counts_for_half_has_a_rho_of_half_and_extremes_have_bounds():
    share = {1: 0, 10: 0, 20: 4, 50: 6, 100: 7}
    photos = [("exact", k, hits) for k, hits in share.items()]
    photos += [("crop", 40, 4), ("rotate", 40, 0), ("png", 40, 8)]
    images = [
        {"part": "train", "copies": k, "left_edits": {"original": 1} if k == 1 else {"original": 1, kind: k - 1}}
        for kind, k, _ in photos
        for _ in range(6)
    ]
    images.append({"part": "unseen", "copies": 1, "left_edits": {}})
    hits = [hits for *_, hits in photos for _ in range(6)]
    run = {
        "seed": 0,
        "settings": {"steps": 9, "samples_per_image": 8},
        "images": images,
        "points": [{"step": 9, "loss": 0.1, "hits": [*hits, 0]}],
    }
    summary = summarise_kinds([run])
    kinds = summary["points"]["9"]["kinds"]
    assert not summary["void"]
    assert kinds["crop"]["rho"] == kinds["crop"]["interval"] == [0.5, 0.5]
    assert kinds["rotate"]["rho"] == [0.0, 0.25]  # at most 10 of 40
    assert kinds["png"]["rho"] == [2.5, None]  # at least 100 of 40


def test_the_curve_of_byte_copies_is_made_monotone():
    curve = Curve({1: np.zeros(4), 10: np.full(4, 0.6), 100: np.full(4, 0.4)})
    assert curve.shares.tolist() == [0, 0.5, 0.5]
    assert curve.at(30) == pytest.approx(0.5)
    assert curve.copies(0.5) == (pytest.approx(10), np.inf)


def test_shards_hold_what_truth_says_and_exact_hashes_leave_all_but_exact_copies(tmp_path: Path):
    write_planted(made_photos(photos_needed(SMALL)), SMALL, tmp_path / "data")
    truth = read_truth(tmp_path / "data" / "truth.csv")
    rows = read_rows(tmp_path / "data" / "train")
    assert {key for key, *_ in rows} == {key for key, row in truth.items() if row.part == "train"}
    left, _ = clean("exact", tmp_path / "data", tmp_path / "arms")
    exact = sum(row.edit == "exact" and row.part == "train" for row in truth.values())
    assert exact >= 1
    assert len(read_rows(left)) == len(rows) - exact
    originals = {key for key, *_ in read_rows(clean("oracle", tmp_path / "data", tmp_path / "arms")[0])}
    assert {truth[key].edit for key in originals} == {"original"}
    assert len(originals) == 6


def test_photos_are_read_with_flickr_captions_or_text_files(tmp_path: Path):
    for number, photo in enumerate(made_photos(3)):
        (tmp_path / f"{number}.jpg").write_bytes(photo.data)
    (tmp_path / "captions.txt").write_text('image,caption\n0.jpg,"A dog, running"\n0.jpg,A dog\n')
    (tmp_path / "1.txt").write_text("a cat\n")
    assert [(photo.name, photo.captions) for photo in read_photos(tmp_path)] == [
        ("0.jpg", ("A dog, running", "A dog")),
        ("1.jpg", ("a cat",)),
    ]


@pytest.mark.parametrize("content", [b"version https://git-lfs.github.com/spec/v1\n", made_photos(1)[0].data[:3000]])
def test_a_photo_that_cannot_be_read_is_named_before_anything_is_planted(tmp_path: Path, content: bytes):
    (tmp_path / "0.jpg").write_bytes(content)
    (tmp_path / "0.txt").write_text("a dog")
    with pytest.raises(ValueError, match=r"0\.jpg cannot be read as an image .*; take it out of the folder"):
        read_photos(tmp_path)


def test_a_folder_holds_one_experiment(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "photos").mkdir()
    asked = {"plan": "copies", "photos": digest_of_photos(None), "steps": 2000, "tiny": False}
    claim(tmp_path / "out", asked | {"steps": 1})
    claim(tmp_path / "out", asked)  # nothing was done for the other
    (tmp_path / "out" / "data").mkdir()
    claim(tmp_path / "out", asked)
    for other in ({"photos": digest_of_photos(tmp_path / "photos")}, {"steps": 40}, {"plan": "kinds"}, {"tiny": True}):
        with pytest.raises(SystemExit, match="holds another experiment; choose another --out"):
            claim(tmp_path / "out", asked | other)
    assert not capsys.readouterr().out
    claim(tmp_path, asked)  # from before that was written down
    assert "cannot be checked" in capsys.readouterr().out
    assert not (tmp_path / "experiment.json").exists()


def test_seeds_that_differ_by_a_row_have_one_point_of_equal_epochs_in_the_plot():
    pytest.importorskip("matplotlib")
    from memorization.plots import points_of

    steps = {
        step: {"step": step, "loss": [0.5] * seeds} for step, seeds in ((1000, 3), (1086, 2), (1087, 1), (2000, 3))
    }
    arm = {"seeds": [0, 1, 2], "equal_epochs": {"step": 1087, "loss": [0.4, 0.5, 0.6]}, "steps": steps}
    assert [(point["step"], len(point["loss"])) for point in points_of(arm)] == [(1000, 3), (1087, 3), (2000, 3)]


def test_the_command_trains_measures_and_does_not_compute_again(tmp_path: Path):
    pytest.importorskip("torch")
    pytest.importorskip("matplotlib")
    root = Path(__file__).parent.parent
    command = [sys.executable, "-m", "memorization", "--tiny", "--arm", "raw", "--arm", "oracle", "--steps", "2"]
    environment = {**os.environ, "PYTHONPATH": f"{root}{os.pathsep}{root / 'benchmarks'}"}
    for _ in range(2):
        done = subprocess.run(
            [*command, "--out", str(tmp_path), "--workers", "1"],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
    assert "raw-0: there already" in done.stdout
    assert json.loads((tmp_path / "experiment.json").read_text())["steps"] == 2
    assert "| oracle | 13 | 2 |" in done.stdout
    assert {path.name for path in (tmp_path / "results").iterdir()} == {
        "raw-0.json", "oracle-0.json", "summary.json", "memorization-extraction.svg",
        "memorization-steps.svg", "memorization-blind.svg",
    }  # fmt: skip
    summary = json.loads((tmp_path / "results" / "summary.json").read_text())["summary"]
    assert summary["arms"]["raw"]["copies_left"]["by_copies"]["20"] == 20
    assert summary["arms"]["oracle"]["copies_left"]["by_copies"]["20"] == 1
    assert (tmp_path / "page.html").exists()
